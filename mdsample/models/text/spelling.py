"""Spelling: the bytes of every token, as the decoder of a tokenizer would put them together.

Byte-level BPE (GPT-2, LLaMA 3, Qwen) writes every byte as a printable letter. SentencePiece (LLaMA 2, Gemma) writes a
space as `▁` and bytes that are no token of their own as `<0x0A>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from tokenizers import Tokenizer as Engine

from mdsample.core.tokens import Spelling
from mdsample.errors import ModelError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def read_spelling(engine: Engine, size: int, special: Collection[int], file: str) -> Spelling:
    """The bytes of the tokens 0 … `size` − 1, `None` for `special` ones and where there is none.

    Raises `ModelError` for a decoder of another kind: what it makes of a token depends on its neighbours.
    """
    state: dict[str, Any] = {} if engine.decoder is None else json.loads(engine.decoder.__getstate__())
    parts = [*_parts(state)]
    kinds = [part.get("type") for part in parts]
    texts: list[bytes | None] = [None] * size
    added = engine.get_added_tokens_decoder()
    byte_level = kinds == ["ByteLevel"]
    unknown = [kind for kind in kinds if kind not in ("ByteFallback", "Fuse", "Replace", "Strip", "Metaspace")]
    strip = [part for part in parts if part.get("type") == "Strip"]
    odd = any((part["content"], part["start"], part["stop"]) != (" ", 1, 0) for part in strip)
    if not kinds or (unknown and not byte_level) or odd:
        raise ModelError(
            f"the decoder of {file} ({', '.join(map(str, kinds)) or 'none'}) does not put tokens' texts one after "
            "another, so what a slot may hold cannot be told token by token; that of byte-level and "
            "SentencePiece tokenizers can"
        )
    replaced = [(part["pattern"].get("String"), part["content"]) for part in parts if part.get("type") == "Replace"]
    if any(pattern is None for pattern, _ in replaced):
        raise ModelError(f"the decoder of {file} replaces by a regular expression, which may take forever")
    replaced += [(part["replacement"], " ") for part in parts if part.get("type") == "Metaspace"]
    for written, number in engine.get_vocab(with_added_tokens=True).items():
        if number in special or number >= size:
            continue
        byte = _BYTE.fullmatch(written)
        if number in added:
            texts[number] = written.encode()
        elif byte_level:
            texts[number] = _undone(written)
        elif byte and "ByteFallback" in kinds:
            texts[number] = bytes([int(byte[1], 16)])
        else:
            for pattern, content in replaced:
                written = written.replace(pattern, content)
            texts[number] = written.encode()
    prepends = any(part.get("type") == "Metaspace" and part.get("prepend_scheme") != "never" for part in parts)
    return Spelling(tuple(texts), bool(strip) or prepends)


def _parts(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The decoders of a sequence, of which there may be one."""
    return [part for inner in state.get("decoders", [state] if state else []) for part in _inner(inner)]


def _inner(state: dict[str, Any]) -> list[dict[str, Any]]:
    return _parts(state) if "decoders" in state else [state]


def _letters() -> dict[str, int]:
    """Byte by letter, as byte-level BPE writes them: printable bytes as themselves, the others from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _letters()
#: a letter's byte as a letter of Latin-1; letters that stand for no byte become one that Latin-1 lacks
_LATIN = {byte: "Ā" for byte in range(256)} | {ord(letter): chr(byte) for letter, byte in _BYTES.items()}


def _undone(written: str) -> bytes:
    """The bytes of a byte-level token; of one that is not written so, its own."""
    try:
        return written.translate(_LATIN).encode("latin-1")
    except UnicodeEncodeError:
        return written.encode()

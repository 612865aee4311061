"""Byte-level BPE as published before `tokenizer.json`: `vocab.json`, `merges.txt` and added tokens, by Qwen2's rules.

Dream, Dream-Coder, DiffuCoder and relatives ship only these. Qwen2's rules (its pattern, NFC, bytes) are those of
`tokenization_qwen2.py` in transformers; ids are equal to those of its slow and fast tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tokenizers import AddedToken, Regex
from tokenizers import Tokenizer as Engine
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from mdsample.errors import ModelError
from mdsample.models.families.special import LONGEST_TOKENIZER, read_added, read_object
from mdsample.models.files import read_text

VOCAB, MERGES, CONFIG = "vocab.json", "merges.txt", "tokenizer_config.json"
#: names of the tokenizer's class whose rules these are
CLASSES = ("Qwen2Tokenizer", "Qwen2TokenizerFast", "DreamTokenizer")

#: where a text is cut before merges: contractions, words, single digits, other signs, line ends, white space
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_byte_level(folder: Path) -> Engine | None:
    """The tokenizer of a folder without `tokenizer.json`; `None` if it has no `vocab.json` or no `merges.txt`.

    Raises `ModelError` for a class whose rules are not known here, and for files that do not belong together; where a
    merge makes no token of the vocabulary, what the library raises.
    """
    vocabulary = read_object(folder / VOCAB, LONGEST_TOKENIZER)
    merges = read_text(folder / MERGES, LONGEST_TOKENIZER)
    if not vocabulary or merges is None:
        return None
    said = read_object(folder / CONFIG)
    kind = said.get("tokenizer_class")
    if kind not in CLASSES:
        raise ModelError(
            f"{folder / CONFIG} has tokenizer_class {kind!r:.80}, and of {VOCAB} and {MERGES} only the rules of "
            f"{', '.join(CLASSES)} are known; save the tokenizer once with transformers, which writes tokenizer.json"
        )
    ids = [number for number in vocabulary.values() if type(number) is int and 0 <= number < len(vocabulary)]
    if len(set(ids)) < len(vocabulary):
        raise ModelError(f"{folder / VOCAB} must give {len(vocabulary)} tokens the ids 0 to {len(vocabulary) - 1}")
    pairs = list(_merges(folder / MERGES, merges))
    engine = Engine(BPE(vocab=cast("dict[str, int]", vocabulary), merges=pairs))
    prefix = said.get("add_prefix_space") is True
    cut = Split(Regex(_PATTERN), behavior="isolated", invert=False)
    engine.normalizer = NFC()  # pyright: ignore[reportAttributeAccessIssue]
    engine.pre_tokenizer = Sequence([cut, ByteLevel(add_prefix_space=prefix, use_regex=False)])  # pyright: ignore[reportAttributeAccessIssue]
    engine.decoder = ByteDecoder()  # pyright: ignore[reportAttributeAccessIssue]
    added, faults = read_added(folder)
    if faults:
        raise ModelError(faults[0])
    for number, token in added.items():
        engine.add_tokens([AddedToken(token.text, **token.flags)])  # pyright: ignore[reportUnknownMemberType]
        if engine.token_to_id(token.text) != number:
            raise ModelError(
                f"{folder / CONFIG} gives the added token {token.text!r:.80} the id {number}, but the tokens before "
                f"it end at {engine.get_vocab_size() - 2}; the files do not belong together"
            )
    return engine


def _merges(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """The pairs, in their order."""
    for number, line in enumerate(text.split("\n")):
        if not line or (number == 0 and line.startswith("#version")):
            continue
        left, space, right = line.removesuffix("\r").partition(" ")
        if not (left and space and right) or " " in right:
            raise ModelError(f"line {number + 1} of {path} must be two tokens with a space between; found {line!r:.80}")
        yield left, right

"""The tokenizer of a model folder behind the small protocol that sampling needs."""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, final

import attrs
from tokenizers import Tokenizer as Engine
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from mdsample.core.tokens import Spelling, parted
from mdsample.errors import ModelError, TemplateError
from mdsample.models.families.special import LONGEST_TOKENIZER, read_ends
from mdsample.models.families.trunk import Trunk
from mdsample.models.files import read_text
from mdsample.models.text.byte_level import MERGES, VOCAB, read_byte_level
from mdsample.models.text.chat_template import read_chat_template, read_sources
from mdsample.models.text.spelling import read_spelling

#: characters that rules of a tokenizer may put in the place of one; published ones put one to three
_GROWTH = 64
#: the file that a tokenizer is read from where it is there
FILE = "tokenizer.json"
#: files of formats that are not read
_OTHERS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", VOCAB, MERGES)
#: added tokens times characters of chat templates, which are searched for them
_SEARCHED = 1 << 32


@attrs.frozen(kw_only=True)
class Named:
    """What a configuration says of its tokens, where there is no `Trunk` that says it."""

    #: number of logits
    vocab_size: int
    mask_id: int
    #: the token that ends and pads a text
    end_id: int | None
    #: the token that stands before every text
    start_id: int | None
    #: the longest row, tokens
    max_length: int


@final
class FileTokenizer:
    """A tokenizer of the `tokenizers` library, with the special ids that the configuration names."""

    def __init__(
        self,
        engine: Engine,
        *,
        mask_id: int,
        end_id: int | None = None,
        start_id: int | None = None,
        ends: Collection[int] = (),
        turn: str = "",
        max_length: int | None = None,
        chat: str = "",
        folder: Path | None = None,
        file: str = FILE,
    ) -> None:
        """Takes `engine` over: it is set to spell special tokens out, and not to pad or truncate.

        `chat`: Jinja of the chat templates; the added tokens that it names are special, too, but show in texts.
        `ends`: further tokens that end a text. `turn`: what the chat template writes after a text of the assistant's;
        the first special token in it ends a text as well.
        `folder`: the model folder that it was read from, `file`: the file there that has its ids. `max_length`: of a
        row, tokens; a text that is certain to have more is refused before it is cut into tokens.
        Raises `ModelError` if one of the ids is not one of its tokens, or if its rules cannot be trusted to end.
        """
        if mask_id in (end_id, *ends):
            raise ModelError(
                f"config.json and the files beside it name token {mask_id} both as the mask and as what ends a text; "
                "correct mask_token_id or eos_token_id"
            )
        vocabulary = engine.get_vocab(with_added_tokens=True)
        # one more than the highest id: a vocabulary with holes has fewer tokens than ids
        self._size = 1 + max(vocabulary.values(), default=-1)
        self._mask_id, self._end_id = mask_id, end_id
        self._folder, self._file = folder, file
        self._start = () if start_id is None else (start_id,)
        engine.no_padding()
        engine.no_truncation()
        engine.encode_special_tokens = True
        named = [("mask", mask_id), ("end", end_id), ("start", start_id)]
        for role, token in [*named, *(("end", token) for token in sorted({*ends} - {end_id}))]:
            if token is None:
                continue
            written = engine.id_to_token(token) if 0 <= token < self._size else None
            if written is None:
                raise ModelError(
                    f"the {role} token is {token} by {'' if (role, token) in named else 'generation_'}config.json, but "
                    f"{file} has no such token (its ids end at {self._size - 1}); the two files do not belong "
                    "together"
                )
            # some published files do not mark them as special; unmarked, they could be typed in a prompt
            engine.add_special_tokens([written])  # pyright: ignore[reportUnknownMemberType]
        added = engine.get_added_tokens_decoder()
        self._unseen = frozenset(number for number, token in added.items() if token.special)
        if len(added) * len(chat) > _SEARCHED:
            raise ModelError(
                f"{file} has {len(added):,} added tokens and the chat templates {len(chat):,} characters, more "
                "than can be compared; leave out what is not used"
            )
        in_chat = [token for token in added.values() if not token.special and token.content in chat]
        in_chat = [token for token in in_chat if not token.content.isspace()]
        for token in in_chat:
            token.special = True
        engine.add_special_tokens(in_chat)  # pyright: ignore[reportUnknownMemberType]
        _refuse_growth(engine)
        self._engine, self._max_length = engine, max_length
        lossless = max_length is not None and _is_lossless(engine)
        #: characters of the longest text that may be a row, if that can be told
        self._most = 4 * max_length * max(map(len, vocabulary)) if max_length is not None and lossless else None
        self._special = {token.content: number for number, token in sorted(added.items()) if token.special}
        self._turn_end = self._until_special(turn)
        self._ends = frozenset(
            {*ends, *self._turn_end[-1:]} if end_id is None else {*ends, end_id, *self._turn_end[-1:]}
        )

    @classmethod
    def read(cls, folder: Path, named: Trunk | Named) -> FileTokenizer:
        """The tokenizer of a model folder; `ModelError` if it is missing, malformed or does not fit `named`."""
        text = read_text(folder / FILE, LONGEST_TOKENIZER)
        file = FILE if text is not None else VOCAB
        sources = read_sources(folder)
        chat = read_chat_template(folder) if "default" in sources else None
        with _in_a_sentence(f"{folder / (MERGES if text is None else FILE)} cannot be read", "; fetch it again"):
            engine = read_byte_level(folder) if text is None else Engine.from_str(text)
            if engine is None:
                raise _missing(folder)
            tokenizer = cls(
                engine,
                mask_id=named.mask_id,
                end_id=named.end_id,
                start_id=named.start_id,
                max_length=named.max_length,
                # encoders carry an eos_token_id that their class sets and nobody trained
                ends=read_ends(folder) if isinstance(named, Trunk) else (),
                turn="" if chat is None else chat.turn_end(),
                chat="\n".join(sources.values()),
                folder=folder,
                file=file,
            )
        if tokenizer.size > named.vocab_size:
            raise ModelError(
                f"{folder / file} has token ids up to {tokenizer.size - 1}, but the model has {named.vocab_size} "
                "logits; the two files do not belong together"
            )
        return tokenizer

    @property
    def folder(self) -> Path | None:
        """The model folder that it was read from, where the chat template is."""
        return self._folder

    @property
    def size(self) -> int:
        """One more than the highest token id, special tokens included."""
        return self._size

    @property
    def mask_id(self) -> int:
        """The mask token."""
        return self._mask_id

    @property
    def end_id(self) -> int | None:
        """The token that ends and pads a text, if there is one."""
        return self._end_id

    @property
    def ends(self) -> frozenset[int]:
        """The tokens each of which ends a text: of the configuration, of `generation_config.json`, of a chat's turn."""
        return self._ends

    @property
    def turn_end(self) -> tuple[int, ...]:
        """What the chat template writes after the assistant's text, up to the token that ends the turn."""
        return self._turn_end

    @property
    def start(self) -> tuple[int, ...]:
        """Tokens that stand before every text: none or one."""
        return self._start

    @property
    def special(self) -> Sequence[str]:
        """Texts of the special tokens, by id."""
        return tuple(self._special)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text.

        `ValueError` if it is not valid unicode (a lone surrogate), `TemplateError` if it is certain to have more tokens
        than a row may have, `ModelError` if the tokenizer's rules cannot cut it into tokens.
        """
        if self._most is not None and len(text) > self._most:
            raise TemplateError(
                f"a text of {len(text):,} characters has more tokens than a row may have, {self._max_length:,}; "
                "shorten it"
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a surrogate pair; "
                "that is not valid unicode, so remove or replace it"
            ) from error
        with _in_a_sentence(f"the rules of {self._file} cannot cut {text[:40]!r} into tokens"):
            return self._engine.encode(text, add_special_tokens=False).ids

    def _until_special(self, text: str) -> tuple[int, ...]:
        """The tokens of a text up to its first special token; none if it has none, or words before it."""
        white = text[: len(text) - len(text.lstrip())]
        first = next(parted(text.lstrip(), self.special), "")
        return (*self.encode(white), self._special[first]) if first in self._special else ()

    def special_id(self, text: str) -> int:
        """The id of a special token; `ValueError` if there is none with this text."""
        if text not in self._special:
            raise ValueError(f"{text!r} is not a special token; special tokens: {', '.join(self._special) or 'none'}")
        return self._special[text]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids; bytes that are no character become U+FFFD.

        Special tokens are left out, but for those that only a chat template makes special (`<think>`).
        """
        with _in_a_sentence(f"the rules of {self._file} cannot make a text of these tokens"):
            seen = [token for token in tokens if token not in self._unseen]
            return self._engine.decode(seen, skip_special_tokens=False)

    def spelling(self) -> Spelling:
        """The bytes of every token; `ModelError` if its decoder does more than put them one after another."""
        return read_spelling(self._engine, self._size, {*self._special.values(), *self._unseen}, self._file)


def _missing(folder: Path) -> ModelError:
    """The error that says what is there instead of a tokenizer, and how to make one of it."""
    found = [name for name in _OTHERS if (folder / name).is_file()]
    instead = f"; found {' and '.join(found)} alone" if found else ""
    command = "from transformers import AutoTokenizer as A; A.from_pretrained('.').save_pretrained('.')"
    return ModelError(
        f"{folder} holds no {FILE}, and not {VOCAB} with {MERGES}{instead}; other tokenizer formats are not read: "
        f'transformers writes {FILE} there, with python -c "{command}"'
    )


@contextmanager
def _in_a_sentence(what: str, remedy: str = "") -> Generator[None]:
    """Whatever goes wrong inside the library is a `ModelError`: it raises plain `Exception`, and panics."""
    try:
        yield
    except ModelError:
        raise
    except BaseException as error:  # a panic is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what}: {' '.join(str(error).split())[:200]}{remedy}") from error


def _parts(state: object) -> Iterator[dict[str, Any]]:
    """Every object in what the library writes of a normalizer, a pre-tokenizer or a decoder, and `{}` for none."""
    if isinstance(state, dict):
        part = cast("dict[str, Any]", state)
        yield part
        state = list(part.values())
    if isinstance(state, list):
        for inner in cast("list[object]", state):
            yield from _parts(inner)


def _state(part: Any) -> object:
    return {} if part is None else json.loads(part.__getstate__())


def _refuse_growth(engine: Engine) -> None:
    """`ModelError` if a few characters or tokens could become a text without end, or take forever to become one."""
    for role, state in (("normalizer", _state(engine.normalizer)), ("decoder", _state(engine.decoder))):
        growth = 1
        for part in _parts(state):
            growth *= max(1, *(len(part.get(key) or "") for key in ("content", "prepend", "replacement")))
            if role == "decoder" and "Regex" in part:
                raise ModelError(
                    "the decoder of tokenizer.json has a regular expression, which may take forever; decoders that "
                    "replace plain text are read"
                )
        if growth > _GROWTH:
            raise ModelError(
                f"the {role} of tokenizer.json makes up to {growth:,} characters out of one; {_GROWTH} would make sense"
            )


def _is_lossless(engine: Engine) -> bool:
    """Whether every character of a text ends up in a token, so that the longest token bounds what a row can hold.

    That four characters are composed into one (NFC) is allowed for.
    """
    kinds = {part["type"] for part in _parts(_state(engine.normalizer)) if "type" in part}
    cuts = list(_parts(_state(engine.pre_tokenizer)))
    added = engine.get_added_tokens_decoder().values()
    return (
        isinstance(engine.model, BPE)
        and kinds <= {"Sequence", "NFC", "NFD", "NFKC", "NFKD"}
        and {part["type"] for part in cuts if "type" in part} <= {"Sequence", "Split", "Digits", "ByteLevel"}
        and not any(part.get("behavior") == "Removed" for part in cuts)
        and "ByteLevel" in {part.get("type") for part in cuts}
        and all(engine.token_to_id(byte) is not None for byte in ByteLevel.alphabet())
        and not any((token.lstrip or token.rstrip) and not token.special for token in added)
    )

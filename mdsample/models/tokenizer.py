"""The tokenizer of a model folder: `tokenizer.json` behind the small protocol that sampling needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, final

from tokenizers import Tokenizer as Engine

from mdsample.errors import ModelError
from mdsample.models.chat_template import read_sources


class Named(Protocol):
    """What a configuration says of its tokens: a `Trunk`, for one."""

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        ...

    @property
    def mask_id(self) -> int:
        """The mask token."""
        ...

    @property
    def end_id(self) -> int | None:
        """The token that ends and pads a text, if there is one."""
        ...

    @property
    def start_id(self) -> int | None:
        """The token that stands before every text, if there is one."""
        ...


@final
class FileTokenizer:
    """A `tokenizer.json`, read by the `tokenizers` library, with the special ids that the configuration names."""

    def __init__(
        self,
        engine: Engine,
        *,
        mask_id: int,
        end_id: int | None = None,
        start_id: int | None = None,
        chat: str = "",
        folder: Path | None = None,
    ) -> None:
        """Takes `engine` over: it is set to spell special tokens out, and not to pad or truncate.

        `chat`: Jinja of the chat templates; the added tokens that it names are special, too, but show in texts.
        `folder`: the model folder that it was read from.
        Raises `ModelError` if one of the ids is not one of its tokens.
        """
        # one more than the highest id: a vocabulary with holes has fewer tokens than ids
        self._size = 1 + max(engine.get_vocab(with_added_tokens=True).values(), default=-1)
        self._mask_id, self._end_id = mask_id, end_id
        self._folder = folder
        self._start = () if start_id is None else (start_id,)
        engine.no_padding()
        engine.no_truncation()
        engine.encode_special_tokens = True
        for role, token in (("mask", mask_id), ("end", end_id), ("start", start_id)):
            if token is None:
                continue
            written = engine.id_to_token(token) if 0 <= token < self._size else None
            if written is None:
                raise ModelError(
                    f"the {role} token is {token} by config.json, but tokenizer.json has no such token (its ids end at "
                    f"{self._size - 1}); the two files do not belong together"
                )
            # some published files do not mark them as special; unmarked, they could be typed in a prompt
            engine.add_special_tokens([written])  # pyright: ignore[reportUnknownMemberType]
        added = engine.get_added_tokens_decoder()
        self._unseen = frozenset(number for number, token in added.items() if token.special)
        for token in added.values():
            if not token.special and token.content in chat and not token.content.isspace():
                token.special = True
                engine.add_special_tokens([token])  # pyright: ignore[reportUnknownMemberType]
        self._engine = engine
        self._special = {token.content: number for number, token in sorted(added.items()) if token.special}

    @classmethod
    def read(cls, folder: Path, named: Named) -> FileTokenizer:
        """The tokenizer of a model folder; `ModelError` if it is missing, malformed or does not fit `named`."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{folder} holds no tokenizer.json; other tokenizer formats are not read")
        try:
            engine = Engine.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(f"{path} cannot be read: {error}") from error
        chat = "\n".join(read_sources(folder).values())
        tokenizer = cls(
            engine, mask_id=named.mask_id, end_id=named.end_id, start_id=named.start_id, chat=chat, folder=folder
        )
        if tokenizer.size > named.vocab_size:
            raise ModelError(
                f"{path} has token ids up to {tokenizer.size - 1}, but the model has {named.vocab_size} logits; "
                "the two files do not belong together"
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
    def start(self) -> tuple[int, ...]:
        """Tokens that stand before every text: none or one."""
        return self._start

    @property
    def special(self) -> Sequence[str]:
        """Texts of the special tokens, by id."""
        return tuple(self._special)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; `ValueError` if it is not valid unicode (a lone surrogate)."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half of a surrogate pair; "
                "that is not valid unicode, so remove or replace it"
            ) from error
        return self._engine.encode(text, add_special_tokens=False).ids

    def special_id(self, text: str) -> int:
        """The id of a special token; `ValueError` if there is none with this text."""
        if text not in self._special:
            raise ValueError(f"{text!r} is not a special token; special tokens: {', '.join(self._special) or 'none'}")
        return self._special[text]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids; bytes that are no character become U+FFFD.

        Special tokens are left out, but for those that only a chat template makes special (`<think>`).
        """
        return self._engine.decode([token for token in tokens if token not in self._unseen], skip_special_tokens=False)

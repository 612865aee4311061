"""Tokens: what sampling needs of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids and back, with the special tokens that sampling needs."""

    @property
    def size(self) -> int:
        """Number of tokens; ids from here on exist in a padded embedding only and are never sampled."""
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
    def start(self) -> tuple[int, ...]:
        """Tokens that stand before every text; a template that begins with them does not get them twice."""
        ...

    @property
    def special(self) -> Sequence[str]:
        """Texts of the special tokens; they mean the token in a template and plain text in what users fill in."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens in it are spelled out like any other characters."""
        ...

    def special_id(self, text: str) -> int:
        """The id of a special token."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out."""
        ...


def token_id(token: int | str, tokenizer: Tokenizer, vocab_size: int, part: str) -> int:
    """The id of one token given as id or text; `ValueError` if it is not exactly one token."""
    if isinstance(token, int):
        if token >= vocab_size:
            raise ValueError(f"{part}: token id {token} does not exist; ids go from 0 to {vocab_size - 1}")
        return token
    if token in tokenizer.special:
        return tokenizer.special_id(token)
    ids = tokenizer.encode(token)
    if len(ids) != 1:
        raise ValueError(f"{part}: {token!r} is {len(ids)} tokens ({ids}); give the text of one token, or its id")
    return ids[0]

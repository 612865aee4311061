"""Tokens: what sampling needs of a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import attrs


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
    def ends(self) -> frozenset[int]:
        """Each of these ends a text: `end_id`, the token that ends a turn of a chat, what else the model names."""
        ...

    @property
    def turn_end(self) -> tuple[int, ...]:
        """What a chat has after the assistant's text, the token that ends the turn as the last; empty without chat."""
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


@attrs.frozen(eq=False)
class Spelling:
    """What each token adds to a text that is put together from tokens."""

    #: bytes of every token, in UTF-8 when put together; `None` for special tokens and ids without a token
    texts: tuple[bytes | None, ...]
    #: whether a text loses one space at its beginning, as texts of SentencePiece do
    strips: bool = False


@runtime_checkable
class Spelled(Protocol):
    """A tokenizer that knows the bytes of its tokens, which `decode` cannot say of tokens that are part of a letter."""

    def spelling(self) -> Spelling:
        """The bytes of all tokens; raises `ModelError` if a text is not its tokens' bytes one after another."""
        ...


def spelling(tokenizer: Tokenizer) -> Spelling:
    """What the tokens are written with: as the tokenizer says, else as it decodes them one by one."""
    if isinstance(tokenizer, Spelled):
        return tokenizer.spelling()
    special = {tokenizer.special_id(text) for text in tokenizer.special}
    unseen = special | tokenizer.ends | {tokenizer.mask_id}
    seen = [token for token in range(tokenizer.size) if token not in unseen]
    texts = {token: tokenizer.decode([token]) for token in seen}
    # part of a letter decodes to U+FFFD, and so does the letter U+FFFD itself
    whole = {token: text.encode() for token, text in texts.items() if text and "\ufffd" not in text}
    return Spelling(tuple(whole.get(token) for token in range(tokenizer.size)))


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


def filled_up(tokens: Sequence[int], length: int, tokenizer: Tokenizer, *, turn: bool) -> list[int]:
    """How a text's tokens stand in a slot of `length`: they, then the end of the turn if it is one, then end tokens.

    More than `length` if the text itself does not fit, fewer if there is no end token.
    """
    whole = [*tokens, *(tokenizer.turn_end if turn else ())][: max(length, len(tokens))]
    return whole if tokenizer.end_id is None else whole + [tokenizer.end_id] * (length - len(whole))


def until_end(tokens: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The tokens before the first that ends a text."""
    return [*tokens[: next((n for n, token in enumerate(tokens) if token in tokenizer.ends), len(tokens))]]


def parted(text: str, special: Sequence[str]) -> Iterator[str]:
    """The text in pieces: special tokens, and what stands between them."""
    if not special:
        yield text
        return
    pattern = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
    yield from (part for part in re.split(f"({pattern})", text) if part)

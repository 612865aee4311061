"""Constraint: which tokens may stand where? The mask token may stand nowhere; that needs no part."""

from __future__ import annotations

import abc
from typing import ClassVar, final

import numpy as np

from mdsample.core.arrays import Bools
from mdsample.core.canvas import Canvas
from mdsample.core.restriction import Restriction
from mdsample.core.tokens import Tokenizer, token_id
from mdsample.policy.base import Part, Seat
from mdsample.policy.settings import items, part, text


class Constraint(Part):
    """Restricts the tokens of positions. Several constraints intersect."""

    __slots__ = ()
    seat: ClassVar[Seat] = "constraint"

    @property
    def weighs(self) -> str:
        """The slot whose tokens it weighs by how likely the rest of the slot is with them; empty: of none."""
        return ""

    @abc.abstractmethod
    def bind(self, tokenizer: Tokenizer, canvas: Canvas, vocab_size: int) -> Restriction:
        """What it allows on this canvas, `[B, L]`: sets of tokens, and slots that hold a language.

        Checks itself against model and canvas; `ValueError`, with the remedy. `vocab_size`: number of logits.
        """


def _is_token(value: object) -> bool:
    return (type(value) is int and value >= 0) or (isinstance(value, str) and bool(value))


def _one_set(allowed: Bools, inside: Bools) -> Restriction:
    """The tokens `allowed [V]` where `inside [B, L]`, everything elsewhere."""
    sets = np.stack([np.ones_like(allowed), allowed])
    return Restriction(sets, inside.astype(np.int32))


@final
@part
class Ban(Constraint):
    """Tokens that are never sampled, in any slot: token ids, or texts that are one token each.

    The text of a special token (`'<|endoftext|>'`) means that token.
    """

    name: ClassVar[str] = "ban"
    tokens: tuple[int | str, ...] = items("token ids and texts", _is_token, of="tokens")

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, vocab_size: int) -> Restriction:
        """Looks the tokens up."""
        allowed = np.ones(vocab_size, np.bool_)
        for token in self.tokens:
            allowed[token_id(token, tokenizer, vocab_size, "ban")] = False
        if not allowed[[i for i in range(tokenizer.size) if i != tokenizer.mask_id]].any():
            raise ValueError("ban(tokens=…) bans every token; leave at least one")
        return _one_set(allowed, canvas.slot >= 0)


def slot_number(part: str, slot: str, canvas: Canvas) -> int:
    """The number of a slot that a part names; `ValueError` if there is none of that name."""
    if slot not in canvas.names:
        raise ValueError(f"{part}: there is no slot {slot!r}; slots here: {', '.join(canvas.names) or 'none'}")
    return canvas.names.index(slot)


@final
@part
class Allow(Constraint):
    """Slot `slot` holds these tokens only: token ids, or texts that are one token each.

    The text of a special token (`'<|endoftext|>'`) means that token; a text shorter than its slot needs the end token.
    """

    name: ClassVar[str] = "allow"
    tokens: tuple[int | str, ...] = items("token ids and texts", _is_token, of="tokens")
    slot: str = text(default="answer", of="slot", kw_only=True)

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, vocab_size: int) -> Restriction:
        """Looks the tokens up."""
        number = slot_number(self.name, self.slot, canvas)
        allowed = np.zeros(vocab_size, np.bool_)
        allowed[[token_id(token, tokenizer, vocab_size, self.name) for token in self.tokens]] = True
        return _one_set(allowed, canvas.slot == number)


@final
@part
class Characters(Constraint):
    """Slot `slot` is written with these characters only (and may end with the end token)."""

    name: ClassVar[str] = "characters"
    characters: str = text(of="characters")
    slot: str = text(default="answer", of="slot", kw_only=True)

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, vocab_size: int) -> Restriction:
        """Finds the tokens whose text has no other character."""
        number = slot_number(self.name, self.slot, canvas)
        fits = set(self.characters)
        allowed = np.zeros(vocab_size, np.bool_)
        for token in range(tokenizer.size):
            written = tokenizer.decode([token])
            allowed[token] = bool(written) and fits.issuperset(written)
        if not allowed.any():
            raise ValueError(f"characters({self.characters!r}): the model has no token made of these characters")
        allowed[list(tokenizer.ends)] = True
        return _one_set(allowed, canvas.slot == number)

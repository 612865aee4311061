"""Constraint: which tokens may stand where? The mask token may stand nowhere; that needs no part."""

from __future__ import annotations

import abc
from typing import ClassVar, final

import attrs
import numpy as np

from mdsample.constraints.compile import from_texts
from mdsample.core.arrays import Bools, any_in_row
from mdsample.core.canvas import Canvas
from mdsample.core.language import Automaton, Span
from mdsample.core.restriction import Restriction
from mdsample.core.tokens import Tokenizer, token_id
from mdsample.policy.base import Part, Seat
from mdsample.policy.settings import items, part, text


class Constraint(Part):
    """Restricts the tokens of positions. Several constraints intersect."""

    __slots__ = ()
    seat: ClassVar[Seat] = "constraint"

    @abc.abstractmethod
    def bind(self, tokenizer: Tokenizer, canvas: Canvas, vocab_size: int) -> Restriction:
        """What it allows on this canvas, `[B, L]`: sets of tokens, and slots that hold a language.

        Checks itself against model and canvas; `ValueError`, with the remedy. `vocab_size`: number of logits.
        """


_NO_LIMIT = 1 << 31  # longer than any slot


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


def _slot_number(part: str, slot: str, canvas: Canvas) -> int:
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
        number = _slot_number(self.name, self.slot, canvas)
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
        number = _slot_number(self.name, self.slot, canvas)
        fits = set(self.characters)
        allowed = np.zeros(vocab_size, np.bool_)
        for token in range(tokenizer.size):
            written = tokenizer.decode([token])
            allowed[token] = bool(written) and fits.issuperset(written)
        if not allowed.any():
            raise ValueError(f"characters({self.characters!r}): the model has no token made of these characters")
        allowed[list(tokenizer.ends)] = True
        return _one_set(allowed, canvas.slot == number)


class Language(Constraint):
    """Slot `slot` holds a text of a language, whatever the order in which it is filled."""

    __slots__ = ()
    #: whether the law of a position weighs how likely the rest of the text is then, or only whether there is one
    weighed: ClassVar[bool] = True
    #: the slot
    slot: str

    @abc.abstractmethod
    def language(self, tokenizer: Tokenizer, length: int) -> Automaton:
        """The language over the tokenizer's tokens; `ValueError`, with the remedy.

        `length`: positions of the shortest such slot on the canvas.
        """

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, vocab_size: int) -> Restriction:
        """The same language for the slot of every row that has something to fill there."""
        number = _slot_number(self.name, self.slot, canvas)
        inside = canvas.slot == number
        # rows need not have the slot in one length
        language = self.language(tokenizer, int(inside.sum(1)[any_in_row(inside)].min(initial=_NO_LIMIT)))
        beyond = np.zeros(vocab_size - len(language.classes), np.int32)
        language = attrs.evolve(language, classes=np.concatenate([language.classes, beyond]))
        spans: list[Span] = []
        for row in np.flatnonzero(any_in_row(inside & canvas.blank)).tolist():
            positions = np.flatnonzero(inside[row]).astype(np.int32)
            tokens = np.where(canvas.blank[row], np.int32(-1), canvas.tokens[row])[positions]
            spans.append(Span(row, positions, tokens, language, self.weighed))
        everything = np.ones((1, vocab_size), np.bool_)
        return Restriction(everything, np.zeros(canvas.tokens.shape, np.int32), tuple(spans))


@final
@part
class Choices(Language):
    """Slot `slot` holds one of these texts, as the tokenizer spells it, padded with the end token; each must fit.

    A position may hold what one of the texts that are still possible has there, in the model's own proportions. So a
    model that itself says nothing but these texts keeps its law.
    """

    name: ClassVar[str] = "choices"
    weighed: ClassVar[bool] = False
    texts: tuple[str, ...] = items("texts", lambda v: isinstance(v, str) and bool(v), of="texts")
    slot: str = text(default="answer", of="slot", kw_only=True)

    def language(self, tokenizer: Tokenizer, length: int) -> Automaton:
        """The texts' tokens."""
        for choice in self.texts:
            count = len(tokenizer.encode(choice))
            if count > length:
                raise ValueError(
                    f"choices: {choice!r} is {count} tokens, but slot {self.slot!r} has {length}; lengthen the slot"
                )
            if count < length < _NO_LIMIT and tokenizer.end_id is None:
                raise ValueError(
                    f"choices: {choice!r} is {count} tokens, slot {self.slot!r} has {length}, and the model "
                    "has no end token to pad with; make the slot as long as the choices"
                )
        return from_texts(self.texts, tokenizer, turn=True)

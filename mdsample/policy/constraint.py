"""Constraint: which tokens may stand where? The mask token may stand nowhere; that needs no part."""

from __future__ import annotations

import abc
from typing import ClassVar, Protocol, final

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, any_in_row
from mdsample.core.canvas import Canvas
from mdsample.core.restriction import Restriction
from mdsample.core.tokens import Tokenizer, filled_up, token_id
from mdsample.policy.base import Part, Seat
from mdsample.policy.settings import items, part, text


class Rule(Protocol):
    """A constraint made ready for one model and one canvas."""

    def restrict(self, tokens: Ints, blank: Bools, slot: Ints) -> Restriction:
        """The restriction for these rows as they stand now; arrays `[B, L]`, columns as in the canvas."""
        ...


class Constraint(Part):
    """Restricts the tokens of positions. Several constraints intersect."""

    __slots__ = ()
    seat: ClassVar[Seat] = "constraint"
    #: whether what it allows does not depend on what has been committed
    static: ClassVar[bool] = True

    @abc.abstractmethod
    def bind(self, tokenizer: Tokenizer, canvas: Canvas, static: Restriction) -> Rule:
        """Checks itself against model and canvas and prepares its token sets; `ValueError`, with the remedy.

        `static` is what the mask ban and the constraints bound before it allow, `[B, L]` as the canvas; those whose
        rule is lasting are bound first.
        """


_NO_LIMIT = 1 << 31  # longer than any slot


def _is_token(value: object) -> bool:
    return (type(value) is int and value >= 0) or (isinstance(value, str) and bool(value))


def _everything(vocab_size: int) -> Bools:
    return np.ones((1, vocab_size), np.bool_)


@attrs.frozen(eq=False)
class _Static:
    """Positions of one slot (or of all slots, number −1) hold tokens of one set."""

    allowed: Bools
    number: int

    def restrict(self, tokens: Ints, blank: Bools, slot: Ints) -> Restriction:
        """Set 1 in the slot, everything elsewhere."""
        inside = slot >= 0 if self.number < 0 else slot == self.number
        sets = np.concatenate([_everything(len(self.allowed)), self.allowed[None]])
        return Restriction(sets, inside.astype(np.int32), np.full(slot.shape, -1, np.int32))


@final
@part
class Ban(Constraint):
    """Tokens that are never sampled, in any slot: token ids, or texts that are one token each.

    The text of a special token (`'<|endoftext|>'`) means that token.
    """

    name: ClassVar[str] = "ban"
    tokens: tuple[int | str, ...] = items("token ids and texts", _is_token, of="tokens")

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, static: Restriction) -> Rule:
        """Looks the tokens up."""
        vocab_size = static.sets.shape[1]
        allowed = np.ones(vocab_size, np.bool_)
        for token in self.tokens:
            allowed[token_id(token, tokenizer, vocab_size, "ban")] = False
        if not allowed[[i for i in range(tokenizer.size) if i != tokenizer.mask_id]].any():
            raise ValueError("ban(tokens=…) bans every token; leave at least one")
        return _Static(allowed, -1)


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

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, static: Restriction) -> Rule:
        """Looks the tokens up."""
        number, vocab_size = _slot_number(self.name, self.slot, canvas), static.sets.shape[1]
        allowed = np.zeros(vocab_size, np.bool_)
        allowed[[token_id(token, tokenizer, vocab_size, self.name) for token in self.tokens]] = True
        return _Static(allowed, number)


@final
@part
class Characters(Constraint):
    """Slot `slot` is written with these characters only (and may end with the end token)."""

    name: ClassVar[str] = "characters"
    characters: str = text(of="characters")
    slot: str = text(default="answer", of="slot", kw_only=True)

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, static: Restriction) -> Rule:
        """Finds the tokens whose text has no other character."""
        number = _slot_number(self.name, self.slot, canvas)
        fits = set(self.characters)
        allowed = np.zeros(static.sets.shape[1], np.bool_)
        for token in range(tokenizer.size):
            written = tokenizer.decode([token])
            allowed[token] = bool(written) and fits.issuperset(written)
        if not allowed.any():
            raise ValueError(f"characters({self.characters!r}): the model has no token made of these characters")
        allowed[list(tokenizer.ends)] = True
        return _Static(allowed, number)


@final
@part
class Choices(Constraint):
    """Slot `slot` holds one of these texts, padded with the end token; each must fit the slot.

    Positions filled in the same step stay consistent: after one is drawn, the others are renormalised over the texts
    that are still possible (so the slot's law is the model's marginals along the texts, not a product).
    """

    name: ClassVar[str] = "choices"
    static: ClassVar[bool] = False  # each committed token may rule texts out
    texts: tuple[str, ...] = items("texts", lambda v: isinstance(v, str) and bool(v), of="texts")
    slot: str = text(default="answer", of="slot", kw_only=True)

    def conflict(self, other: Part, tokenizer: Tokenizer) -> str:
        """One list a slot."""
        if isinstance(other, Choices) and other.slot == self.slot:
            return f"two lists of choices for slot {self.slot!r}; keep the texts that are in both, in one list"
        return ""

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, static: Restriction) -> Rule:
        """Encodes the texts and drops those that other constraints forbid."""
        number = _slot_number(self.name, self.slot, canvas)
        inside = canvas.slot == number
        lengths = inside.sum(1)[any_in_row(inside)]
        # rows need not have the slot in one length
        shortest, longest = int(lengths.min(initial=_NO_LIMIT)), int(lengths.max(initial=0))
        encoded: dict[tuple[int, ...], None] = {}
        for choice in self.texts:
            tokens = tokenizer.encode(choice)
            if len(tokens) > shortest:
                raise ValueError(
                    f"choices: {choice!r} is {len(tokens)} tokens, but slot {self.slot!r} has {shortest}; "
                    "lengthen the slot"
                )
            # a choice may end a turn of a chat or not: whichever the model finds likelier
            for turn in (False, True):
                encoded[(*filled_up(tokens, longest, tokenizer, turn=turn),)] = None
            if len(tokens) < longest and tokenizer.end_id is None:
                raise ValueError(
                    f"choices: {choice!r} is {len(tokens)} tokens, slot {self.slot!r} has {longest}, and the model "
                    "has no end token to pad with; make the slot as long as the choices"
                )
        # without rows the slot has no length
        fill, longest = tokenizer.end_id or 0, max(longest, *map(len, encoded))
        texts = np.array([[*tokens, *[fill] * (longest - len(tokens))] for tokens in encoded], np.int32)
        row, position = np.nonzero(inside & canvas.blank)
        place = (np.cumsum(inside, 1) - 1)[row, position]
        possible = static.sets[static.index[row, position], texts[:, place]].all(1)
        if not possible.any():
            raise ValueError(f"choices: the other constraints forbid every text for slot {self.slot!r}; loosen one")
        rule = _Choice(texts[possible], number, static.sets.shape[1])
        for line in np.unique(row).tolist():
            where = np.flatnonzero(inside[line])
            if not rule.agreeing(canvas.tokens[line, where], canvas.blank[line, where]).any():
                raise ValueError(
                    f"choices: what stands in slot {self.slot!r} of row {canvas.ids[line]!r} already agrees with none "
                    "of the texts that other constraints allow; change one of them"
                )
        return rule


@attrs.frozen(eq=False)
class _Choice:
    """Texts `[C, length]` for one slot, padded to its longest; a shorter one takes their beginnings."""

    texts: Ints
    number: int
    vocab_size: int

    def agreeing(self, tokens: Ints, blank: Bools) -> Bools:
        """Which texts agree with what is committed of one row's slot, `[C]`."""
        return (self.texts[:, : len(tokens)] == tokens)[:, ~blank].all(1)

    def restrict(self, tokens: Ints, blank: Bools, slot: Ints) -> Restriction:
        """For each row, the texts that agree with what is committed, position by position."""
        rows, length = tokens.shape
        index = np.zeros((rows, length), np.int32)
        group = np.full((rows, length), -1, np.int32)
        sets = [_everything(self.vocab_size)[0]]
        for row in range(rows):
            where = np.flatnonzero(slot[row] == self.number)
            if not len(where):
                continue
            agree = self.agreeing(tokens[row, where], blank[row, where])
            # a slot wholly pre-filled with something else than a choice is left as it is
            left = self.texts[agree] if agree.any() else self.texts
            for column, position in enumerate(where):
                allowed = np.zeros(self.vocab_size, np.bool_)
                allowed[left[:, column]] = True
                index[row, position] = len(sets)
                sets.append(allowed)
            group[row, where] = self.number
        return Restriction(np.stack(sets), index, group)

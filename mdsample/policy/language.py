"""Constraints that hold a slot to a language: its text is always one of the language's, in whatever order it is filled.

See docs/structured.md for what that means for the model's law.
"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import attrs
import numpy as np

from mdsample.constraints import patterns
from mdsample.constraints.compile import from_expression, from_texts
from mdsample.constraints.query import Facts, facts
from mdsample.core.arrays import any_in_row
from mdsample.core.canvas import Canvas
from mdsample.core.language import Automaton, Span
from mdsample.core.restriction import Restriction
from mdsample.core.tokens import Tokenizer
from mdsample.errors import NoTextError
from mdsample.policy.constraint import Constraint, slot_number
from mdsample.policy.settings import choice, integer, items, part, real, text

_NO_LIMIT = 1 << 31  # longer than any slot


class Language(Constraint):
    """Slot `slot` holds a text of a language, whatever the order in which it is filled."""

    __slots__ = ()
    #: whether the law of a position weighs how likely the rest of the text is then, or only whether there is one
    weighed: ClassVar[bool] = True
    #: the slot
    slot: str

    @property
    def weighs(self) -> str:
        """Its slot, unless it only asks whether there is a rest."""
        return self.slot if self.weighed else ""

    @abc.abstractmethod
    def language(self, tokenizer: Tokenizer, length: int) -> Automaton:
        """The language over the tokenizer's tokens; `ValueError`, with the remedy.

        `length`: positions of the shortest such slot on the canvas.
        """

    def facts(self, tokenizer: Tokenizer) -> Facts:
        """The language in numbers, in a slot as long as one likes; `ValueError` as `language`."""
        return facts(self.language(tokenizer, _NO_LIMIT), tokenizer.ends)

    def bind(self, tokenizer: Tokenizer, canvas: Canvas, vocab_size: int) -> Restriction:
        """The same language for the slot of every row that has something to fill there."""
        number = slot_number(self.name, self.slot, canvas)
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
        for each in self.texts:
            count = len(tokenizer.encode(each))
            if count > length:
                raise NoTextError(
                    f"choices: {each!r} is {count} tokens, but slot {self.slot!r} has {length}; lengthen the slot"
                )
            if count < length < _NO_LIMIT and tokenizer.end_id is None:
                raise NoTextError(
                    f"choices: {each!r} is {count} tokens, slot {self.slot!r} has {length}, and the model "
                    "has no end token to pad with; make the slot as long as the choices"
                )
        return from_texts(self.texts, tokenizer, turn=True)


class Expression(Language):
    """A language that a regular expression says; end tokens fill up the slot."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def expression(self) -> str:
        """The expression of whole texts."""

    def check(self, canvas: Canvas, tokenizer: Tokenizer) -> None:
        """Refuses what cannot be compiled."""
        self.language(tokenizer, _NO_LIMIT)

    @property
    def padded(self) -> bool:
        """Whether end tokens may fill the rest of the slot."""
        return True

    def language(self, tokenizer: Tokenizer, length: int) -> Automaton:
        """Every way to write such a text in tokens."""
        return from_expression(self.expression, tokenizer, pad=self.padded)


@final
@part
class Regex(Expression):
    """Slot `slot` holds a text that the regular expression `pattern` matches as a whole.

    The syntax is what Python's `re` and Rust's `regex` share, without anchors, look-around and back-references. Of
    several positions the tokens are drawn from their joint law, given that the slot is in the language. `end` fills:
    end tokens fill the rest of the slot; never: the text itself fills it, so the expression says with what.
    """

    name: ClassVar[str] = "regex"
    pattern: str = text(of="expression")
    end: str = choice(("fills", "never"), default="fills", kw_only=True)
    slot: str = text(default="answer", of="slot", kw_only=True)

    @property
    def padded(self) -> bool:
        """Unless the text fills the slot."""
        return self.end == "fills"

    @property
    def expression(self) -> str:
        """As it stands."""
        return self.pattern


@final
@part
class Integer(Expression):
    """Slot `slot` holds an integer from `min` to `max`, both included; a space may stand before it.

    It has no leading zeros. Without `min` or `max` there is no such limit but the slot's length.
    """

    name: ClassVar[str] = "integer"
    min: int | None = integer(default=None, optional=True, kw_only=True)
    max: int | None = integer(default=None, optional=True, kw_only=True)
    slot: str = text(default="answer", of="slot", kw_only=True)

    @property
    def expression(self) -> str:
        """Exactly these integers."""
        return " ?" + patterns.integer(self.min, self.max)


@final
@part
class Number(Expression):
    """Slot `slot` holds a number from `min` to `max`, both included, with at most `decimals` digits after a point.

    A space may stand before it; there are no leading zeros and no exponent.
    """

    name: ClassVar[str] = "number"
    decimals: int = integer(default=2, at_least=0, at_most=100)
    min: float | None = real(default=None, optional=True, kw_only=True)
    max: float | None = real(default=None, optional=True, kw_only=True)
    slot: str = text(default="answer", of="slot", kw_only=True)

    @property
    def expression(self) -> str:
        """Exactly these numbers."""
        return " ?" + patterns.number(self.min, self.max, self.decimals)


@final
@part
class Date(Expression):
    """Slot `slot` holds a day of the calendar from the year `first` to the year `last`; a space may stand before it.

    `form` is as in `strftime`: %Y %m %-m %B %b %d %-d, %H %M %S, %% for the sign, each once at most.
    """

    name: ClassVar[str] = "date"
    form: str = text(default="%Y-%m-%d", of="date form")
    first: int = integer(default=1900, at_least=1000, at_most=9999, kw_only=True)
    last: int = integer(default=2099, at_least=1000, at_most=9999, kw_only=True)
    slot: str = text(default="answer", of="slot", kw_only=True)

    @property
    def expression(self) -> str:
        """Exactly these days."""
        return " ?" + patterns.date(self.form, self.first, self.last)

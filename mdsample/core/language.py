"""Language: which texts a slot may hold, as a deterministic automaton over classes of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, Longs


@attrs.frozen(eq=False, slots=False)
class Automaton:
    """A language over tokens. Tokens of one class lead from every state to the same state.

    It has S states, of which 0 is the start, C classes and E transitions. Only states that can be reached and from
    which acceptance can be reached are there; what leads nowhere else is not.
    """

    #: class of every token id, `[V]` int32; class 0 is allowed nowhere
    classes: Ints
    #: transitions from a state, over a class, to a state, `[E]` int32 each, sorted by (source, symbol)
    source: Ints
    symbol: Ints
    target: Ints
    #: `[S]`
    accepting: Bools

    @property
    def states(self) -> int:
        """S."""
        return len(self.accepting)

    @cached_property
    def symbols(self) -> int:
        """C, class 0 included."""
        return int(self.classes.max(initial=0)) + 1

    def classes_of(self, tokens: Ints) -> Ints:
        """The class of each token, −1 where there is none (−1)."""
        return np.where(tokens < 0, np.int32(-1), self.classes[np.maximum(tokens, 0)])

    @cached_property
    def members(self) -> tuple[Longs, ...]:
        """The tokens of each class, ascending; C in number. Those of class 0 are not told: none."""
        order = np.argsort(self.classes, kind="stable")
        edges = np.searchsorted(self.classes[order], np.arange(1, self.symbols)).tolist()
        parts = [order[first:after] for first, after in pairwise([*edges, len(order)])]
        return (order[:0], *parts)


@attrs.frozen(eq=False)
class Span:
    """A slot of one row that holds a language; n positions."""

    row: int
    #: ascending, `[n]` int32
    positions: Ints
    #: what is written there, −1 in blanks, `[n]` int32
    tokens: Ints
    language: Automaton
    #: whether the law of a position weighs how likely the rest of the text is then, or only whether there is one
    weighed: bool = True


def turns(spans: Sequence[Span], rows: Ints, positions: Ints) -> Ints:
    """Of N places, in the order in which they are drawn: how many of each one's span come before it.

    −1 without a span, and for the only one of its span: it has nothing to be drawn together with, whatever the other
    places are. `rows`, `positions`, result `[N]`.
    """
    span_of = {(span.row, place): number for number, span in enumerate(spans) for place in span.positions.tolist()}
    drawn: dict[int, list[int]] = {}
    for n, place in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):
        if (number := span_of.get(place)) is not None:
            drawn.setdefault(number, []).append(n)
    out = np.full(len(rows), -1, np.int32)
    for places in drawn.values():
        if len(places) > 1:
            out[places] = np.arange(len(places))
    return out

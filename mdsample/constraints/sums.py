"""Sums of products over (position, state), forwards and backwards, of float64 or of truth values.

A step asks the same of the same languages, so everything that does not depend on masses is made once: classes that lead
from one state to another are gathered into U sets, to which P pairs of states refer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Bools, Doubles, Indices, Longs
from mdsample.core.language import Automaton

Values = NDArray[Any]
#: below this share of what is likeliest a sum of float64 numbers may have lost all that counts
_LEAST = 1e-200
#: positions from one division by the greatest number to the next
_STRIDE = 4
#: positions whose pairs are gone over together
_CHUNK = 8


@attrs.frozen(eq=False)
class Groups:
    """Columns in an order in which those of one group are neighbours; every one of the groups has some."""

    order: Longs
    #: where each group begins
    begin: Longs

    @classmethod
    def of(cls, group: Indices, count: int) -> Groups:
        """`group [k]`: that of each column."""
        order = np.argsort(group, kind="stable")
        return cls(order, np.searchsorted(group[order], np.arange(count)))


@attrs.frozen(eq=False)
class Pairs:
    """The pairs of states between which some class leads, and sets of classes.

    Where no pair leaves or enters a state, one is made up whose set is empty: number U, whose sum is 0.
    """

    #: the classes of each set, one after the other, and where each set begins
    symbol: Longs
    begin: Longs
    #: the sets that each class is in, one after the other: classes, and where each one's begin
    classes: Longs
    member: Longs
    member_begin: Longs
    #: target and set of each pair, in the order of the sources; where those of each source begin
    target: Longs
    leaving: Longs
    leaving_begin: Longs
    #: source and set, in the order of the targets
    source: Longs
    entering: Longs
    entering_begin: Longs
    #: source and target of each real pair, in the order of the sets; where those of each set begin
    set_source: Longs
    set_target: Longs
    set_begin: Longs


# a run has few languages, and a step asks for the same ones again
@lru_cache(maxsize=64)
def pairs(language: Automaton) -> Pairs:
    """Those of a language that has a transition."""
    states = language.states
    key = language.source.astype(np.int64) * states + language.target
    order = np.argsort(key, kind="stable")
    found, begin = np.unique(key[order], return_index=True)
    symbol = language.symbol[order].astype(np.int64)
    source, target = np.divmod(found, states)
    numbers: dict[bytes, int] = {}
    sets: list[Longs] = []
    number = np.zeros(len(found), np.int64)
    for n, part in enumerate(np.split(symbol, begin[1:])):
        number[n] = numbers.setdefault(part.tobytes(), len(numbers))
        if len(numbers) > len(sets):
            sets.append(part)
    sizes = np.array([len(part) for part in sets])
    whole = np.concatenate(sets)
    owner = np.repeat(np.arange(len(sets)), sizes)
    by_class = np.argsort(whole, kind="stable")
    classes, member_begin = np.unique(whole[by_class], return_index=True)
    none = np.full(states, len(sets))
    alone = [np.setdiff1d(np.arange(states), ends) for ends in (source, target)]
    leaving = np.append(source, alone[0]), np.append(target, alone[0] * 0), np.append(number, none[: len(alone[0])])
    entering = np.append(target, alone[1]), np.append(source, alone[1] * 0), np.append(number, none[: len(alone[1])])
    out, into = Groups.of(leaving[0], states), Groups.of(entering[0], states)
    by_set = Groups.of(number, len(sets))
    return Pairs(
        *(whole, np.cumsum(sizes) - sizes),
        *(classes, owner[by_class], member_begin),
        *(leaving[1][out.order], leaving[2][out.order], out.begin),
        *(entering[1][into.order], entering[2][into.order], into.begin),
        *(source[by_set.order], target[by_set.order], by_set.begin),
    )


@lru_cache(maxsize=256)
def _open(language: Automaton, length: int) -> Bools:
    """From which states the rest of a slot of this length leads to acceptance, whatever is written there, `[n, S]`."""
    out = np.zeros((length + 1, language.states), np.bool_)
    out[length] = language.accepting
    for place in range(length - 1, -1, -1):
        out[place, language.source[out[place + 1, language.target]]] = True
    return out


def sums(language: Automaton, share: Doubles) -> tuple[Doubles, Bools]:
    """What each class weighs at each position, `[n, R, C]`; `share [n, R, C]`: its mass.

    Up to a constant of each position and row. Also of which rows nothing was lost to the range of float64, `[R]`.
    """
    out, now, later = _over(language, share)
    most: Doubles = np.maximum.reduce(now * later, 2)
    return out, most.min(0) > _LEAST


def chances(language: Automaton, some: Bools) -> Bools:
    """Which classes may stand at each position, `[n, R, C]`; `some [n, R, C]`: those of which there is any token."""
    return _over(language, some)[0]


def _over(language: Automaton, mass: Values) -> tuple[Values, Values, Values]:
    """Products and sums of numbers, or what and and or make of truth values: the weights `[n, R, C]`.

    Also of each state how much leads there and how much leads on from there, `[n + 1, R, S]`; numbers are scaled.
    """
    truths = mass.dtype == np.bool_
    times, plus = (np.logical_and, np.logical_or) if truths else (np.multiply, np.add)
    length, rows = int(mass.shape[0]), int(mass.shape[1])
    known, size = pairs(language), len(pairs(language).begin)
    flow = np.zeros((length, rows, size + 1), mass.dtype)
    plus.reduceat(mass.take(known.symbol, 2), known.begin, 2, out=flow[..., :size])
    later, now = np.zeros((2, length + 1, rows, language.states), mass.dtype)
    later[length], now[0, :, 0] = language.accepting, True
    # few fresh arrays: at these sizes memory that is new costs as much as what is computed in it
    come, part = np.empty((2, rows, len(known.leaving)), mass.dtype)
    for place in range(length - 1, -1, -1):
        later[place + 1].take(known.target, 1, out=come, mode="clip")
        flow[place].take(known.leaving, 1, out=part, mode="clip")
        times(come, part, out=come)
        plus.reduceat(come, known.leaving_begin, 1, out=later[place])
        if place % _STRIDE == 0 and not truths:
            _scale(later[place])
    come, part = np.empty((2, rows, len(known.entering)), mass.dtype)
    for place in range(length):
        now[place].take(known.source, 1, out=come, mode="clip")
        flow[place].take(known.entering, 1, out=part, mode="clip")
        times(come, part, out=come)
        after = now[place + 1]
        plus.reduceat(come, known.entering_begin, 1, out=after)
        if place % _STRIDE == 0 and not truths:
            # states from which no text is left must not decide the scale
            after *= _open(language, length)[place + 1]
            _scale(after)
    through, part = np.empty((2, _CHUNK, rows, len(known.set_source)), mass.dtype)
    found = np.empty((length, rows, size), mass.dtype)
    for first in range(0, length, _CHUNK):
        end = min(first + _CHUNK, length)
        here, there = through[: end - first], part[: end - first]
        now[first:end].take(known.set_source, 2, out=here, mode="clip")
        later[first + 1 : end + 1].take(known.set_target, 2, out=there, mode="clip")
        times(here, there, out=here)
        plus.reduceat(here, known.set_begin, 2, out=found[first:end])
    out = np.zeros(mass.shape, mass.dtype)
    out[..., known.classes] = plus.reduceat(found.take(known.member, 2), known.member_begin, 2)
    return out, now, later


def _scale(values: Doubles) -> None:
    """Divides each line by its greatest."""
    most = np.maximum.reduce(values, 1, keepdims=True)
    most[most == 0] = 1
    values /= most

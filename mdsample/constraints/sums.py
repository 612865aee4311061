"""Sums of products over (position, state), forwards and backwards at once, of one kind of values or another.

A step asks the same of the same languages, so everything that does not depend on masses is made once: classes that lead
from one state to another are gathered into U sets, to which P pairs of states refer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Doubles, Longs
from mdsample.core.language import Automaton

Values = NDArray[Any]
#: positions from one division by the greatest number to the next
_STRIDE = 4
#: positions whose pairs are gone over together
_CHUNK = 8


@attrs.frozen(eq=False)
class Kind:
    """What values are: how two of them follow one another, and how neighbours come together."""

    nothing: Any
    everything: Any
    times: Any
    #: as `reduceat` of a ufunc: of values, where each group of neighbours begins on an axis, and the axis; into `out`
    plus: Any


def _log_sums(values: Doubles, begin: Longs, axis: int, *, out: Doubles) -> None:
    """log Σ exp."""
    np.maximum.reduceat(values, begin, axis, out=out)
    out[out == -np.inf] = 0
    count = np.diff(begin, append=values.shape[axis])
    out += np.log(np.add.reduceat(np.exp(values - np.repeat(out, count, axis)), begin, axis))


NUMBERS = Kind(0.0, 1.0, np.multiply, np.add.reduceat)
LOGARITHMS = Kind(-np.inf, 0.0, np.add, _log_sums)
TRUTHS = Kind(False, True, np.logical_and, np.logical_or.reduceat)


@attrs.frozen(eq=False)
class Pairs:
    """The pairs of states between which some class leads, and sets of classes."""

    #: the classes of each set, one after the other, and where each set begins
    symbol: Longs
    begin: Longs
    #: the sets that each class is in, one after the other: classes, and where each one's begin
    classes: Longs
    member: Longs
    member_begin: Longs
    #: source and target of each pair, in the order of the sets; where those of each set begin
    source: Longs
    target: Longs
    set_begin: Longs
    #: both directions at once: of 2S values, those at the states before a position and then those after the position
    #: that is as far from the end, which each pair takes, the set by which, and where those for each state begin; where
    #: no pair enters or leaves a state, one is made up whose set is empty: number U
    taken: Longs
    by: Longs
    state_begin: Longs


# a run has few languages, and a step asks for the same ones again
@lru_cache(maxsize=64)
def pairs(language: Automaton) -> Pairs:
    """Those of a language that has a transition."""
    states = language.states
    key = language.source.astype(np.int64) * states + language.target
    order = np.argsort(key, kind="stable")
    found, begin = np.unique(key[order], return_index=True)
    symbol = language.symbol[order].astype(np.int64)
    numbers: dict[bytes, int] = {}
    sets: list[Longs] = []
    number = np.zeros(len(found), np.int64)
    for n, part in enumerate(np.split(symbol, begin[1:])):
        number[n] = numbers.setdefault(part.tobytes(), len(numbers))
        if len(numbers) > len(sets):
            sets.append(part)
    size = len(sets)
    sizes = np.array([len(part) for part in sets])
    whole = np.concatenate(sets)
    owner = np.repeat(np.arange(size), sizes)
    by_class, by_set = np.argsort(whole, kind="stable"), np.argsort(number, kind="stable")
    classes, member_begin = np.unique(whole[by_class], return_index=True)
    number, (source, target) = number[by_set], np.divmod(found[by_set], states)
    into = np.append(target, states + source)
    alone = np.setdiff1d(np.arange(2 * states), into)
    into = np.append(into, alone)
    by_state = np.argsort(into, kind="stable")
    return Pairs(
        *(whole, np.cumsum(sizes) - sizes),
        *(classes, owner[by_class], member_begin),
        *(source, target, np.searchsorted(number, np.arange(size))),
        np.concatenate([source, states + target, alone])[by_state],
        np.concatenate([number, size + 1 + number, np.full(len(alone), size)])[by_state],
        np.searchsorted(into[by_state], np.arange(2 * states)),
    )


@lru_cache(maxsize=256)
def _live(language: Automaton, length: int) -> Doubles:
    """1 for what a text of this length leads through, whatever is written in it, else 0: `[n + 1, 2S]` as in `sums`."""
    out = np.zeros((length + 1, language.states), np.bool_)
    out[0, 0] = True
    for place in range(length):
        out[place + 1, language.target[out[place, language.source]]] = True
    out[length] &= language.accepting
    for place in range(length - 1, -1, -1):
        onward = np.zeros(language.states, np.bool_)
        onward[language.source[out[place + 1, language.target]]] = True
        out[place] &= onward
    return np.concatenate([out, out[::-1]], 1).astype(np.float64)


def sums(language: Automaton, mass: Values, kind: Kind) -> tuple[Values, Values]:
    """What each class weighs at each position, `[n, R, C]`; `mass [n, R, C]`: its own.

    Numbers are up to a factor of each position and row. Also the greatest of what any state weighs between positions,
    `[n + 1, R]`, as a share of what is likeliest on either side.
    """
    known, states = pairs(language), language.states
    (length, rows, _), size = mass.shape, len(known.begin)
    # what the pairs of both directions take: sets at a position, and at the one that is as far from the end
    flow = np.full((length, rows, 2 * size + 1), kind.nothing, mass.dtype)
    kind.plus(mass.take(known.symbol, 2), known.begin, 2, out=flow[..., :size])
    flow[..., size + 1 :] = flow[::-1, :, :size]
    both = np.full((length + 1, rows, 2 * states), kind.nothing, mass.dtype)
    both[0, :, 0] = kind.everything
    both[0, :, states:][:, language.accepting] = kind.everything
    # few fresh arrays: at these sizes memory that is new costs as much as what is computed in it
    come, part = np.empty((2, rows, len(known.taken)), mass.dtype)
    for place in range(length):
        after = both[place + 1]
        both[place].take(known.taken, 1, out=come, mode="clip")
        flow[place].take(known.by, 1, out=part, mode="clip")
        kind.times(come, part, out=come)
        kind.plus(come, known.state_begin, 1, out=after)
        if place % _STRIDE == 0 and kind is NUMBERS:
            # states that no text leads through must not decide the scale
            after *= _live(language, length)[place + 1]
            _scale(after.reshape(rows, 2, states))
    now, later = both[..., :states], both[::-1, :, states:]
    whole = np.empty((2, _CHUNK, rows, len(known.source)), mass.dtype)
    found = np.empty((length, rows, size), mass.dtype)
    for first in range(0, length, _CHUNK):
        end = min(first + _CHUNK, length)
        come, part = whole[:, : end - first]
        now[first:end].take(known.source, 2, out=come, mode="clip")
        later[first + 1 : end + 1].take(known.target, 2, out=part, mode="clip")
        kind.times(come, part, out=come)
        kind.plus(come, known.set_begin, 2, out=found[first:end])
    out = np.full(mass.shape, kind.nothing, mass.dtype)
    weights = np.empty((length, rows, len(known.classes)), mass.dtype)
    kind.plus(found.take(known.member, 2), known.member_begin, 2, out=weights)
    out[..., known.classes] = weights
    return out, np.maximum.reduce(kind.times(now, later), 2)


def _scale(values: Doubles) -> None:
    """Divides each line by its greatest."""
    most = np.maximum.reduce(values, 2, keepdims=True)
    most[most == 0] = 1
    values /= most

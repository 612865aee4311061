"""The dynamic program: what each class of tokens weighs at each position, given that the whole slot is in its language.

With m the mass of each class at each position, the product of the positions' laws conditioned on the language gives
class c at position i the probability m(i, c) · w(i, c) / Z. Here w is found, by going over (position, state) forwards
and backwards. R slots of one language and one length n are gone over together: with sums of products where float64 can
hold them, with sums of logarithms where it cannot, with truth values where only what is possible is asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdsample.constraints.sums import chances, pairs, sums
from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs
from mdsample.core.language import Automaton

Values = NDArray[Any]


def weights(language: Automaton, written: Ints, mass: Floats | Doubles) -> Doubles:
    """Log-weight of each class at each position, `[R, n, C]`, up to a constant of each position; −inf: impossible.

    `written [R, n]` int32: the class of the token at a position, −1 in blanks; `mass [R, n, C]`: log-mass of each
    class, read in blanks only. What a position itself holds does not count for its own weights. All of a slot's weights
    are −inf where its language and what is written leave nothing that has any mass.
    """
    log_mass = mass.astype(np.float64).transpose(1, 0, 2)
    _write(log_mass, written, -np.inf, 0)
    if not len(language.symbol):
        return np.full(mass.shape, -np.inf)
    with np.errstate(divide="ignore", under="ignore", invalid="ignore"):
        log_mass[..., _unused(language)] = -np.inf
        peak = log_mass.max(2, keepdims=True)
        share = np.exp(log_mass - np.where(np.isfinite(peak), peak, 0))
        found, enough = sums(language, share)
        found = np.log(found)
        lost = (np.isfinite(log_mass) & (share == 0)).any((0, 2))
        if (doubtful := lost | ~enough).any():
            found[:, doubtful] = logarithms(language, log_mass[:, doubtful])
    return found.transpose(1, 0, 2)


def possible(language: Automaton, written: Ints, available: Bools) -> Bools:
    """Which classes may stand at each position, `[R, n, C]`; `available [R, n, C]`: those with a token that may."""
    some = available.transpose(1, 0, 2).copy()
    if not len(language.symbol):
        return np.zeros_like(available)
    _write(some, written, False, True)
    return chances(language, some).transpose(1, 0, 2) & available


def _write(mass: Values, written: Ints, nothing: Any, all_there_is: Any) -> None:
    """Makes a written token all there is at its position; `mass [n, R, C]`."""
    row, place = np.nonzero(written >= 0)
    mass[place, row] = nothing
    mass[place, row, written[row, place]] = all_there_is


@lru_cache(maxsize=64)
def _unused(language: Automaton) -> Longs:
    """The classes on which nothing leads anywhere."""
    return np.setdiff1d(np.arange(language.symbols), language.symbol)


def logarithms(language: Automaton, mass: Doubles) -> Doubles:
    """Log-weights `[n, R, C]` from log-masses `[n, R, C]`, however far apart these are."""
    length, rows, known = int(mass.shape[0]), int(mass.shape[1]), pairs(language)
    size = len(known.begin)
    flow = np.full((length, rows, size + 1), -np.inf)
    flow[..., :size] = _log_sums(mass.take(known.symbol, 2), known.begin)
    later, now = np.full((2, length + 1, rows, language.states), -np.inf)
    later[length, :, language.accepting], now[0, :, 0] = 0, 0
    for place in range(length - 1, -1, -1):
        come = later[place + 1].take(known.target, 1) + flow[place].take(known.leaving, 1)
        later[place] = _log_sums(come, known.leaving_begin)
    for place in range(length):
        come = now[place].take(known.source, 1) + flow[place].take(known.entering, 1)
        now[place + 1] = _log_sums(come, known.entering_begin)
    through = now[:-1].take(known.set_source, 2) + later[1:].take(known.set_target, 2)
    found = _log_sums(through, known.set_begin)
    out = np.full(mass.shape, -np.inf)
    out[..., known.classes] = _log_sums(found.take(known.member, 2), known.member_begin)
    return out


def _log_sums(values: Doubles, begin: Longs) -> Doubles:
    """log Σ exp of neighbours."""
    peak = np.maximum.reduceat(values, begin, -1)
    peak[peak == -np.inf] = 0
    count = np.diff(begin, append=values.shape[-1])
    sums: Doubles = np.add.reduceat(np.exp(values - np.repeat(peak, count, -1)), begin, -1)
    return np.log(sums) + peak

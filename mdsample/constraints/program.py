"""The dynamic program: what each class of tokens weighs at each position, given that the whole slot is in its language.

With m the mass of each class at each position, the product of the positions' laws conditioned on the language gives
class c at position i the probability m(i, c) · w(i, c) / Z. Here w is found, by going over (position, state) forwards
and backwards. R slots of one language and one length n are gone over together: with sums of products where float64 can
hold them, with sums of logarithms where it cannot, with truth values where only what is possible is asked.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mdsample.constraints.sums import LOGARITHMS, NUMBERS, TRUTHS, Kind, Values, sums
from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs
from mdsample.core.language import Automaton

#: below this share of what is likeliest a sum of float64 numbers may have lost all that counts
_LEAST = 1e-200


def weights(language: Automaton, written: Ints, mass: Floats | Doubles) -> Doubles:
    """Log-weight of each class at each position, `[R, n, C]`, up to a constant of each position; −inf: impossible.

    `written [R, n]` int32: the class of the token at a position, −1 in blanks; `mass [R, n, C]`: log-mass of each
    class, read in blanks only. What a position itself holds does not count for its own weights. All of a slot's weights
    are −inf where its language and what is written leave nothing that has any mass.
    """
    if not len(language.symbol):
        return np.full(mass.shape, -np.inf)
    log_mass = _filled(mass.astype(np.float64), written, LOGARITHMS)
    with np.errstate(divide="ignore", under="ignore", invalid="ignore"):
        log_mass[..., _unused(language)] = -np.inf
        peak = log_mass.max(2, keepdims=True)
        share = np.exp(log_mass - np.where(np.isfinite(peak), peak, 0))
        found, most = sums(language, share, NUMBERS)
        np.log(found, out=found)
        # below the least normal number digits are lost, too
        lost = (np.isfinite(log_mass) & (share < np.finfo(np.float64).tiny)).any((0, 2))
        if (doubtful := lost | (most.min(0) <= _LEAST)).any():
            found[:, doubtful] = sums(language, log_mass[:, doubtful], LOGARITHMS)[0]
    return found.transpose(1, 0, 2)


def possible(language: Automaton, written: Ints, available: Bools) -> Bools:
    """Which classes may stand at each position, `[R, n, C]`; `available [R, n, C]`: those with a token that may."""
    if not len(language.symbol):
        return np.zeros_like(available)
    return sums(language, _filled(available, written, TRUTHS), TRUTHS)[0].transpose(1, 0, 2) & available


def _filled(mass: Values, written: Ints, kind: Kind) -> Values:
    """`mass [R, n, C]` as a fresh `[n, R, C]` in which a written token is all there is at its position."""
    out = mass.transpose(1, 0, 2).copy()
    row, place = np.nonzero(written >= 0)
    out[place, row] = kind.nothing
    out[place, row, written[row, place]] = kind.everything
    return out


@lru_cache(maxsize=64)
def _unused(language: Automaton) -> Longs:
    """The classes on which nothing leads anywhere."""
    return np.setdiff1d(np.arange(language.symbols), language.symbol)

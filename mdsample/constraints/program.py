"""The dynamic program: what each class of tokens weighs at each position, given that the whole slot is in its language.

With m the mass of each class at each position, the product of the positions' laws conditioned on the language gives
class c at position i the probability m(i, c) · w(i, c) / Z. Here w is found, by going over (position, state) forwards
and backwards. R slots of one language and one length n are gone over together.
"""

from __future__ import annotations

import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Indices, Ints, arange64
from mdsample.core.language import Automaton

#: below this share of what is likeliest a sum of float64 numbers may have lost all that counts
_LEAST = 1e-200


def weights(language: Automaton, written: Ints, mass: Floats | Doubles) -> Doubles:
    """Log-weight of each class at each position, `[R, n, C]`, up to a constant of each position; −inf: impossible.

    `written [R, n]` int32: the class of the token at a position, −1 in blanks; `mass [R, n, C]`: log-mass of each
    class, read in blanks only. What a position itself holds does not count for its own weights. All of a slot's weights
    are −inf where its language and what is written leave nothing that has any mass.
    """
    log_mass = _given(written, mass)
    with np.errstate(divide="ignore", under="ignore", invalid="ignore"):
        found, safe = _linear(language, log_mass)
        if not safe.all():
            found[~safe] = _logarithmic(language, log_mass[~safe])
    return found


def possible(language: Automaton, written: Ints, available: Bools) -> Bools:
    """Which classes may stand at each position, `[R, n, C]`; `available [R, n, C]`: those with a token that may."""
    with np.errstate(divide="ignore"):
        return np.isfinite(weights(language, written, np.log(available.astype(np.float64)))) & available


def _given(written: Ints, mass: Floats | Doubles) -> Doubles:
    """Log-masses with a written token as all there is at its position."""
    log_mass = mass.astype(np.float64)
    row, place = np.nonzero(written >= 0)
    log_mass[row, place] = -np.inf
    log_mass[row, place, written[row, place]] = 0
    return log_mass


def _linear(language: Automaton, log_mass: Doubles) -> tuple[Doubles, Bools]:
    """The weights by sums of products, scaled at every position; and of which slots they can be trusted, `[R]`."""
    rows, length, classes = log_mass.shape
    states, symbol, source, target = language.states, language.symbol, language.source, language.target
    line = arange64(rows)[:, None]
    used = log_mass[:, :, symbol]
    mass = np.exp(used - _finite(used.max(2, initial=-np.inf))[:, :, None])  # of each transition, [R, n, E]
    lost = np.isfinite(used) & (mass == 0)
    onto, back = (line * states + target).ravel(), (line * states + source).ravel()
    later = np.empty((length + 1, rows, states))
    later[length] = language.accepting
    for place in range(length - 1, -1, -1):
        flow = mass[:, place] * later[place + 1][:, target]
        later[place] = _scaled(_sums(back, flow.ravel(), rows * states).reshape(rows, states))
    open_ = _open(language, length)
    out = np.empty((rows, length, classes))
    over = (line * classes + symbol).ravel()
    now = np.zeros((rows, states))
    now[:, 0] = 1
    safe = ~lost.any((1, 2))
    for place in range(length):
        ahead = later[place + 1][:, target]
        # states from which no text is left must not decide the scale
        now = _scaled(np.where(open_[place], now, 0))
        safe &= (now * later[place]).max(1) > _LEAST
        leaving = now[:, source]
        out[:, place] = _sums(over, (leaving * ahead).ravel(), rows * classes).reshape(rows, classes)
        now = _sums(onto, (leaving * mass[:, place]).ravel(), rows * states).reshape(rows, states)
    return np.log(out), safe


def _open(language: Automaton, length: int) -> Bools:
    """From which states a text of the rest of the slot's length leads to acceptance, whatever is written, `[n, S]`."""
    out = np.zeros((length + 1, language.states), np.bool_)
    out[length] = language.accepting
    for place in range(length - 1, -1, -1):
        out[place, language.source[out[place + 1, language.target]]] = True
    return out


def _logarithmic(language: Automaton, log_mass: Doubles) -> Doubles:
    """The weights by sums of logarithms: slower, and right however far apart the masses are."""
    rows, length, classes = log_mass.shape
    states, symbol, source, target = language.states, language.symbol, language.source, language.target
    out = np.full((rows, length, classes), -np.inf)
    for row in range(rows):
        mass = log_mass[row][:, symbol]
        later = np.full((length + 1, states), -np.inf)
        later[length, language.accepting] = 0
        for place in range(length - 1, -1, -1):
            later[place] = _log_sums(source, mass[place] + later[place + 1][target], states)
        now = np.full(states, -np.inf)
        now[0] = 0
        for place in range(length):
            out[row, place] = _log_sums(symbol, now[source] + later[place + 1][target], classes)
            now = _log_sums(target, now[source] + mass[place], states)
    return out


def _log_sums(group: Ints, values: Doubles, groups: int) -> Doubles:
    """log Σ exp of the values of each group, −inf of none."""
    most = np.full(groups, -np.inf)
    np.maximum.at(most, group, values)
    peak = _finite(most)
    return np.log(_sums(group, np.exp(values - peak[group]), groups)) + peak


def _sums(group: Indices, values: Doubles | Bools, groups: int) -> Doubles:
    """The sum of the values of each group, `[groups]`."""
    return np.bincount(group, values, groups).astype(np.float64, copy=False)


def _finite(values: Doubles) -> Doubles:
    return np.where(np.isfinite(values), values, 0.0)


def _scaled(values: Doubles) -> Doubles:
    """Each row divided by its greatest."""
    most = values.max(1, keepdims=True)
    return values / np.where(most > 0, most, 1.0)

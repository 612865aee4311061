"""Class sums on NumPy; see `mdsample.backend.sums`."""

from __future__ import annotations

import numpy as np

from mdsample.backend.sums import Sums
from mdsample.core.arrays import Doubles, Floats
from mdsample.core.language import Automaton


def class_sums(scores: Floats | Doubles, language: Automaton) -> Sums:
    """What a language's classes hold of `scores [M, V]`, −inf for what may not stand there."""
    sizes = np.array([len(tokens) for tokens in language.members])
    present = np.flatnonzero(sizes)
    if not len(present):
        nothing = np.zeros((len(scores), 0))
        return Sums.spread(present, language.symbols, nothing.astype(np.int32), [nothing] * 4)
    tokens = np.concatenate(language.members)
    begin, owner = np.cumsum(sizes[present]) - sizes[present], np.repeat(np.arange(len(present)), sizes[present])
    columns = scores[:, tokens].astype(np.float64)
    top = np.maximum.reduceat(columns, begin, 1)
    with np.errstate(invalid="ignore"):
        below = columns - top[:, owner]
    # a class of which nothing may stand
    below[np.isnan(below)] = 0
    line, last = np.arange(len(scores))[:, None], scores.shape[1]
    best = np.minimum.reduceat(np.where(below == 0, np.arange(len(tokens)), last), begin, 1)
    below[line, best] = -np.inf
    weight = np.exp(below)
    second, rest = np.maximum.reduceat(below, begin, 1), np.add.reduceat(weight, begin, 1)
    # the limit turns 0 · −inf into 0
    mean = np.add.reduceat(weight * np.maximum(below, np.finfo(np.float64).min), begin, 1)
    possible = top > -np.inf
    numbers = (top, np.where(possible, second, -np.inf), np.where(possible, rest, 0), np.where(possible, mean, 0))
    return Sums.spread(present, language.symbols, tokens[best].astype(np.int32), numbers)

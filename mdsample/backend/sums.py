"""Class sums: what is kept of a place's scores where a slot holds a language, so that the vocabulary is read once.

Whatever the classes weigh, the statistics of the place follow from it on the host.

With t the highest score of a class and b how far each of its *other* tokens is below t, a class is its best token, t,
the highest b, Σ exp(b) and Σ b·exp(b). The best token is left out of the sums, as everywhere, so that a log-probability
of −1e-12 and an entropy of 1e-11 are told from 0. M is the number of places, C that of classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from mdsample.core.arrays import Doubles, Floats, Indices, Ints


@attrs.frozen(eq=False)
class Sums:
    """The classes of one language at M places, all arrays `[M, C]`; scores up to a constant a place."""

    #: the most probable token, the lowest id among equals
    token: Ints
    #: its score, −inf for a class without a token that may stand there
    top: Doubles
    #: how far the next one is below it, −inf if there is none
    second: Doubles
    rest: Doubles
    mean: Doubles

    @classmethod
    def spread(cls, present: Indices, symbols: int, token: Ints, numbers: Sequence[Floats | Doubles]) -> Sums:
        """From those of the classes `present [P]` alone, `[M, P]` each; `numbers` in the order of the fields."""
        whole = np.zeros((len(token), symbols), np.int32)
        whole[:, present] = token
        spread = [np.full(whole.shape, nothing) for nothing in (-np.inf, -np.inf, 0.0, 0.0)]
        for out, some in zip(spread, numbers, strict=True):
            out[:, present] = some
        return cls(whole, *spread)

    @classmethod
    def joined(cls, parts: Sequence[Sums]) -> Sums:
        """Those of several groups of places of one language, one after the other."""
        names = [field.name for field in attrs.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @property
    def masses(self) -> Doubles:
        """Log Σ exp(score) of each class."""
        return self.top + np.log1p(self.rest)


@attrs.frozen(eq=False)
class Found:
    """Statistics of M places, nats; see `mdsample.core.marginals.Marginals`."""

    token: Ints
    log_probability: Doubles
    second: Doubles
    entropy: Doubles


def statistics(sums: Sums, weight: Doubles) -> Found:
    """Of the conditional with log-weights `[M, C]` on its classes; each place has a class that has any probability."""
    place = np.arange(len(weight))
    score = sums.top + weight
    peak = score.max(1, keepdims=True)
    gap = score - peak
    possible = gap > -np.inf
    below = np.where(possible, gap, 0.0)
    own = gap.argmax(1)
    share = np.exp(gap)
    share[place, own] = 0
    rest = sums.rest[place, own] + (share * (1 + sums.rest)).sum(1)
    mean = sums.mean[place, own] + (share * (sums.mean + below * (1 + sums.rest))).sum(1)
    log_total = np.log1p(rest)
    second = gap.copy()
    second[place, own] = sums.second[place, own]
    # what policies see is float32, and equals are equals
    best = (-log_total).astype(np.float32)
    alike = (gap - log_total[:, None]).astype(np.float32) == best[:, None]
    token = np.where(alike, sums.token, np.iinfo(np.int32).max).min(1)
    return Found(token.astype(np.int32), -log_total, second.max(1) - log_total, log_total - mean / (1 + rest))

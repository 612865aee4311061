"""Order: in which order are the eligible blanks best filled?

An order is a deterministic rank plus, if `noise` is above 0, Gumbel noise: positions are filled by increasing
`rank − noise · Gumbel`. So a noised order is a Plackett-Luce law over orders, whose exact probabilities
`mdsample.exact` can follow. Equal ranks: the lower position goes first.
"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import numpy as np

from mdsample.core.arrays import Doubles
from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer
from mdsample.policy.base import Part, Seat
from mdsample.policy.evidence import EndProbability, TrialEntropy
from mdsample.policy.settings import choice, integer, items, part, real
from mdsample.policy.view import Evidence, View

#: log-probability that stands for 0, which an infinite rank would not
_NEVER = -1e9


class Order(Part):
    """Ranks the eligible positions."""

    __slots__ = ()
    seat: ClassVar[Seat] = "order"

    @property
    def noise_scale(self) -> float:
        """Scale of the Gumbel noise that the loop takes off the rank. Default 0: none."""
        return 0.0

    @abc.abstractmethod
    def rank(self, view: View) -> Doubles:
        """`[B, L]` float64, lower goes first; only eligible positions are read. Without noise."""


@part
class NoisyOrder(Order):
    """An order by a statistic of the look, from which Gumbel noise is taken."""

    noise: float = real(default=0.0, at_least=0, kw_only=True)

    @property
    def noise_scale(self) -> float:
        """`noise`."""
        return self.noise


@final
@part
class Confidence(NoisyOrder):
    """Highest top probability first (LLaDA's low-confidence remasking; Top-K of arXiv 2502.06768, section 4).

    The confidence is that of the most probable token, not of a drawn one, so the order does not peek.
    `noise`: coefficient of Gumbel noise added to the probability (2502.06768, appendix D.1.2); 0 for none. `ends` last:
    where an end token is the most probable one the confidence is 0, elsewhere it is that among the other tokens, so
    that a text is written before it is ended (LLaDA's `confidence_eos_eot_inf`); thresholds are not asked of it.
    """

    name: ClassVar[str] = "confidence"
    ends: str = choice(("free", "last"), default="free", kw_only=True)

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """How probable an end is, if ends go last."""
        return (EndProbability(),) if self.ends == "last" else ()

    def rank(self, view: View) -> Doubles:
        """Minus the probability; without noise minus its logarithm, which does not saturate near 1."""
        marginals = view.marginals
        if self.ends == "free":
            return -(marginals.confidence if self.noise else marginals.log_probability).astype(np.float64)
        ends = np.isin(marginals.token, sorted(view.batch.tokenizer.ends))
        others = np.log1p(-np.minimum(view.get(EndProbability()), 1), where=~ends, out=np.zeros(ends.shape))
        chosen = np.where(ends, _NEVER, marginals.log_probability.astype(np.float64) - others)
        return -np.exp(chosen) if self.noise else -chosen


@final
@part
class Margin(NoisyOrder):
    """Largest gap between the two highest probabilities first (arXiv 2502.06768, section 4: Top-K margin).

    `noise`: coefficient of Gumbel noise added to the margin (appendix D.1.2; the puzzles there use 0.5); 0 for none.
    """

    name: ClassVar[str] = "margin"

    def rank(self, view: View) -> Doubles:
        """Minus the margin."""
        return -view.marginals.margin.astype(np.float64)


@final
@part
class Entropy(NoisyOrder):
    """Lowest entropy first (entropy decoding; the order of MED, arXiv 2510.19990, and EB, 2505.24857). Nats.

    `noise`: coefficient of Gumbel noise taken off the entropy; 0 for none.
    """

    name: ClassVar[str] = "entropy"

    def rank(self, view: View) -> Doubles:
        """The entropy."""
        return view.marginals.entropy.astype(np.float64)


@final
@part
class PositionBiased(Order):
    """Highest exp(−`decay` · i) · c first: i counts the row's open positions from 0, c is the top probability.

    The bias of PC-Sampler (arXiv 2508.13021) towards early positions; 0 is `confidence`, and a large value is left to
    right. Unit: 1 / token. Default 0.25, as there for mathematics and code (0 for Sudoku). Its calibration of c by
    how frequent the token is in a corpus needs that corpus, and is not done.
    """

    name: ClassVar[str] = "position-biased"
    decay: float = real(default=0.25, at_least=0)

    def rank(self, view: View) -> Doubles:
        """Minus the logarithm of the score."""
        return self.decay * view.batch.open_index - view.marginals.log_probability.astype(np.float64)


@final
@part
class Lookahead(Order):
    """Tries the `k` positions of lowest entropy, each with its most probable token, and ranks them by what that leaves.

    First goes the lowest `own` · H + mean entropy of the row's remaining blanks, H the position's own entropy, nats;
    those that were not tried follow, lowest entropy first. `own` 1 is the rule of Info-Gain (arXiv 2602.18176), 0 that
    of LookUM (2511.05563). Default 8 as in the former's code, which draws its candidates; here nothing is drawn, so the
    order does not peek. A row pays for each position that is tried, and a step is two
    predictions, the second of `k` rows for each row. A cache keeps the rows of the last one only: it spares nothing.
    """

    name: ClassVar[str] = "lookahead"
    k: int = integer(default=8, at_least=2, at_most=1024)
    own: float = real(default=1.0, at_least=0, kw_only=True)

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """What each of the `k` leaves."""
        return (TrialEntropy(self.k),)

    def rank(self, view: View) -> Doubles:
        """The score where it is known, and beyond all of them the entropy."""
        entropy = view.marginals.entropy.astype(np.float64)
        left = view.get(TrialEntropy(self.k))
        known = np.isfinite(left)
        score = np.where(known, self.own * np.where(known, entropy, 0) + left, 0)
        return np.where(known, score, score.max(1, keepdims=True) + 1 + entropy)


@final
@part
class LeftToRight(Order):
    """The leftmost blank first: autoregressive order."""

    name: ClassVar[str] = "left-to-right"

    def rank(self, view: View) -> Doubles:
        """The position."""
        return view.batch.open_index.astype(np.float64)


@final
@part
class RightToLeft(Order):
    """The rightmost blank first."""

    name: ClassVar[str] = "right-to-left"

    def rank(self, view: View) -> Doubles:
        """Minus the position."""
        return -view.batch.open_index.astype(np.float64)


@final
@part
class Random(Order):
    """A uniformly random order, new in every step (ancestral sampling; Dream's `origin`, LLaDA's `random`)."""

    name: ClassVar[str] = "random"

    @property
    def noise_scale(self) -> float:
        """1: equal ranks with Gumbel noise are a uniform permutation."""
        return 1.0

    def rank(self, view: View) -> Doubles:
        """All equal."""
        return np.zeros(view.eligible.shape)


@final
@part
class Fixed(Order):
    """A given order: `permutation` lists the row's open positions (0 = first blank of the row), first to fill first.

    Every row must have exactly as many open positions as the permutation has members.
    """

    name: ClassVar[str] = "fixed"
    permutation: tuple[int, ...] = items("whole numbers from 0", lambda v: type(v) is int and v >= 0, of="permutation")

    def __attrs_post_init__(self) -> None:
        """Checks that it is a permutation."""
        if sorted(self.permutation) != list(range(len(self.permutation))):
            raise ValueError(
                f"fixed(permutation=…) must hold each of 0..{len(self.permutation) - 1} once; got {self.permutation}"
            )

    def check(self, canvas: Canvas, tokenizer: Tokenizer) -> None:
        """Every row must have as many blanks as the permutation has members."""
        counts = sorted({int(n) for n in canvas.blank.sum(1)} - {len(self.permutation)})
        if counts:
            raise ValueError(
                f"fixed(permutation=…) has {len(self.permutation)} members, but there are rows with {counts[0]} blanks"
            )

    def rank(self, view: View) -> Doubles:
        """The place of each position in the permutation."""
        return np.argsort(self.permutation).astype(np.float64)[np.maximum(view.batch.open_index, 0)]

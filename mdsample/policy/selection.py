"""Selection: how long a prefix of the ranking is committed now?

All rules here test the first n of the ranking and take the longest prefix that passes; the loop commits at least one
position and at most all eligible ones. With c the top probability and H the entropy (nats), in rank order:

| part | the prefix goes on while |
| --- | --- |
| `top(k)` | n <= k |
| `steps(n)` | an even split of the blanks over n steps |
| `dream-steps(n)` | Dream's split, which grows towards the end |
| `below-entropy(λ)` | every H < λ |
| `entropy-bound(γ)` | ΣH − max H <= γ |
| `above-confidence(τ)` | every c >= τ, or n <= `at_least` |
| `cumulative-confidence(p)` | Πc >= p |
| `factor(f)` | (n + 1)(1 − min c) < f |
| `frechet(δ)` | Σc − (n − 1) − (1 − min c) > δ |
| `linear-time(steps)`, `remdm-reveal` | a binomial number of the blanks |
| `p2-reveal(η)` | c is among the best, tokens that stand included |
| `hierarchy(τ)` | c > τ, or the best of a run of blanks; such positions come first in the ranking |
| `stable(τ)` | c >= τ and the marginal has converged; such positions come first in the ranking |
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, final

import numpy as np

from mdsample.core.arrays import Bools, Doubles, Ints, Longs, arange64
from mdsample.policy.base import Part, Seat
from mdsample.policy.evidence import Divergence, WrittenLogProb
from mdsample.policy.p2 import SCORES, planned
from mdsample.policy.remdm import KINDS, clock
from mdsample.policy.settings import choice, integer, part, real
from mdsample.policy.view import Evidence, Ranked, View, bounds, capped


class Selection(Part):
    """Says how many of the ranking are committed in this step."""

    __slots__ = ()
    seat: ClassVar[Seat] = "selection"

    @abc.abstractmethod
    def count(self, view: View, ranked: Ranked) -> Ints:
        """`[B]` int32; the loop clips it to 1 … `ranked.number`."""

    def first(self, view: View) -> Bools:
        """Positions that go before all others in the ranking, whatever the order, `[B, L]`. Default: none."""
        return np.zeros_like(view.eligible)

    def affords(self, view: View, row: Ints, position: Ints) -> Bools:
        """Which rows may fill at once, on leaving, what a stop rule asks for, `[B]`; a row that may not goes on.

        The N places come in the order in which they would be committed. Default: all.
        """
        return np.ones(len(view.eligible), np.bool_)


class OwnChoice(Selection):
    """A selection that names the positions itself, whatever the order, and commits all of them."""

    __slots__ = ()

    @abc.abstractmethod
    def first(self, view: View) -> Bools:
        """The positions that are committed, `[B, L]`; in a row without any the first of the order goes alone."""

    @final
    def count(self, view: View, ranked: Ranked) -> Ints:
        """As many as there are of them."""
        return self.first(view).sum(1, dtype=np.int32)


class RandomSelection(Selection):
    """A selection whose count is drawn; its exact law is `chances`, which `mdsample.exact` follows."""

    __slots__ = ()

    @abc.abstractmethod
    def chances(self, view: View, ranked: Ranked) -> Doubles:
        """Probability of each count 0, 1, …, N, `[B, N + 1]`."""

    @final
    def count(self, view: View, ranked: Ranked) -> Ints:
        """Draws from `chances` by inverse CDF with the row's own uniform."""
        below = np.cumsum(self.chances(view, ranked), 1)
        return (below < view.uniforms.per_row("count")[:, None] * below[:, -1:]).sum(1).astype(np.int32)


@final
@part
class Top(Selection):
    """The first `k` of the ranking. Default 1: one at a time, which is exact."""

    name: ClassVar[str] = "top"
    k: int = integer(default=1, at_least=1, values=(1, 2, 3, 4, 6, 8))

    def count(self, view: View, ranked: Ranked) -> Ints:
        """`k` everywhere."""
        return np.full(len(ranked.number), self.k, np.int32)


@final
@part
class Steps(Selection):
    """All blanks in `n` steps, split evenly, the larger shares first (LLaDA's `generate`; default 128 as there).

    With a window, the steps that are not kept back for the blanks of later windows, in proportion to their number: so
    blocks are split as LLaDA splits them. Every block takes at least one step, so an `n` below the number of blocks
    takes as many as there are blocks. `shares` spread: larger and smaller shares take turns, so that after step i
    ⌈N · i/n⌉ of a row's N blanks are filled, whatever the window (RND1).
    """

    name: ClassVar[str] = "steps"
    n: int = integer(default=128, at_least=1)
    shares: str = choice(("larger-first", "spread"), default="larger-first", kw_only=True)

    def count(self, view: View, ranked: Ranked) -> Ints:
        """Eligible blanks over the steps that are left for them, rounded up."""
        batch, n = view.batch, np.int64(self.n)
        if self.shares == "spread":
            blanks = batch.initially_blank.sum(1)
            left = blanks * np.maximum(n - 1 - batch.step, 0) // n
            return (batch.blank.sum(1) - left).astype(np.int32)
        later = batch.blank.sum(1) - ranked.number
        kept_back = -(-n * later // np.maximum(batch.initially_blank.sum(1), 1))
        share = np.maximum(np.maximum(n - batch.step, 1) - kept_back, 1)
        return (-(-ranked.number // share)).astype(np.int32)


@final
@part
class DreamSteps(Selection):
    """Dream's split over `n` steps: of m blanks ⌊m·(1 − s/t)⌋ go from time t to s, in the last step all (2508.15487).

    Times are n + 1 even ones from 1 to 0.001, in float32 as there; a step that would fill nothing is left out, as
    nothing changes in it. So a row with as many blanks as steps takes one pass fewer. Where a window or a revision
    brought the row off this schedule, the next step takes it to the next number of blanks on it. Default 512, as
    Dream's.
    """

    name: ClassVar[str] = "dream-steps"
    n: int = integer(default=512, at_least=1)

    def count(self, view: View, ranked: Ranked) -> Ints:
        """Down to the next number of blanks on the schedule."""
        batch = view.batch
        rows = zip(batch.initially_blank.sum(1).tolist(), batch.blank.sum(1).tolist(), strict=True)
        return np.array([left - dream_schedule(blanks, self.n)[left] for blanks, left in rows], np.int32)


@lru_cache(maxsize=256)
def dream_schedule(blanks: int, n: int) -> Longs:
    """For each number of blanks 0 … `blanks` of a row, how many are to be left after the next of Dream's `n` steps."""
    half, width = (n + 1) // 2, (np.float32(0.001) - np.float32(1)) / np.float32(n)
    up, down = (np.arange(n + 1, dtype=np.float32)[::way] * width for way in (1, -1))
    times = np.where(np.arange(n + 1) < half, np.float32(1) + up, np.float32(0.001) - down)
    after = np.zeros(blanks + 1, np.int64)
    left = blanks
    for t, s in itertools.pairwise(times):
        count = int(np.float32(left) * (np.float32(1) - s / t))
        if s == times[-1]:
            count = left
        after[left - count + 1 : left + 1] = left - count
        left -= count
    return after


@final
@part
class BelowEntropy(Selection):
    """While each entropy is below `entropy` nats, at most `k`: multi-token entropy decoding (MED, arXiv 2510.19990).

    Default 0.2 nats, the paper's headline; `k` (unpublished there) defaults to no cap. With the entropy order these
    are all positions below the threshold; with left-to-right it is the run from the left (AR-MED).
    """

    name: ClassVar[str] = "below-entropy"
    entropy: float = real(default=0.2, above=0, values=(0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6))
    k: int | None = integer(default=None, at_least=1, optional=True, kw_only=True)

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix with every H < `entropy`."""
        return capped(ranked.leading(ranked.entropy < np.float64(self.entropy)), self.k)


@final
@part
class EntropyBound(Selection):
    """While ΣH − max H <= `bound` nats, at most `k`: the EB-Sampler (arXiv 2505.24857).

    The left side bounds the total correlation of the committed set, so each step costs at most `bound` nats of KL.
    Default 0.1 nats, as in public implementations.
    """

    name: ClassVar[str] = "entropy-bound"
    bound: float = real(default=0.1, at_least=0, values=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0))
    k: int | None = integer(default=None, at_least=1, optional=True, kw_only=True)

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix within the bound."""
        return capped(ranked.leading(bounds(ranked) <= self.bound), self.k)


@final
@part
class AboveConfidence(Selection):
    """While each top probability is at least `probability` (Fast-dLLM, arXiv 2505.22618; default 0.9 as there).

    `at_least` go in any case, as in LLaDA2, whose blocks of 32 in n steps take at least 32/n a step; default 1.
    """

    name: ClassVar[str] = "above-confidence"
    probability: float = real(default=0.9, above=0, at_most=1, values=(0.999, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6))
    at_least: int = integer(default=1, at_least=1, kw_only=True)

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix with every c >= `probability`, or `at_least`."""
        return np.maximum(ranked.leading(ranked.confidence >= self.probability), np.int32(self.at_least))


@final
@part
class CumulativeConfidence(Selection):
    """While the product of the top probabilities is at least `probability`.

    The product is how likely independent draws are all the most probable tokens. As Σ(1 − c) <= −ln Πc, the joint
    gives these tokens together at least 1 + ln `probability`, however they depend on one another. A rule of our own;
    default 0.9, the threshold that Fast-dLLM (arXiv 2505.22618) asks of each token alone.
    """

    name: ClassVar[str] = "cumulative-confidence"
    probability: float = real(default=0.9, above=0, at_most=1, values=(0.999, 0.99, 0.98, 0.95, 0.9, 0.8, 0.6, 0.4))

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix whose product is large enough."""
        return ranked.leading(np.cumprod(ranked.confidence.astype(np.float64), 1) >= self.probability)


@final
@part
class Factor(Selection):
    """While (n + 1)(1 − c_n) < `factor`, c_n the smallest top probability so far (Fast-dLLM, arXiv 2505.22618).

    With all errors below ε and (n + 1)ε <= 1 the parallel argmax is the joint argmax. Default 0.75, as used as the
    baseline of Fast-dLLM++ (2606.02955). `rule` published is what Fast-dLLM's code does: equality passes, and where
    only the last on offer fails, it goes all the same, which the proof does not cover.
    """

    name: ClassVar[str] = "factor"
    factor: float = real(default=0.75, above=0, values=(0.05, 0.1, 0.2, 0.4, 0.75, 1.0, 1.5))
    rule: str = choice(("proved", "published"), default="proved", kw_only=True)

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix that passes."""
        n = arange64(ranked.confidence.shape[1]) + 1
        worst = np.minimum.accumulate(ranked.confidence, 1).astype(np.float64)
        if self.rule == "proved":
            return ranked.leading((n + 1) * (1 - worst) < self.factor)
        # the first is never tested there
        count = ranked.leading((worst >= 1 - self.factor / (n + 1)) | (n == 1))
        return count + (count == ranked.number - 1)


@final
@part
class Frechet(Selection):
    """While Σc − (n − 1) − (1 − c_n) > `margin`, c_n the smallest so far (Fast-dLLM++, arXiv 2606.02955).

    The first two terms are Fréchet's lower bound on the joint probability of the argmaxes, the last an upper bound on
    any competitor's. Default 0.25, as published.
    """

    name: ClassVar[str] = "frechet"
    margin: float = real(default=0.25, values=(0.95, 0.9, 0.75, 0.5, 0.25, 0.0))

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The longest prefix that passes."""
        c = ranked.confidence.astype(np.float64)
        n = arange64(c.shape[1]) + 1
        competitor = 1 - np.minimum.accumulate(c, 1)
        return ranked.leading(np.cumsum(c, 1) - (n - 1) - competitor > self.margin)


@final
@part
class Stable(OwnChoice):
    """All converged positions with a top probability of at least `probability` (KLASS, arXiv 2511.05664).

    A position has converged if KL(look ‖ look before) was below `shift` nats in the last `looks` looks, it being
    on offer in all of them and in the one before. Such positions go first; if there are none, the first of the order
    goes alone. Defaults 0.9, 0.01 and 2 as in the authors' code, whose first comparison is with a look from before the
    window came there. Memory: each row's last look stays on the device, that is the hidden states of the positions
    looked at and at most 64 MiB of logits a batch; logits beyond that are made once more for the comparison.
    """

    name: ClassVar[str] = "stable"
    probability: float = real(default=0.9, above=0, at_most=1)
    shift: float = real(default=0.01, above=0, kw_only=True)
    looks: int = integer(default=2, at_least=1, kw_only=True)

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """How the last `looks` predictions differed from those before them."""
        return (Divergence(self.looks),)

    def first(self, view: View) -> Bools:
        """Those that are confident and stand still."""
        still = (view.get(Divergence(self.looks)) < np.float64(self.shift)).all(1)
        return view.eligible & still & (view.marginals.confidence >= self.probability)


@final
@part
class Hierarchy(OwnChoice):
    """In every run of adjacent blanks the best if its top probability is above `low`; all above `probability` besides.

    dInfer's hierarchical decoding (inclusionAI/dInfer): tokens far apart go together on less confidence, and a long
    run is cut into shorter ones. Runs are those of the positions on offer. Such positions go first in the ranking; if
    there are none, the first of the order goes alone. Defaults 0.9 and 0.6, with which dInfer serves.
    """

    name: ClassVar[str] = "hierarchy"
    probability: float = real(default=0.9, above=0, at_most=1)
    low: float = real(default=0.6, at_least=0, at_most=1, kw_only=True)

    def first(self, view: View) -> Bools:
        """The best of each run, the lower position among equals, and what is above the threshold."""
        c = np.where(view.eligible, view.marginals.confidence, -1)
        position = np.broadcast_to(arange64(c.shape[1]), c.shape)
        starts = view.eligible & ~np.pad(view.eligible, ((0, 0), (1, 0)))[:, :-1]
        run = np.cumsum(starts, 1)
        order = np.lexsort((position, -c, run, ~view.eligible), axis=1)
        ranked = np.take_along_axis(np.where(view.eligible, run, 0), order, 1)
        best = np.zeros_like(view.eligible)
        np.put_along_axis(best, order, np.diff(ranked, axis=1, prepend=-1) != 0, 1)
        return view.eligible & ((best & (c > self.low)) | (c > self.probability))


@final
@part
class LinearTime(RandomSelection):
    """The linear noise schedule in `steps` steps: each blank is filled with probability 1 − s/t (Dream's `origin`).

    Time runs from 1 to 0 in equal steps, so at step i each blank's chance is 1/(steps − i). The last step fills all
    that is on offer, and so does any after it that a window makes necessary. Only the number of blanks is drawn here
    (binomial); with the `random` order this is independent coins. Default 512, as Dream's. A step in which the coins
    would fill nothing fills one, so no forward pass is wasted.
    """

    name: ClassVar[str] = "linear-time"
    steps: int = integer(default=512, at_least=1)

    def chances(self, view: View, ranked: Ranked) -> Doubles:
        """Binomial(number, 1 / steps left)."""
        return _binomials(ranked.number, (1.0 / np.maximum(self.steps - view.batch.step, 1)).tolist())


@final
@part
class RemdmReveal(RandomSelection):
    """ReMDM's clock: each blank is filled with probability (α' − (1 − σ)α)/(1 − α) (arXiv 2503.00307).

    For use with `random` and `remdm-remask` of the same settings, as the preset `remdm` has them. `kind`: `cap`,
    `rescale`, `conf` or `loop`; `eta`: published 0.008, 0.015, none, 0.02; `steps`: 1024 as published. Only the number
    of blanks is drawn here (binomial). Unlike there a step in which the coins would fill nothing fills one, and a row
    without blanks leaves, though the clock has not run out.
    """

    name: ClassVar[str] = "remdm-reveal"
    kind: str = choice(KINDS, default="cap")
    eta: float | None = real(default=None, at_least=0, at_most=1, optional=True, kw_only=True)
    steps: int = integer(default=1024, at_least=1, kw_only=True)

    def chances(self, view: View, ranked: Ranked) -> Doubles:
        """Binomial(number, probability of the step)."""
        p = [clock(self.kind, self.eta, self.steps, step).reveal for step in view.batch.step.tolist()]
        return _binomials(ranked.number, p)


@final
@part
class P2Reveal(Selection):
    """P2's clock: as many blanks as are among the best ⌈N · i / steps⌉ of a row's N blanks and tokens (2502.03540).

    For use with `confidence` and `p2-remask` of the same settings, as the preset `p2` has them. `eta` (1, as published)
    scales the log-probability of tokens that stand, `own` as in the paper or that of the `best` token there as in the
    authors' code; i counts steps from 1, `steps` 512 as published for LLaDA. Unlike there a step that would change
    nothing fills one blank, and a row without blanks leaves.
    """

    name: ClassVar[str] = "p2-reveal"
    eta: float = real(default=1.0, at_least=0)
    steps: int = integer(default=512, at_least=1, kw_only=True)
    scores: str = choice(SCORES, default="own", kw_only=True)

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """The log-probability of what is written."""
        return (WrittenLogProb(),)

    def count(self, view: View, ranked: Ranked) -> Ints:
        """The blanks that are planned to be filled."""
        return (planned(view, self.eta, self.steps, self.scores) & view.eligible).sum(1, dtype=np.int32)


def _binomials(number: Ints, p: Sequence[float]) -> Doubles:
    """Binomial laws of rows, `[B, most + 1]`."""
    out = np.zeros((len(number), int(number.max(initial=0)) + 1))
    for row, (n, q) in enumerate(zip(number.tolist(), p, strict=True)):
        out[row, : n + 1] = _binomial(n, q)
    return out


def _binomial(n: int, p: float) -> Doubles:
    if p in (0.0, 1.0):
        return np.eye(n + 1)[n if p else 0]
    m = arange64(n + 1)
    return np.exp(_log_choose(n) + m * math.log(p) + (n - m) * math.log1p(-p))


@lru_cache(maxsize=4096)
def _log_choose(n: int) -> Doubles:
    """Logarithms of the binomial coefficients n over 0 … n."""
    m = arange64(n) + 1
    return np.concatenate([[0.0], np.cumsum(np.log((n - m + 1) / m))])

"""What a forward pass said, kept on the host: statistics for policies, and exact draws by inverse CDF.

N is the number of places looked at (or drawn at), V the vocabulary. Scores are logits or log-probabilities, float32 or
float64; they keep their type inside, so toy distributions are exact to float64 while what policies see is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import attrs
import numpy as np

from mdsample.backend.host import WantedPlaces
from mdsample.backend.refusals import (
    known_draw,
    refuse_empty,
    refuse_uniforms,
    refuse_unknown,
    refuse_unusable,
    require_same_backend,
)
from mdsample.core.arrays import Bools, Doubles, Floats, Ints, any_in_row
from mdsample.core.marginals import Marginals
from mdsample.core.restriction import Restriction
from mdsample.models.denoiser import Prediction
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.guide import Cfg, Guide, cooled_law

Scores = Floats | Doubles


@attrs.frozen(eq=False)
class Reduced:
    """The conditional at N places and its statistics, in nats, in the type of the scores."""

    #: `[N, V]`, −inf where impossible
    log_probability: Scores
    #: the most probable token, the lowest id among equals, `[N]`
    token: Ints
    #: its log-probability, `[N]`
    top: Scores
    #: the second most probable token's, −inf if only one is possible, `[N]`
    second: Scores
    #: `[N]`
    entropy: Scores


def reduce(scores: Scores, rows: Ints, positions: Ints) -> Reduced:
    """Log-softmax and statistics of `scores [N, V]` (−inf is a forbidden token) in one pass over the vocabulary.

    The most probable token is left out of the sum and log1p puts it back, so that a log-probability of −1e-12 and an
    entropy of 1e-11 are told from 0 even in float32. `rows` and `positions` `[N]` name the places in errors: raises
    `ModelError` where a score is NaN or +inf, and where no allowed token has a finite score.
    """
    place = np.arange(len(scores))
    top = scores.argmax(1)
    peak = scores[place, top]  # NaN if any score is
    refuse_unusable(peak, rows, positions)
    below = scores - peak[:, None]
    below[place, top] = -np.inf
    weight = np.exp(below)
    rest = weight.sum(1)
    log_total = np.log1p(rest)
    # the limit turns 0 · −inf into 0
    mean = (weight * np.maximum(below, np.finfo(below.dtype).min)).sum(1) / (1 + rest)
    second = below.max(1) - log_total
    below -= log_total[:, None]
    below[place, top] = -log_total
    # tokens whose scores differ may round to one log-probability, and equals are equals: hence argmax once more
    return Reduced(below, below.argmax(1).astype(np.int32), -log_total, second, log_total - mean)


def guided(passes: Sequence[Scores], guide: Guide) -> Scores:
    """Scores `[N, V]` from those of all `Query.passes`: under `Cfg` u + (scale + 1)(c − u), else c itself.

    Scores are logits or log-probabilities. A token that c forbids (−inf) stays forbidden; one that u forbids and c
    allows keeps its score c, where the formula has no finite value.
    """
    if not isinstance(guide, Cfg):
        return passes[0]
    conditional, unconditional = passes
    with np.errstate(invalid="ignore"):
        moved = unconditional + (guide.scale + 1) * (conditional - unconditional)
    return np.where(np.isneginf(conditional) | np.isneginf(unconditional), conditional, moved)


@final
class NumpyPrediction:
    """The `Prediction` of every denoiser that gives its scores as a NumPy array."""

    def __init__(self, scores: Scores, wanted: Bools, restriction: Restriction, guide: Guide) -> None:
        """`scores [N, V]` of the N places where `wanted [B, L]`, row by row, as `guided` gives them.

        `restriction` and, after it, a `guide` that cools are applied here. Raises `ValueError` where the
        restriction allows no token, and as `reduce` does; both name row and position.
        """
        self._places = WantedPlaces(wanted)
        rows, positions = self._places.rows, self._places.positions
        if len(scores) != len(rows):
            raise ValueError(f"{len(rows)} positions were looked at, but there are scores for {len(scores)}")
        self._law = cooled_law(guide)
        scores = _restricted(scores, restriction, rows, positions)
        reduced = reduce(_cooled(scores, self._law), rows, positions)
        self._log_probability = reduced.log_probability
        #: what a narrower restriction is applied to: a cut is made anew after it
        self._warm = reduced.log_probability if self._law is None else scores
        top, second, entropy = (x.astype(np.float32) for x in (reduced.top, reduced.second, reduced.entropy))
        self._marginals = self._places.marginals(reduced.token, top, second, entropy)

    @property
    def marginals(self) -> Marginals:
        """Statistics `[B, L]`; unseen where nothing was wanted."""
        return self._marginals

    def draw(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw, restriction: Restriction | None = None
    ) -> tuple[Ints, Floats]:
        """Draws a token at each of N places: the first v with CDF(v) > u · CDF(last).

        The inequality is strict and the CDF never falls, so a token of probability zero is never drawn. `rows`,
        `positions` `[N]`; `uniforms [N]` float64 in [0, 1); `restriction` narrows the look's own. Returns tokens `[N]`
        int32 and their probabilities `[N]` float32 at temperature 1, renormalised over the restriction. Raises
        `ValueError` for a position that was not wanted, a place without an allowed token, and a draw it does not know.
        """
        refuse_uniforms(uniforms)
        conditional = self._conditional(rows, positions, restriction)
        cdf = np.cumsum(_law(conditional, how), axis=1)
        tokens = (cdf > (uniforms * cdf[:, -1])[:, None]).argmax(1)
        probability = np.exp(conditional[np.arange(len(tokens)), tokens])
        return tokens.astype(np.int32), probability.astype(np.float32)

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """Log-probabilities `[N]` of stated tokens; see `Prediction`."""
        refuse_unknown(tokens, self._log_probability.shape[1])
        conditional = self._conditional(rows, positions, None)
        return conditional[np.arange(len(tokens)), tokens].astype(np.float32)

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """KL(this look ‖ `before`) `[N]`, nats; see `Prediction`."""
        require_same_backend(self, before)
        assert isinstance(before, NumpyPrediction)
        now, old = self._conditional(rows, positions, None), before._conditional(before_rows, positions, None)
        possible = ~np.isneginf(now)
        gap = np.subtract(now, old, out=np.zeros_like(now), where=possible)  # +inf where it was forbidden
        return np.maximum((np.exp(now) * gap).sum(1), 0).astype(np.float32)

    def probabilities(self, rows: Ints, positions: Ints, how: Draw, restriction: Restriction | None = None) -> Doubles:
        """The law that `draw` draws from, `[N, V]` float64; arguments and errors as there."""
        return _law(self._conditional(rows, positions, restriction), how)

    def _conditional(self, rows: Ints, positions: Ints, restriction: Restriction | None) -> Doubles:
        """Log-probabilities `[N, V]` at temperature 1, normalised over the restriction."""
        numbers = self._places.numbers(rows, positions)
        if restriction is None:
            return self._log_probability[numbers].astype(np.float64)
        narrowed = _restricted(self._warm[numbers].astype(np.float64), restriction, rows, positions)
        narrowed = reduce(_cooled(narrowed, self._law), rows, positions)
        return narrowed.log_probability.astype(np.float64, copy=False)


def _restricted(scores: Scores, restriction: Restriction, rows: Ints, positions: Ints) -> Scores:
    """`scores [N, V]` with −inf for what may not stand there."""
    allowed = restriction.sets[restriction.index[rows, positions]]
    refuse_empty(any_in_row(allowed), rows, positions)
    return np.where(allowed, scores, -np.inf)


def _cooled(scores: Scores, how: Temperature | None) -> Scores:
    """Log-probabilities `[N, V]` of the law that is measured; scores without a finite one are left for `reduce`."""
    if how is None:
        return scores
    usable = np.isfinite(scores.max(1))
    out = scores.copy()
    with np.errstate(divide="ignore"):
        out[usable] = np.log(_law(scores[usable].astype(np.float64), how))
    return out


def _law(log_probability: Doubles, how: Draw) -> Doubles:
    """Probabilities `[N, V]` with which `how` draws, from log-probabilities at temperature 1."""
    match known_draw(how):
        case Greedy():
            law = np.zeros_like(log_probability)
            law[np.arange(len(law)), log_probability.argmax(1)] = 1
            return law
        case Temperature(t=t) as warm:
            with np.errstate(over="ignore"):  # at a tiny temperature all but the best go to −inf
                law = np.exp((log_probability - log_probability.max(1, keepdims=True)) / t)
            law /= law.sum(1, keepdims=True)
            return _filtered(law, warm)


def _filtered(law: Doubles, how: Temperature) -> Doubles:
    """The law after top_k, min_p and top_p, in this order, each on the renormalised law before it."""
    if how.top_k == 0 and how.min_p == 0 and how.top_p == 1:
        return law
    # stable: among equals the lowest ids come first, so exactly k are kept
    order = np.argsort(-law, axis=1, kind="stable")
    ranked = np.take_along_axis(law, order, axis=1)
    if how.top_k:
        ranked[:, how.top_k :] = 0
    if how.min_p:
        ranked[ranked < how.min_p * ranked[:, :1]] = 0
    if how.top_p < 1:
        reached = np.cumsum(ranked, axis=1)
        ranked[:, 1:][reached[:, :-1] >= how.top_p * reached[:, -1:]] = 0
    kept = np.empty_like(law)
    np.put_along_axis(kept, order, ranked / ranked.sum(1, keepdims=True), axis=1)
    return kept

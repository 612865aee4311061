"""What a forward pass said, kept on the host: statistics for policies, and exact draws by inverse CDF.

N is the number of places looked at (or drawn at), V the vocabulary. Scores are logits or log-probabilities, float32 or
float64; they keep their type inside, so toy distributions are exact to float64 while what policies see is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast, final

import attrs
import numpy as np

from mdsample.backend.conditioning import Kept
from mdsample.backend.host import BackendPrediction, WantedPlaces
from mdsample.backend.languages import Weights
from mdsample.backend.reference.sums import class_sums
from mdsample.backend.refusals import known_draw, refuse_empty, refuse_unusable
from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs, any_in_row
from mdsample.core.credits import Credits
from mdsample.core.language import Automaton
from mdsample.core.restriction import Restriction
from mdsample.models.denoiser import Tuning
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.guide import Cfg, Guide, Tuned, cooled_law

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


def tuned(scores: Scores, tuning: Tuning | None, rows: Ints, positions: Ints) -> Scores:
    """`scores [N, V]` of N places as a `Tuned` guide has them."""
    if tuning is None:
        return scores
    which, token, divisor = tuning.at(rows, positions)
    scores = scores.copy()
    scores[which, token] -= tuning.lowered
    return cast(Scores, scores / divisor.astype(scores.dtype)[:, None])


@final
class NumpyPrediction(BackendPrediction):
    """The `Prediction` of every denoiser that gives its scores as a NumPy array."""

    def __init__(
        self,
        scores: Scores,
        wanted: Bools,
        restriction: Restriction,
        guide: Guide,
        *,
        tuning: Tuning | None = None,
        credits: Credits | None = None,
        soften: Callable[[Floats], Floats] | None = None,
    ) -> None:
        """`scores [N, V]` of the N places where `wanted [B, L]`, row by row, as `guided` gives them.

        The query's `tuning`, `restriction` and, after them, a `guide` that cools or that adds what the `credits` say
        are applied here. Raises `ValueError` where the restriction allows no token, for a guide without the tuning
        or credits that it needs, and as `reduce` does. `soften`: of a self-conditioned model that is to remember, the
        soft embeddings `[N, d]` of tokens with probabilities `[N, V]`.
        """
        self._places = WantedPlaces(wanted)
        rows, positions = self._places.rows, self._places.positions
        if len(scores) != len(rows):
            raise ValueError(f"{len(rows)} positions were looked at, but there are scores for {len(scores)}")
        if isinstance(guide, Tuned) and tuning is None:
            raise ValueError(f"{guide.name} needs what its query asks for: pass query.tuning on")
        scores = tuned(scores, tuning, rows, positions)
        self.law = cooled_law(guide)
        self._size = restriction.sets.shape[1]
        #: restricted to the sets, but not to languages: what other weights than the first are applied to
        self._scores = _restricted(scores, restriction, rows, positions)
        self.lend(guide, credits)
        if self._gains is not None:
            token, gain = self._gains
            self._scores = self._scores.copy()
            np.add.at(self._scores, (np.arange(len(rows))[:, None], token), gain)
        asked = self.hold(restriction.spans)
        self.settle([class_sums(self._scores[numbers], language) for language, numbers in asked])
        weighed = _weighed(self._scores, self._weights, np.arange(len(rows)))
        reduced = reduce(_cooled(weighed, self.law), rows, positions)
        self._log_probability = reduced.log_probability
        top, second, entropy = (x.astype(np.float32) for x in (reduced.top, reduced.second, reduced.entropy))
        self._marginals = self._places.marginals(reduced.token, top, second, entropy)
        soft = None if soften is None else soften(np.exp(reduced.log_probability, dtype=np.float32))
        self.memories = [] if soft is None else Kept(soft, self._places).memories()

    def probabilities(self, rows: Ints, positions: Ints, how: Draw, tokens: Ints | None = None) -> Doubles:
        """The law that `draw` draws from, `[N, V]` float64; arguments and errors as there.

        `tokens [B, L]` int32, −1 in blanks: what is written now in slots that hold a language, part of it drawn from
        this prediction; by default as it was in the query.
        """
        if tokens is None or self._languages is None:
            return _law(self._conditional(rows, positions, None), how)
        spans = self._languages.spans
        written = [span.language.classes_of(tokens[span.row, span.positions]) for span in spans]
        return _law(self._conditional(rows, positions, self._languages.weights(written)), how)

    def best(self) -> tuple[Ints, Scores]:
        """The most probable tokens and their log-probabilities, `[N]`; see `BackendPrediction`."""
        reduced = reduce(self._scores, self._places.rows, self._places.positions)
        return reduced.token, reduced.top

    def masses(self, asked: Sequence[tuple[Automaton, Longs]], t: float) -> list[Scores]:
        """Log-masses of the classes, `[M, C]` each; see `BackendPrediction`."""
        return [class_sums(self._scores[numbers] / t, language).masses for language, numbers in asked]

    def drawn(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Greedy | Temperature, weights: Weights | None
    ) -> tuple[Ints, Doubles]:
        """Tokens and their log-probabilities, `[N]`; see `BackendPrediction`."""
        conditional = self._conditional(rows, positions, weights)
        cdf = np.cumsum(_law(conditional, how), axis=1)
        tokens = (cdf > (uniforms * cdf[:, -1])[:, None]).argmax(1)
        return tokens.astype(np.int32), conditional[np.arange(len(tokens)), tokens]

    def _scored(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        conditional = self._conditional(rows, positions, None)
        return conditional[np.arange(len(tokens)), tokens].astype(np.float32)

    def _compared(self, rows: Ints, positions: Ints, before: NumpyPrediction, before_rows: Ints) -> Floats:
        now, old = self._conditional(rows, positions, None), before._conditional(before_rows, positions, None)
        possible = ~np.isneginf(now)
        gap = np.subtract(now, old, out=np.zeros_like(now), where=possible)  # +inf where it was forbidden
        return np.maximum((np.exp(now) * gap).sum(1), 0).astype(np.float32)

    def _conditional(self, rows: Ints, positions: Ints, weights: Weights | None) -> Doubles:
        """Log-probabilities `[N, V]` at temperature 1, under the prediction's own weights or others."""
        numbers = self._places.numbers(rows, positions)
        if weights is None:
            return self._log_probability[numbers].astype(np.float64)
        weighed = _cooled(_weighed(self._scores[numbers].astype(np.float64), weights, numbers), self.law)
        return reduce(weighed, rows, positions).log_probability.astype(np.float64, copy=False)


def _weighed(scores: Scores, weights: Weights | None, numbers: Longs) -> Scores:
    """`scores [N, V]` with the weights of their tokens' classes added; `numbers [N]` are those of the places."""
    if weights is None:
        return scores
    scores = scores.copy()
    for language, where, weight in weights.at(numbers):
        scores[where] += weight[:, language.classes]
    return scores


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

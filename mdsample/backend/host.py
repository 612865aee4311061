"""The host's half of a prediction: which places it knows, their statistics, and what it refuses to be asked."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mdsample.backend.folds import plan
from mdsample.backend.joint import Places, draw_jointly
from mdsample.backend.languages import Languages, Weights
from mdsample.backend.refusals import (
    known_draw,
    refuse_uniforms,
    refuse_unknown,
    refuse_unseen,
    refuse_unusable,
    require_same_backend,
)
from mdsample.backend.sums import Sums, statistics
from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs, arange64
from mdsample.core.credits import Credits
from mdsample.core.language import Automaton, Span, turns
from mdsample.core.marginals import Marginals
from mdsample.models.denoiser import Prediction
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.guide import Credit, Guide


@final
class WantedPlaces:
    """The N places where `wanted [B, L]`, numbered row by row."""

    def __init__(self, wanted: Bools) -> None:
        """Row and position of each, `rows`, `positions` `[N]` int32."""
        self.rows, self.positions = (index.astype(np.int32) for index in np.nonzero(wanted))
        #: of each place, −1 where nothing is wanted, `[B, L]`
        self.number = np.full(wanted.shape, -1, np.int64)
        self.number[wanted] = np.arange(len(self.rows))

    def numbers(self, rows: Ints, positions: Ints) -> Longs:
        """Which of the N these are, `[n]`; `ValueError` for a place that was not wanted."""
        number = self.number[rows, positions]
        refuse_unseen(number, rows, positions)
        return number

    def marginals(self, token: Ints, log_probability: Floats, second: Floats, entropy: Floats) -> Marginals:
        """Statistics `[B, L]` from those of the N places; the others are unseen."""
        wanted = self.number >= 0
        marginals = Marginals.unseen(len(wanted), wanted.shape[1])
        marginals.token[wanted] = token
        marginals.log_probability[wanted] = log_probability
        marginals.second[wanted] = second
        marginals.entropy[wanted] = entropy
        return marginals


class BackendPrediction(abc.ABC):
    """A prediction whose scores stay where the model is; see `mdsample.models.denoiser.Prediction`.

    A class of this kind sets `_places`, `_marginals`, `_size`, `law`, by `lend` the next two, by `hold` the one after
    them, and then by `settle` the last.
    """

    _places: WantedPlaces
    _marginals: Marginals
    #: number of tokens
    _size: int
    #: what is measured in place of the conditional
    law: Temperature | None
    #: what the rows have earned, this prediction included; `None` unless the guide is `credit`
    _credits: Credits | None
    #: tokens `[N, K]` and what is added to their scores, once restricted to the sets; `None` without credit
    _gains: tuple[Ints, Floats] | None
    #: the slots that hold a language, and the weights that follow from this prediction; `None` without such slots
    _languages: Languages | None
    _weights: Weights | None

    @property
    def marginals(self) -> Marginals:
        """Statistics `[B, L]`; unseen where nothing was wanted."""
        return self._marginals

    @property
    def credits(self) -> Credits | None:
        """What the rows have earned; see `Prediction`."""
        return self._credits

    def draw(self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw) -> tuple[Ints, Floats]:
        """Draws a token at each of N places: the first v with CDF(v) > u · CDF(last).

        On a device the CDF is a sum of whole numbers (`mdsample.backend.fixed_point`); everywhere it never falls and
        ends where it should, so a token of probability zero is never drawn. Several places of one slot that holds a
        language are drawn from their joint law: each given those before it in the order of the arguments. At a plain
        temperature that is done by class: u says which class, and what is left of u which of its tokens. Arguments and
        results as in `Prediction`. Raises `ValueError` for a place that was not wanted, and a draw that is not known.
        """
        refuse_uniforms(uniforms)
        known = known_draw(how)
        number = self._places.numbers(rows, positions)
        languages, weights = self._languages, self._weights
        turn = turns([] if languages is None else languages.spans, rows, positions)
        if languages is None or weights is None or turn.max(initial=0) <= 0:
            token, logged = self.drawn(rows, positions, uniforms, known, None)
        else:
            token, logged = draw_jointly(
                self, languages, weights, Places(rows, positions, uniforms, turn, number), known
            )
        refuse_unusable(logged, rows, positions)
        return token, np.exp(logged).astype(np.float32)

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """Log-probabilities `[N]` of stated tokens; see `Prediction`."""
        refuse_unknown(tokens, self._size)
        self._places.numbers(rows, positions)
        return self._scored(rows, positions, tokens)

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """KL(this prediction ‖ `before`) `[N]`, nats; see `Prediction`. Logits that were not kept are recomputed."""
        require_same_backend(self, before)
        assert isinstance(before, BackendPrediction)
        self._places.numbers(rows, positions)
        before._places.numbers(before_rows, positions)
        return self._compared(rows, positions, before, before_rows)

    def lend(self, guide: Guide, credits: Credits | None) -> None:
        """Finds what credit adds to the scores; called once the best tokens can be asked for.

        `credits`: of the query. `ValueError` if the guide is `credit` and they are missing.
        """
        self._credits = self._gains = None
        if not isinstance(guide, Credit):
            return
        if credits is None:
            raise ValueError("under the guide credit a prediction must be given the credits of its query; pass them on")
        rows, positions = self._places.rows, self._places.positions
        token, top = self.best()
        log_probability = top.astype(np.float32)
        refuse_unusable(log_probability, rows, positions)
        seen = self._places.marginals(token, log_probability, log_probability, log_probability)
        self._credits = guide.earned(credits, seen.token, seen.log_probability)
        self._gains = guide.added(self._credits, rows, positions)

    def hold(self, spans: Sequence[Span]) -> list[tuple[Automaton, Longs]]:
        """Of which languages, and at which places, class sums are needed."""
        languages = Languages(spans, self._places.number) if spans else None
        self._languages = languages if languages is not None and languages.spans else None
        self._weights = None
        return [] if self._languages is None else self._languages.asked

    def settle(self, sums: Sequence[Sums]) -> None:
        """Finds the weights that follow from what `hold` asked for."""
        if self._languages is not None:
            self._weights = self._languages.told(sums)

    def grouped(self, asked: Sequence[tuple[Automaton, Longs]], others: bool) -> tuple[Longs, Longs]:
        """Of each place which language of the `asked` holds it, −1: none, `[N]`; and the places to read.

        These are the places that are asked for, or, with `others`, all.
        """
        group = np.full(len(self._places.rows), -1)
        for index, (_, numbers) in enumerate(asked):
            group[numbers] = index
        return group, arange64(len(group)) if others else np.flatnonzero(group >= 0)

    def unpacked(
        self, asked: Sequence[tuple[Automaton, Longs]], whose: Sequence[tuple[int, Longs]], flat: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], list[Sums]]:
        """What a device has read, from one array: bits of statistics `[4, N]`, and the sums that were `asked` for.

        `flat` has the parts of some groups of places one after the other: `whose` are they, by number of the language
        (or −1) and numbers of the places, ascending for each. Of a language there are the highest score `[n]`, then
        `[n, 5, P]`: token, top, second, rest, mean of each class that has tokens; of others statistics `[4, n]`.
        Raises `ModelError` where the highest score is NaN or +inf.
        """
        count = len(self._places.rows)
        bits, peak = np.zeros((4, count), np.int32), np.zeros(count, np.float32)
        found: list[list[Sums]] = [[] for _ in asked]
        begin = 0
        for index, numbers in whose:
            if index < 0:
                end = begin + 4 * len(numbers)
                bits[:, numbers] = flat[begin:end].reshape(4, -1)
            else:
                language, present = asked[index][0], plan(asked[index][0]).present
                first = begin + len(numbers)
                end = first + 5 * len(numbers) * len(present)
                peak[numbers] = flat[begin:first].view(np.float32)
                token, *parts = flat[first:end].reshape(len(numbers), 5, -1).transpose(1, 0, 2)
                parts = [np.ascontiguousarray(part).view(np.float32) for part in parts]
                found[index].append(Sums.spread(present, language.symbols, token, parts))
            begin = end
        # where nothing may stand, the weights say so with more in it
        refuse_unusable(np.where(np.isneginf(peak), 0, peak), self._places.rows, self._places.positions)
        return bits, [Sums.joined(parts) for parts in found]

    def finish(self, bits: NDArray[np.int32]) -> None:
        """Writes the statistics of places that languages weigh, as they follow from class sums, into `bits [4, N]`."""
        assert self._languages is not None and self._weights is not None
        for (_, numbers), sums in zip(self._languages.asked, self._languages.sums, strict=True):
            for _, where, weight in self._weights.at(numbers):
                found = statistics(sums, weight)
                bits[0, numbers[where]] = found.token
                for line, values in zip(bits[1:], (found.log_probability, found.second, found.entropy), strict=True):
                    line[numbers[where]] = values.astype(np.float32).view(np.int32)

    def marginals_of(self, bits: NDArray[np.int32]) -> Marginals:
        """From token, log-probability, second and entropy of all places, `[4, N]`, the last three bits of float32."""
        return self._places.marginals(bits[0], *(line.view(np.float32) for line in bits[1:]))

    @abc.abstractmethod
    def best(self) -> tuple[Ints, Floats | Doubles]:
        """The most probable token of each place that the sets allow, and its log-probability, `[N]` both.

        Before credit, languages and cooling; the lowest id among equals.
        """

    @abc.abstractmethod
    def masses(self, asked: Sequence[tuple[Automaton, Longs]], t: float) -> Sequence[Floats | Doubles]:
        """Log Σ exp(score / t) over the tokens of each class that the sets allow, `[M, C]`, up to a constant a place.

        One for each language that is asked for, with the numbers `[M]` of the places. Class 0 may be left at −inf.
        Exact however far apart the scores are.
        """

    @abc.abstractmethod
    def drawn(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Greedy | Temperature, weights: Weights | None
    ) -> tuple[Ints, Floats | Doubles]:
        """Tokens and their log-probabilities at temperature 1, `[N]`; not finite where no score is usable.

        `weights` replace the prediction's own.
        """

    @abc.abstractmethod
    def _scored(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """`log_probabilities` of tokens and places that exist."""

    @abc.abstractmethod
    def _compared(self, rows: Ints, positions: Ints, before: Any, before_rows: Ints) -> Floats:
        """`divergence` from a prediction of the same class, at places that exist."""

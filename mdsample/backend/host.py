"""The host's half of a prediction: which places it knows, their statistics, and what it refuses to be asked."""

from __future__ import annotations

import abc
from typing import Any, final

import numpy as np

from mdsample.backend.refusals import (
    known_draw,
    refuse_uniforms,
    refuse_unknown,
    refuse_unseen,
    refuse_unusable,
    require_same_backend,
)
from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs
from mdsample.core.marginals import Marginals
from mdsample.core.restriction import Restriction
from mdsample.models.denoiser import Prediction
from mdsample.policy.draw import Draw, Greedy, Temperature


@final
class WantedPlaces:
    """The N places where `wanted [B, L]`, numbered row by row."""

    def __init__(self, wanted: Bools) -> None:
        """Row and position of each, `rows`, `positions` `[N]` int32."""
        self.rows, self.positions = (index.astype(np.int32) for index in np.nonzero(wanted))
        self._number = np.full(wanted.shape, -1, np.int64)
        self._number[wanted] = np.arange(len(self.rows))

    def numbers(self, rows: Ints, positions: Ints) -> Longs:
        """Which of the N these are, `[n]`; `ValueError` for a place that was not wanted."""
        number = self._number[rows, positions]
        refuse_unseen(number, rows, positions)
        return number

    def marginals(self, token: Ints, log_probability: Floats, second: Floats, entropy: Floats) -> Marginals:
        """Statistics `[B, L]` from those of the N places; the others are unseen."""
        wanted = self._number >= 0
        marginals = Marginals.unseen(len(wanted), wanted.shape[1])
        marginals.token[wanted] = token
        marginals.log_probability[wanted] = log_probability
        marginals.second[wanted] = second
        marginals.entropy[wanted] = entropy
        return marginals


class DevicePrediction(abc.ABC):
    """A prediction whose scores stay on a device; see `mdsample.models.denoiser.Prediction`."""

    _places: WantedPlaces
    _marginals: Marginals
    #: number of tokens
    _size: int

    @property
    def marginals(self) -> Marginals:
        """Statistics `[B, L]`; unseen where nothing was wanted."""
        return self._marginals

    def draw(
        self,
        rows: Ints,
        positions: Ints,
        uniforms: Doubles,
        how: Draw,
        restriction: Restriction | None = None,
    ) -> tuple[Ints, Floats]:
        """Draws a token at each of N places: the first v with CDF(v) > u · CDF(last).

        The CDF is a sum of whole numbers (`mdsample.backend.fixed_point`), so it never falls and ends where it should:
        a token of probability zero is never drawn. Arguments and results as in `Prediction`; `restriction` narrows the
        query's. Raises `ValueError` for a place that was not wanted, a place without an allowed token, and a draw that
        is not known.
        """
        refuse_uniforms(uniforms)
        known = known_draw(how)
        self._places.numbers(rows, positions)
        if isinstance(known, Greedy) and restriction is None:
            # as in the marginals: logits computed again could round to another token
            return self._marginals.token[rows, positions], np.exp(self._marginals.log_probability[rows, positions])
        token, log_probability = self._drawn(rows, positions, uniforms, known, restriction)
        refuse_unusable(log_probability, rows, positions)
        return token, np.exp(log_probability)

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """Log-probabilities `[N]` of stated tokens; see `Prediction`."""
        refuse_unknown(tokens, self._size)
        self._places.numbers(rows, positions)
        return self._scored(rows, positions, tokens)

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """KL(this prediction ‖ `before`) `[N]`, nats; see `Prediction`. Logits that were not kept are recomputed."""
        require_same_backend(self, before)
        assert isinstance(before, DevicePrediction)
        self._places.numbers(rows, positions)
        before._places.numbers(before_rows, positions)
        return self._compared(rows, positions, before, before_rows)

    @abc.abstractmethod
    def _drawn(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Greedy | Temperature, restriction: Restriction | None
    ) -> tuple[Ints, Floats]:
        """Tokens and their log-probabilities at temperature 1, `[N]`; not finite where no score is usable."""

    @abc.abstractmethod
    def _scored(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """`log_probabilities` of tokens and places that exist."""

    @abc.abstractmethod
    def _compared(self, rows: Ints, positions: Ints, before: Any, before_rows: Ints) -> Floats:
        """`divergence` from a prediction of the same class, at places that exist."""

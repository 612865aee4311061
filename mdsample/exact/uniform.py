"""A uniform-state model that is known exactly: what stood in a row some of whose tokens have become random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import attrs
import numpy as np

from mdsample.backend.reference.prediction import NumpyPrediction, guided
from mdsample.core.arrays import Doubles, Ints
from mdsample.exact.toy import IMPOSSIBLE, Toy, every_row
from mdsample.models.denoiser import Query


@final
class Noised(Toy):
    """The posterior of a known joint under uniform noise, by enumeration.

    Each position of a row that the joint deals was replaced, with probability t, by a token drawn evenly from all
    logits (the mask token among them); the model is not told t, which is each of `levels` with the same probability.
    Asked about any position, it says what stood there; that is a guess about written tokens too, which may be noise
    for all it knows. Fixed text it takes as it is.
    """

    def __init__(
        self,
        clean: Toy,
        levels: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        *,
        slots: Mapping[str, int] | None = None,
        given: Mapping[int, int] | None = None,
    ) -> None:
        """`clean`: the joint, small enough for `Toy.table`. Raises `ValueError` for levels outside 0 to 1."""
        if not levels or not all(0 < level <= 1 for level in levels):
            raise ValueError(f"levels of noise are probabilities above 0; got {tuple(levels)}")
        super().__init__(f"noised {clean.name}", clean.length, clean.size, slots=slots or clean.slots, given=given)
        self.about = attrs.evolve(self.about, noise="uniform")
        self.clean, self.levels = clean, tuple(levels)
        self._rows = every_row(clean.length, clean.size)
        self._table = clean.table().reshape(-1)

    def weights(self, tokens: Ints) -> Doubles:
        """Those of the joint: what could stand in blanks if all else were known."""
        return self.clean.weights(tokens)

    def log_prob(self, tokens: Ints) -> Doubles:
        """That of the joint."""
        return self.clean.log_prob(tokens)

    def posterior(self, shown: Ints, fixed: Ints) -> Doubles:
        """Probability of each row of tokens, `[B, V^L]`, given what is shown; `fixed [B, L]`: fixed text, else −1."""
        out = np.zeros((len(shown), len(self._rows)))
        same = self._rows[None] == shown[:, None]
        allowed = ((self._rows[None] == fixed[:, None]) | (fixed < 0)[:, None]).all(2)
        for level in self.levels:
            kept = np.where(same, 1 - level + level / self.vocab_size, level / self.vocab_size)
            out += np.where((fixed < 0)[:, None], kept, 1).prod(2)
        out *= allowed * self._table
        total = out.sum(1, keepdims=True)
        # given something of probability zero, all rows are alike, as everywhere among toys
        return np.divide(out, total, out=np.full_like(out, 1 / len(self._rows)), where=total > 0)

    def predict(self, query: Query) -> NumpyPrediction:
        """The posterior marginals of `query`, in float64."""
        scores = guided([self._noised_scores(query, tokens) for tokens in query.passes(self.size)], query.guide)
        return NumpyPrediction(
            scores, query.wanted, query.restriction, query.guide, tuning=query.tuning, credits=query.credits
        )

    def _noised_scores(self, query: Query, tokens: Ints) -> Doubles:
        shown = self.padded(np.where(query.valid, tokens, np.int32(self.size)))
        fixed = np.full(shown.shape, -1, np.int32)
        known = query.fixed & (tokens < self.size)
        fixed[:, : tokens.shape[1]][known] = tokens[known]
        belief = self.posterior(shown, fixed)
        row, position = np.nonzero(query.wanted)
        scores = np.full((len(row), self.size + 1), -np.inf)
        for token in range(self.size):
            # of each place, all rows of tokens that have this one there
            there = token == self._rows[:, position].T
            with np.errstate(divide="ignore"):
                scores[:, token] = np.log((belief[row] * there).sum(1))
        scores[np.isneginf(scores)] = IMPOSSIBLE
        return scores

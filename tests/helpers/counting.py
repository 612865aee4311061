"""A model that counts."""

from __future__ import annotations

from mdsample.models.denoiser import Denoiser, Prediction, Query


class Counter(Denoiser):
    """Counts the rows of its passes."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.about)
        self.inner, self.rows = inner, 0

    def predict(self, query: Query) -> Prediction:
        self.rows += len(query.tokens)
        return self.inner.predict(query)

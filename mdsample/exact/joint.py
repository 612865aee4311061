"""Distributions that are written out: a table of all rows, or a list of the rows that can occur."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from mdsample.core.arrays import Doubles, Ints
from mdsample.exact.toy import Toy, distribution

#: the most numbers that a batch of comparisons may take at once
_ROOM = 1 << 23


@final
class Joint(Toy):
    """A joint distribution given by its table, an array of shape `(V,) * L`.

    On each axis one entry more is kept: the sum over that axis, at index V. V is also the mask token, so the
    probability of what is known of a row is the entry that the row's own tokens point at.
    """

    def __init__(
        self,
        table: ArrayLike,
        *,
        name: str = "joint",
        slots: Mapping[str, int] | None = None,
        given: Mapping[int, int] | None = None,
    ) -> None:
        """`table` is scaled to sum to 1; `ValueError` if it is not a distribution or its axes differ."""
        array = np.asarray(table, np.float64)
        if array.ndim == 0 or len(set(array.shape)) != 1:
            raise ValueError(f"a joint needs one axis per position, all equally long; got shape {array.shape}")
        sums = distribution(array.reshape(-1), "the table").reshape(array.shape)
        super().__init__(name, array.ndim, array.shape[0], slots=slots, given=given)
        for axis in range(array.ndim):
            sums = np.concatenate([sums, sums.sum(axis, keepdims=True)], axis)
        self._sums = sums.reshape(-1)
        self._stride = (self.size + 1) ** np.arange(self.length - 1, -1, -1, dtype=np.int64)

    def weights(self, tokens: Ints) -> Doubles:
        """The sums that the row points at when one token is replaced; `[B, L, V]`."""
        without = (tokens @ self._stride)[:, None] - tokens * self._stride
        replaced = self._stride[:, None] * np.arange(self.size)
        return self._sums[without[:, :, None] + replaced]

    def log_prob(self, tokens: Ints) -> Doubles:
        """The logarithm of the sum that the row points at, `[B]` nats."""
        with np.errstate(divide="ignore"):
            return np.log(self._sums[tokens @ self._stride])


@final
class Listed(Toy):
    """A distribution given by the rows that can occur, `[S, L]`, and their weights, `[S]` (equal if left out)."""

    def __init__(
        self,
        rows: ArrayLike,
        size: int,
        weights: ArrayLike | None = None,
        *,
        name: str = "listed",
        slots: Mapping[str, int] | None = None,
        given: Mapping[int, int] | None = None,
    ) -> None:
        """`ValueError` if the rows hold anything but tokens 0 … `size` − 1, or the weights are no distribution."""
        array = np.asarray(rows, np.int32)
        if array.ndim != 2 or not array.size or array.min() < 0 or array.max() >= size:
            raise ValueError(f"{name}: rows must be a table [rows, positions] of tokens 0 … {size - 1}")
        super().__init__(name, array.shape[1], size, slots=slots, given=given)
        self._weight = distribution(np.ones(len(array)) if weights is None else weights, f"{name}: weights", 1)
        if len(self._weight) != len(array):
            raise ValueError(f"{name}: {len(array)} rows need as many weights; got {len(self._weight)}")
        self._hot = self._one_hot(array)

    def weights(self, tokens: Ints) -> Doubles:
        """How much weight the rows have that agree with what is known and hold a token at a place; `[B, L, V]`."""
        sums = [self._agreeing(part) @ self._hot for part in self._parts(tokens)]
        return np.concatenate(sums).reshape(len(tokens), self.length, self.size)

    def log_prob(self, tokens: Ints) -> Doubles:
        """The logarithm of the weight of the rows that agree with what is known, `[B]` nats."""
        with np.errstate(divide="ignore"):
            return np.log(np.concatenate([self._agreeing(part).sum(1) for part in self._parts(tokens)]))

    def _agreeing(self, tokens: Ints) -> Doubles:
        """Weight `[B, S]` of each listed row, 0 if it disagrees with what is known."""
        known = (tokens < self.size).sum(1)
        return np.where(self._one_hot(tokens) @ self._hot.T == known[:, None], self._weight, 0.0)

    def _one_hot(self, tokens: Ints) -> Doubles:
        return (tokens[:, :, None] == np.arange(self.size)).reshape(len(tokens), -1).astype(np.float64)

    def _parts(self, tokens: Ints) -> list[Ints]:
        return np.array_split(tokens, max(1, math.ceil(len(tokens) * len(self._weight) / _ROOM)))

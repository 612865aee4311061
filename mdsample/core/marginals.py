"""The few numbers per position that a policy sees of a forward pass."""

from __future__ import annotations

import attrs
import numpy as np

from mdsample.core.arrays import Doubles, Floats, Ints


@attrs.frozen(eq=False)
class Marginals:
    """Statistics of the model's conditional at every position that was looked at; arrays `[B, L]`.

    They describe the softmax at temperature 1, after guidance, bans and constraints, in float32 nats. Positions that
    were not looked at hold token 0, log-probability −inf and entropy +inf, so they lose every comparison.
    """

    #: the most probable token (lowest id among equals), int32
    token: Ints
    #: its log-probability, nats
    log_probability: Floats
    #: the log-probability of the second most probable token, nats (−inf if only one token is possible)
    second: Floats
    #: the entropy, nats
    entropy: Floats

    @property
    def confidence(self) -> Floats:
        """Probability of the most probable token, `[B, L]`."""
        return np.exp(self.log_probability)

    @property
    def margin(self) -> Floats:
        """Top probability minus second probability, `[B, L]` (arXiv 2502.06768, section 4)."""
        return np.exp(self.log_probability) - np.exp(self.second)

    def take(self, rows: Ints | slice, positions: Ints | slice) -> Marginals:
        """The same statistics at chosen places."""
        return Marginals(
            self.token[rows, positions],
            self.log_probability[rows, positions],
            self.second[rows, positions],
            self.entropy[rows, positions],
        )

    def shifted(self, shift: Doubles) -> Marginals:
        """The same with uncertainties e^`shift` as large, as far as probabilities allow; `[B, L]`."""
        doubt, second = 1 - self.confidence.astype(np.float64), np.exp(self.second.astype(np.float64))
        # the most probable token stays so
        grow = np.minimum(np.exp(shift), 1 / np.maximum(doubt + second, 1e-12))
        with np.errstate(divide="ignore"):
            top, next_ = np.log1p(-np.minimum(doubt * grow, 1)), np.log(second * grow)
        entropy = np.where(np.isfinite(self.entropy), self.entropy * grow, np.inf)
        return Marginals(self.token, top.astype(np.float32), next_.astype(np.float32), entropy.astype(np.float32))

    @staticmethod
    def unseen(rows: int, length: int) -> Marginals:
        """Statistics of positions that were not wanted."""
        shape = (rows, length)
        return Marginals(
            np.zeros(shape, np.int32),
            np.full(shape, -np.inf, np.float32),
            np.full(shape, -np.inf, np.float32),
            np.full(shape, np.inf, np.float32),
        )

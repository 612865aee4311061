"""What a forward pass said, kept on the device: hidden states stay there, a few numbers per place come back.

N is the number of places looked at (or drawn at), W the vocabulary's size padded to a multiple of `weights.BLOCK`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mdsample.backend.refusals import refuse_stranger, refuse_unknown, refuse_unseen, refuse_unusable
from mdsample.core.arrays import Bools, Doubles, Floats, Ints
from mdsample.core.marginals import Marginals
from mdsample.core.restriction import Restriction
from mdsample.models.denoiser import Prediction
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample_mlx.device import evaluate, upload
from mdsample_mlx.draw import inverse_cdf, split
from mdsample_mlx.reduce import FLOOR, divergence, reduce
from mdsample_mlx.restrict import restricted

#: float32 logits `[n, W]` are made in chunks of at most this many bytes, so memory does not grow with rows and lengths
CHUNK_BYTES = 64 << 20

#: the float32 logits `[n, W]` of places `[n]` (their numbers, int32)
Logits = Callable[[mx.array], mx.array]


@final
class MlxPrediction:
    """See `mdsample.models.denoiser.Prediction`. Forward pass and statistics are one evaluation, if one chunk."""

    def __init__(self, logits: Logits, width: int, wanted: Bools, restriction: Restriction, device: mx.Device) -> None:
        """`logits`: of the N places where `wanted [B, L]`, row by row, after guidance, before the restriction.

        `width`: W; what lies beyond the vocabulary is ignored. Raises `ValueError` where the restriction allows no
        token, `ModelError` where the logits are not finite; both name row and position.
        """
        self._logits, self._width, self._restriction, self._device = logits, width, restriction, device
        #: restricted logits of all N places, if they were one chunk: draws need not make them again
        self._kept: mx.array | None = None
        rows, positions = (index.astype(np.int32) for index in np.nonzero(wanted))
        self._number = np.full(wanted.shape, -1, np.int32)
        self._number[wanted] = np.arange(len(rows))
        parts: list[mx.array] = []
        with mx.stream(device):
            chunks = list(self._chunks(len(rows)))
            for here in chunks:
                scores = self._scores(rows[here], positions[here], None)
                found = reduce(scores)
                numbers = (found.log_probability, found.second, found.entropy)
                parts.append(mx.stack([found.token, *(x.view(mx.int32) for x in numbers)]))
                if len(chunks) == 1:
                    self._kept = scores
                else:
                    # one after the other, or all chunks would be there at once
                    evaluate(parts[-1])
            token, *bits = _fetch(parts, 4)
        log_probability, second, entropy = (x.view(np.float32) for x in bits)
        refuse_unusable(log_probability, rows, positions)
        self._marginals = Marginals.unseen(*wanted.shape)
        self._marginals.token[wanted] = token
        self._marginals.log_probability[wanted] = log_probability
        self._marginals.second[wanted] = second
        self._marginals.entropy[wanted] = entropy

    @property
    def marginals(self) -> Marginals:
        """Statistics `[B, L]`; unseen where nothing was looked at."""
        return self._marginals

    def draw(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw, restriction: Restriction | None = None
    ) -> tuple[Ints, Floats]:
        """Draws a token at each of N places: the first v with CDF(v) > u · CDF(last).

        The CDF is a sum of whole numbers (`mdsample_mlx.draw`), so it never falls and ends where it should: a token of
        probability zero is never drawn. Arguments and results as in `Prediction`; `restriction` narrows the look's own.
        Raises `ValueError` for a place nobody looked at, a place without an allowed token, and a draw it does not know.
        """
        if not ((uniforms >= 0) & (uniforms < 1)).all():
            raise ValueError("uniforms must lie in [0, 1)")
        if not isinstance(how, Greedy | Temperature):
            raise ValueError(f"the draw {type(how).__name__} is not known here; known: greedy, temperature")
        refuse_unseen(self._number[rows, positions].astype(np.int64), rows, positions)
        if isinstance(how, Greedy) and restriction is None:
            # the look has said it, and logits computed again could round to another token
            return self._marginals.token[rows, positions], np.exp(self._marginals.log_probability[rows, positions])
        parts: list[mx.array] = []
        with mx.stream(self._device):
            shares = upload(split(uniforms))
            chunks = list(self._chunks(len(rows)))
            for here in chunks:
                found = reduce(self._scores(rows[here], positions[here], restriction))
                token, logged = found.token, found.log_probability
                if isinstance(how, Temperature):
                    token = inverse_cdf(found.below, shares[:, here], how)
                    logged = mx.where(mx.isfinite(logged), found.at(token), logged)
                parts.append(mx.stack([token, logged.view(mx.int32)]))
                if len(chunks) > 1:
                    evaluate(parts[-1])
            tokens, bits = _fetch(parts, 2)
        refuse_unusable(bits.view(np.float32), rows, positions)
        return tokens, np.exp(bits.view(np.float32))

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """Log-probabilities `[N]` of stated tokens; see `Prediction`."""
        refuse_unknown(tokens, self._restriction.sets.shape[1])
        refuse_unseen(self._number[rows, positions].astype(np.int64), rows, positions)
        parts: list[mx.array] = []
        with mx.stream(self._device):
            chunks = list(self._chunks(len(rows)))
            for here in chunks:
                found = reduce(self._scores(rows[here], positions[here], None))
                wanted = upload(tokens[here].astype(np.int32))[:, None]
                impossible = mx.take_along_axis(found.below, wanted, axis=1)[:, 0] <= FLOOR
                logged = mx.where(impossible, -mx.inf, found.at(wanted[:, 0]))
                parts.append(logged.view(mx.int32)[None])
                if len(chunks) > 1:
                    evaluate(parts[-1])
            return _fetch(parts, 1)[0].view(np.float32)

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """KL(this look ‖ `before`) `[N]`, nats; see `Prediction`. Logits that were not kept are recomputed."""
        refuse_stranger(self, before)
        assert isinstance(before, MlxPrediction)
        refuse_unseen(self._number[rows, positions].astype(np.int64), rows, positions)
        refuse_unseen(before._number[before_rows, positions].astype(np.int64), before_rows, positions)
        parts: list[mx.array] = []
        with mx.stream(self._device):
            for here in self._chunks(len(rows)):
                now = reduce(self._scores(rows[here], positions[here], None))
                old = reduce(before._scores(before_rows[here], positions[here], None))
                parts.append(divergence(now, old).view(mx.int32)[None])
                evaluate(parts[-1])
            return _fetch(parts, 1)[0].view(np.float32)

    def _chunks(self, count: int) -> Iterator[slice]:
        size = max(1, CHUNK_BYTES // (4 * self._width))
        return (slice(first, min(first + size, count)) for first in range(0, count, size))

    def _scores(self, rows: Ints, positions: Ints, restriction: Restriction | None) -> mx.array:
        """Restricted logits `[n, W]` of these places."""
        number = upload(self._number[rows, positions])
        if self._kept is None:
            scores = restricted(self._logits(number), self._restriction, rows, positions)
        else:
            scores = self._kept[number]
        return scores if restriction is None else restricted(scores, restriction, rows, positions)


def _fetch(parts: list[mx.array], count: int) -> NDArray[np.int32]:
    """`parts` `[count, n]` int32, side by side on the host: where the device is waited for."""
    if not parts:
        return np.zeros((count, 0), np.int32)
    found: Any = mx.concatenate(parts, 1)
    return np.array(found, np.int32)

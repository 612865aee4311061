"""What a forward pass said, kept on the device: hidden states stay there, a few numbers per place come back.

N is the number of places looked at (or drawn at), W the vocabulary's size padded to a multiple of `weights.BLOCK`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mdsample.backend.fixed_point import split
from mdsample.backend.host import DevicePrediction, WantedPlaces
from mdsample.backend.refusals import refuse_unusable
from mdsample.core.arrays import Bools, Doubles, Floats, Ints
from mdsample.core.restriction import Restriction
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import Guide, cooled_law
from mdsample_mlx.device import evaluate, upload, upload_indices
from mdsample_mlx.draw import cooled, inverse_cdf
from mdsample_mlx.reduce import FLOOR, divergence, reduce
from mdsample_mlx.restrict import restricted

#: float32 logits `[n, W]` are made in chunks of at most this many bytes, so memory does not grow with rows and lengths
CHUNK_BYTES = 64 << 20

#: the float32 logits `[n, W]` of places `[n]` (their numbers, int32)
Logits = Callable[[mx.array], mx.array]


@final
class MlxPrediction(DevicePrediction):
    """See `mdsample.models.denoiser.Prediction`. Forward pass and statistics are one evaluation, if one chunk."""

    def __init__(
        self, logits: Logits, width: int, wanted: Bools, restriction: Restriction, guide: Guide, device: mx.Device
    ) -> None:
        """`logits`: of the N places where `wanted [B, L]`, row by row, after classifier-free guidance.

        `restriction` and, after it, a `guide` that cools are applied here. `width`: W; what lies beyond the vocabulary
        is ignored. Raises `ValueError` where the restriction allows no token, `ModelError` where the logits are not
        finite; both name row and position.
        """
        self._logits, self._width, self._restriction, self._device = logits, width, restriction, device
        self._size, self._law = restriction.sets.shape[1], cooled_law(guide)
        #: restricted logits of all N places, if they were one chunk: draws need not make them again
        self._kept: mx.array | None = None
        self._places = WantedPlaces(wanted)
        rows, positions = self._places.rows, self._places.positions

        def statistics(chunk: slice) -> mx.array:
            scores = self._restricted(rows[chunk], positions[chunk], None)
            if len(scores) == len(rows):
                self._kept = scores
            reduced = reduce(self._cooled(scores))
            numbers = (reduced.log_probability, reduced.second, reduced.entropy)
            return mx.stack([reduced.token, *(x.view(mx.int32) for x in numbers)])

        token, *bits = self._by_chunks(len(rows), 4, statistics)
        log_probability, second, entropy = (x.view(np.float32) for x in bits)
        refuse_unusable(log_probability, rows, positions)
        self._marginals = self._places.marginals(token, log_probability, second, entropy)

    def _drawn(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Greedy | Temperature, restriction: Restriction | None
    ) -> tuple[Ints, Floats]:
        shares = upload(split(uniforms))

        def draws(chunk: slice) -> mx.array:
            reduced = reduce(self._scores(rows[chunk], positions[chunk], restriction))
            token, logged = reduced.token, reduced.log_probability
            if isinstance(how, Temperature):
                token = inverse_cdf(reduced.below, shares[:, chunk], how)
                logged = mx.where(mx.isfinite(logged), reduced.at(token), logged)
            return mx.stack([token, logged.view(mx.int32)])

        token, bits = self._by_chunks(len(rows), 2, draws)
        return token, bits.view(np.float32)

    def _scored(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        def scores(chunk: slice) -> mx.array:
            reduced = reduce(self._scores(rows[chunk], positions[chunk], None))
            wanted = upload(tokens[chunk].astype(np.int32))[:, None]
            impossible = mx.take_along_axis(reduced.below, wanted, axis=1)[:, 0] <= FLOOR
            return mx.where(impossible, -mx.inf, reduced.at(wanted[:, 0])).view(mx.int32)[None]

        return self._by_chunks(len(rows), 1, scores)[0].view(np.float32)

    def _compared(self, rows: Ints, positions: Ints, before: MlxPrediction, before_rows: Ints) -> Floats:
        def divergences(chunk: slice) -> mx.array:
            now = reduce(self._scores(rows[chunk], positions[chunk], None))
            old = reduce(before._scores(before_rows[chunk], positions[chunk], None))
            return divergence(now, old).view(mx.int32)[None]

        return self._by_chunks(len(rows), 1, divergences)[0].view(np.float32)

    def _by_chunks(self, count: int, height: int, work: Callable[[slice], mx.array]) -> NDArray[np.int32]:
        """What `work` makes of chunks of `count` places, `[height, n]` int32 each, side by side on the host."""
        size = max(1, CHUNK_BYTES // (4 * self._width))
        parts: list[mx.array] = []
        with mx.stream(self._device):
            for first in range(0, count, size):
                parts.append(work(slice(first, min(first + size, count))))
                if count > size:
                    # one after the other, or all chunks would be there at once
                    evaluate(parts[-1])
            return _fetch(parts, height)

    def _scores(self, rows: Ints, positions: Ints, restriction: Restriction | None) -> mx.array:
        """Restricted and cooled logits `[n, W]` of these places."""
        return self._cooled(self._restricted(rows, positions, restriction))

    def _cooled(self, scores: mx.array) -> mx.array:
        return scores if self._law is None else cooled(scores, self._law)

    def _restricted(self, rows: Ints, positions: Ints, restriction: Restriction | None) -> mx.array:
        number = upload_indices(self._places.numbers(rows, positions))
        if self._kept is None:
            scores = restricted(self._logits(number), self._restriction, rows, positions)
        else:
            scores = self._kept[number]
        return scores if restriction is None else restricted(scores, restriction, rows, positions)


def _fetch(parts: list[mx.array], count: int) -> NDArray[np.int32]:
    """`parts` `[count, n]` int32, side by side on the host: where the device is waited for."""
    if not parts:
        return np.zeros((count, 0), np.int32)
    joined: Any = mx.concatenate(parts, 1)
    return np.array(joined, np.int32)

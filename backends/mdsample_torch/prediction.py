"""What a forward pass said, kept on the device: hidden states stay there, a few numbers per place come back.

N is the number of places looked at (or drawn at), W the vocabulary's size padded to a multiple of `weights.BLOCK`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdsample.backend.fixed_point import split
from mdsample.backend.host import DevicePrediction, WantedPlaces
from mdsample.backend.refusals import refuse_unusable
from mdsample.core.arrays import Bools, Doubles, Floats, Ints
from mdsample.core.restriction import Restriction
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import Guide, cooled_law
from mdsample_torch.device import upload
from mdsample_torch.draw import cooled, inverse_cdf
from mdsample_torch.reduce import FLOOR, divergence_, reduce_
from mdsample_torch.restrict import restrict_
from mdsample_torch.statistics import statistics

#: float32 logits `[n, W]` are made in chunks of at most this many bytes, so memory does not grow with rows and lengths
CHUNK_BYTES = 64 << 20
#: on a CPU a chunk is reduced in parts of this many bytes, which stay in its cache from one pass to the next
CACHE_BYTES = 4 << 20

#: writes the float32 logits of places `[n]` (their numbers, int64, on the device) to `[n, W]`
Logits = Callable[[Tensor, Tensor], None]


@final
class TorchPrediction(DevicePrediction):
    """One forward pass; see `mdsample.models.denoiser.Prediction`."""

    @torch.inference_mode()
    def __init__(
        self,
        logits: Logits,
        size: int,
        width: int,
        wanted: Bools,
        restriction: Restriction,
        guide: Guide,
        device: torch.device,
    ) -> None:
        """`logits`: of the N places where `wanted [B, L]`, row by row, after classifier-free guidance.

        `restriction` and, after it, a `guide` that cools are applied here. `size`: number of tokens; columns from
        there to `width` are ignored. Raises `ValueError` where the restriction allows no token, `ModelError` where the
        logits are not finite; both name row and position.
        """
        self._logits, self._size, self._width, self._device = logits, size, width, device
        self._restriction, self._law = restriction, cooled_law(guide)
        #: what is left of the logits of all N places, if they were one chunk: draws need not make them again
        self._kept: Tensor | None = None
        self._places = WantedPlaces(wanted)
        rows, positions = self._places.rows, self._places.positions
        parts: list[Tensor] = []
        for part, scratch in self._parts(rows, positions, None, keep=True):
            reduced = statistics(part, scratch)
            numbers = (reduced.log_probability, reduced.second, reduced.entropy)
            parts.append(torch.stack([reduced.token.to(torch.int32), *(x.view(torch.int32) for x in numbers)]))
        token, *bits = _fetch(parts, 4)
        log_probability, second, entropy = (x.view(np.float32) for x in bits)
        # where the highest score is not finite, `reduce_` gives it in place of a log-probability
        refuse_unusable(log_probability, rows, positions)
        self._marginals = self._places.marginals(token, log_probability, second, entropy)

    @torch.inference_mode()
    def _drawn(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Greedy | Temperature, restriction: Restriction | None
    ) -> tuple[Ints, Floats]:
        shares = upload(split(uniforms), self._device)
        parts: list[Tensor] = []
        done = 0
        for part, scratch in self._parts(rows, positions, restriction):
            reduced = reduce_(part, scratch)
            token, logged = reduced.token, reduced.log_probability
            if isinstance(how, Temperature):
                token = inverse_cdf(part, shares[:, done : done + len(part)], how)
                logged = torch.where(logged.isfinite(), reduced.at(part, token), logged)
            parts.append(torch.stack([token.to(torch.int32), logged.view(torch.int32)]))
            done += len(part)
        token, bits = _fetch(parts, 2)
        return token, bits.view(np.float32)

    @torch.inference_mode()
    def _scored(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        wanted = upload(tokens.astype(np.int64), self._device)
        parts: list[Tensor] = []
        done = 0
        for part, scratch in self._parts(rows, positions, None):
            reduced = reduce_(part, scratch)
            below = part.gather(1, wanted[done : done + len(part), None])[:, 0]
            logged = torch.where(below <= FLOOR, -torch.inf, below - reduced.log_total)
            parts.append(logged.view(torch.int32)[None])
            done += len(part)
        return _fetch(parts, 1)[0].view(np.float32)

    @torch.inference_mode()
    def _compared(self, rows: Ints, positions: Ints, before: TorchPrediction, before_rows: Ints) -> Floats:
        parts: list[Tensor] = []
        pairs = zip(self._parts(rows, positions, None), before._parts(before_rows, positions, None), strict=True)
        for (now, scratch), (old, spare) in pairs:
            parts.append(divergence_(now, scratch, old, spare).view(torch.int32)[None])
        return _fetch(parts, 1)[0].view(np.float32)

    def _parts(
        self, rows: Ints, positions: Ints, restriction: Restriction | None, keep: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Restricted logits `[n, W]` of these places and as much scratch memory, part by part; both are used again.

        `keep`: these are all N places in order, and what is left of one chunk of them is wanted later.
        """
        size = max(1, CHUNK_BYTES // (4 * self._width))
        at_once = max(1, CACHE_BYTES // (4 * self._width)) if self._device.type == "cpu" else size
        number = upload(self._places.numbers(rows, positions), self._device)
        out = torch.empty((min(size, len(rows)), self._width), dtype=torch.float32, device=self._device)
        scratch = torch.empty((min(at_once, len(rows)), self._width), dtype=torch.float32, device=self._device)
        for first in range(0, len(rows), size):
            span = slice(first, first + size)
            chunk = out[: len(rows[span])]
            if self._kept is None:
                self._logits(number[span], chunk)
                chunk[:, self._size :] = -torch.inf
                restrict_(chunk[:, : self._size], self._restriction, rows[span], positions[span])
            else:
                torch.index_select(self._kept, 0, number[span], out=chunk)
            if restriction is not None:
                restrict_(chunk[:, : self._size], restriction, rows[span], positions[span])
            for part in torch.split(chunk, at_once):
                if self._law is not None:
                    part.copy_(cooled(part, self._law))
                yield part, scratch
        # what was cooled cannot be cooled again after a narrower restriction
        if keep and len(rows) <= size and self._law is None:
            self._kept = out


def _fetch(parts: list[Tensor], count: int) -> NDArray[np.int32]:
    """`parts` `[count, n]` int32, side by side on the host: the only transfer from the device."""
    if not parts:
        return np.zeros((count, 0), np.int32)
    return torch.cat(parts, 1).cpu().numpy()

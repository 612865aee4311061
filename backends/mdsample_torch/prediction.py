"""What a forward pass said, kept on the device: hidden states stay there, a few numbers per place come back.

N is the number of places looked at (or drawn at), W the vocabulary's size padded to a multiple of `weights.BLOCK`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdsample.backend.conditioning import Kept
from mdsample.backend.fixed_point import split
from mdsample.backend.host import BackendPrediction, WantedPlaces
from mdsample.backend.languages import Weights
from mdsample.backend.refusals import refuse_unusable
from mdsample.backend.sums import Sums
from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs, arange64
from mdsample.core.credits import Credits
from mdsample.core.language import Automaton
from mdsample.core.restriction import Restriction
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import Credit, Guide, cooled_law
from mdsample_torch.classes import class_table, weigh_
from mdsample_torch.device import upload
from mdsample_torch.draw import cooled, inverse_cdf
from mdsample_torch.reduce import FLOOR, Reduced, divergence_, reduce_
from mdsample_torch.restrict import restrict_
from mdsample_torch.statistics import statistics

#: float32 logits `[n, W]` are made in chunks of at most this many bytes, so memory does not grow with rows and lengths
CHUNK_BYTES = 64 << 20
#: where a slot holds a language or rows have credit, logits are read twice: so many chunks are kept, not made again
READ_TWICE_CHUNKS = 4
#: the same on a CPU for self-conditioned models; on a GPU to read the embedding more often would cost more than memory
SOFT_BYTES = 8 << 20
#: on a CPU a chunk is reduced in parts of this many bytes, which stay in its cache from one pass to the next
CACHE_BYTES = 4 << 20

#: the mean embeddings `[n, d]` of tokens with these probabilities `[n, W]`, which it may overwrite
Soften = Callable[[Tensor], Tensor]

#: writes the float32 logits of places `[n]` (their numbers, int64, on the device) to `[n, W]`
Logits = Callable[[Tensor, Tensor], None]


@final
class TorchPrediction(BackendPrediction):
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
        *,
        soften: Soften | None = None,
        credits: Credits | None = None,
    ) -> None:
        """`logits`: of the N places where `wanted [B, L]`, row by row, after classifier-free guidance.

        `restriction` and, after it, a `guide` that cools or that adds what the query's `credits` say are applied here.
        `size`: number of tokens; columns from there to `width` are ignored. Raises `ValueError` where the restriction
        allows no token, `ModelError` where the logits are not finite; both name row and position. `soften`: of a
        self-conditioned model that is to remember.
        """
        self._logits, self._size, self._width, self._device = logits, size, width, device
        self._restriction, self.law = restriction, cooled_law(guide)
        #: what is left of the logits of all N places, restricted to the sets: draws need not make them again
        self._kept: Tensor | None = None
        self._soften = soften
        self._places = WantedPlaces(wanted)
        rows, positions = self._places.rows, self._places.positions
        # where every token's law is needed, logits are read again once the weights are known
        again = self.law is not None or soften is not None
        twice = isinstance(guide, Credit) or (again and bool(restriction.spans))
        if twice and 4 * len(rows) * width <= READ_TWICE_CHUNKS * CHUNK_BYTES:
            self._kept = self._whole(arange64(len(rows)))
        self.lend(guide, credits)
        asked = self.hold(restriction.spans)
        soft: list[Tensor] = []
        if asked and not again:
            bits, sums = self._read(asked, others=True)
            self.settle(sums)
            self.finish(bits)
        else:
            if asked:
                self.settle(self._read(asked, others=False)[1])
            bits = self._weighed(soft)
        # where the highest score is not finite, `reduce_` gives it in place of a log-probability
        refuse_unusable(bits[1].view(np.float32), rows, positions)
        self._marginals = self.marginals_of(bits)
        self.memories = Kept(torch.cat(soft), self._places).memories() if soft else []

    def _weighed(self, soft: list[Tensor]) -> NDArray[np.int32]:
        """Bits of the statistics of all places, `[4, N]`; soft embeddings go to `soft`, if the model is to remember."""
        parts: list[Tensor] = []
        for part, scratch in self._parts(arange64(len(self._places.rows)), self._weights, keep=True):
            if self._soften is None:
                reduced = statistics(part, scratch)
            else:
                reduced = reduce_(part, scratch)
                shares = torch.sub(part, reduced.log_total[:, None], out=scratch[: len(part)]).exp_()
                soft.append(self._soften(shares))
            parts.append(_bits(reduced))
        return _fetch(parts, 4)

    def _read(self, asked: Sequence[tuple[Automaton, Longs]], others: bool) -> tuple[NDArray[np.int32], list[Sums]]:
        """Class sums of the places that are asked for, from one turn through the logits.

        With `others`, also the bits of the statistics of all other places, `[4, N]`.
        """
        group, numbers = self.grouped(asked, others)
        parts: list[Tensor] = []
        whose: list[tuple[int, Longs]] = []
        for first, part, scratch in self._restricted(numbers, keep=others):
            own = group[numbers[first : first + len(part)]]
            for index in sorted(set[int](own.tolist())):
                where = np.flatnonzero(own == index)
                some = part if len(where) == len(part) else part[upload(where, self._device)]
                if index < 0:
                    parts.append(_bits(statistics(some, scratch)).flatten())
                else:
                    table = class_table(asked[index][0], self._width, self._device)
                    parts += [some.amax(1).view(torch.int32), table.sums(some).flatten()]
                whose.append((index, numbers[first + where]))
        return self.unpacked(asked, whose, _fetch([part[None] for part in parts], 1)[0])

    @torch.inference_mode()
    def best(self) -> tuple[Ints, Floats]:
        """The most probable tokens and their log-probabilities, `[N]`; see `BackendPrediction`."""
        parts: list[Tensor] = []
        for _, part, scratch in self._restricted(arange64(len(self._places.rows))):
            reduced = statistics(part, scratch)
            parts.append(torch.stack([reduced.token.to(torch.int32), reduced.log_probability.view(torch.int32)]))
        token, bits = _fetch(parts, 2)
        return token, bits.view(np.float32)

    @torch.inference_mode()
    def masses(self, asked: Sequence[tuple[Automaton, Longs]], t: float) -> list[Floats]:
        """Log-masses of the classes, `[M, C]` each; see `BackendPrediction`."""
        parts: list[Tensor] = []
        for language, numbers in asked:
            table = class_table(language, self._width, self._device)
            parts += [table.masses(part, t).view(torch.int32).view(1, -1) for _, part, _ in self._restricted(numbers)]
        found = _fetch(parts, 1)[0].view(np.float32)
        edges = np.cumsum([language.symbols * len(numbers) for language, numbers in asked])
        pieces = np.split(found, edges[:-1])
        return [piece.reshape(-1, of.symbols) for piece, (of, _) in zip(pieces, asked, strict=True)]

    @torch.inference_mode()
    def drawn(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Greedy | Temperature, weights: Weights | None
    ) -> tuple[Ints, Floats]:
        """Tokens and their log-probabilities, `[N]`; see `BackendPrediction`."""
        if isinstance(how, Greedy) and weights is None:
            # as in the marginals: logits computed again could round to another token
            return self._marginals.token[rows, positions], self._marginals.log_probability[rows, positions]
        numbers = self._places.numbers(rows, positions)
        shares = upload(split(uniforms), self._device)
        parts: list[Tensor] = []
        done = 0
        for part, scratch in self._parts(numbers, self._weights if weights is None else weights):
            reduced = reduce_(part, scratch)
            token, logged = reduced.token, reduced.log_probability
            if isinstance(how, Temperature):
                token = inverse_cdf(part, shares[:, done : done + len(part)], how, scratch)
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
        for part, scratch in self._parts(self._places.numbers(rows, positions), self._weights):
            reduced = reduce_(part, scratch)
            below = part.gather(1, wanted[done : done + len(part), None])[:, 0]
            logged = torch.where(below <= FLOOR, -torch.inf, below - reduced.log_total)
            parts.append(logged.view(torch.int32)[None])
            done += len(part)
        return _fetch(parts, 1)[0].view(np.float32)

    @torch.inference_mode()
    def _compared(self, rows: Ints, positions: Ints, before: TorchPrediction, before_rows: Ints) -> Floats:
        parts: list[Tensor] = []
        ours = self._parts(self._places.numbers(rows, positions), self._weights)
        theirs = before._parts(before._places.numbers(before_rows, positions), before._weights)
        for (now, scratch), (old, spare) in zip(ours, theirs, strict=True):
            parts.append(divergence_(now, scratch, old, spare).view(torch.int32)[None])
        return _fetch(parts, 1)[0].view(np.float32)

    def _parts(self, numbers: Longs, weights: Weights | None, keep: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Weighed and cooled logits `[n, W]` of these places and as much scratch memory, part by part."""
        for first, part, scratch in self._restricted(numbers, keep):
            if weights is not None:
                weigh_(part, scratch, weights, numbers[first : first + len(part)])
            if self.law is not None:
                part.copy_(cooled(part, self.law))
            yield part, scratch

    def _restricted(self, numbers: Longs, keep: bool = False) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Restricted logits `[n, W]` of these places, credit added, part by part: where it begins, and scratch memory.

        The memory of both is used again. `keep`: these are all N places in order, and what is left of one chunk of
        them is wanted later.
        """
        cpu = self._device.type == "cpu"
        most = CHUNK_BYTES if self._soften is None or not cpu else min(SOFT_BYTES, CHUNK_BYTES)
        size = max(1, most // (4 * self._width))
        # all of the embedding is read for each part that is softened, so such parts are whole chunks
        cached = cpu and not (keep and self._soften is not None)
        at_once = max(1, CACHE_BYTES // (4 * self._width)) if cached else size
        number = upload(numbers, self._device)
        room = min(size if self._kept is None else at_once, len(numbers))
        out = torch.empty((room, self._width), dtype=torch.float32, device=self._device)
        scratch = torch.empty((min(at_once, len(numbers)), self._width), dtype=torch.float32, device=self._device)
        for first in range(0, len(numbers), size):
            span = slice(first, first + size)
            kept, chunk = self._kept, out
            if kept is None:
                chunk = self._made(numbers[span], number[span], out)
            for begin in range(first, min(first + size, len(numbers)), at_once):
                end = min(begin + at_once, first + size, len(numbers))
                if kept is None:
                    part = chunk[begin - first : end - first]
                else:
                    part = out[: end - begin]
                    torch.index_select(kept, 0, number[begin:end], out=part)
                if self._gains is not None:
                    token, gain = (upload(x[numbers[begin:end]], self._device) for x in self._gains)
                    part.scatter_add_(1, token.long(), gain)
                yield begin, part, scratch
        # what was weighed, cooled or given credit cannot be so again
        if keep and len(numbers) <= size and self._kept is None:
            plain = self._weights is None and self.law is None and self._gains is None
            self._kept = out if plain else None

    def _whole(self, numbers: Longs) -> Tensor:
        """Restricted logits `[N, W]` of all places."""
        out = torch.empty((len(numbers), self._width), dtype=torch.float32, device=self._device)
        size, number = max(1, CHUNK_BYTES // (4 * self._width)), upload(numbers, self._device)
        for first in range(0, len(numbers), size):
            self._made(numbers[first : first + size], number[first : first + size], out[first : first + size])
        return out

    def _made(self, numbers: Longs, number: Tensor, out: Tensor) -> Tensor:
        """Logits of one chunk from the model, restricted; the first lines of `out`. `number`: on the device."""
        chunk = out[: len(numbers)]
        self._logits(number, chunk)
        chunk[:, self._size :] = -torch.inf
        rows, positions = self._places.rows[numbers], self._places.positions[numbers]
        restrict_(chunk[:, : self._size], self._restriction, rows, positions)
        return chunk


def _bits(reduced: Reduced) -> Tensor:
    """Token, log-probability, second and entropy, `[4, n]` int32."""
    numbers = (reduced.log_probability, reduced.second, reduced.entropy)
    return torch.stack([reduced.token.to(torch.int32), *(x.view(torch.int32) for x in numbers)])


def _fetch(parts: list[Tensor], count: int) -> NDArray[np.int32]:
    """`parts` `[count, n]` int32, side by side on the host: the only transfer from the device."""
    if not parts:
        return np.zeros((count, 0), np.int32)
    return torch.cat(parts, 1).cpu().numpy()

"""What a forward pass said, kept on the device: hidden states stay there, a few numbers per place come back.

N is the number of places looked at (or drawn at), W the vocabulary's size padded to a multiple of `weights.BLOCK`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

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
from mdsample_mlx.classes import class_table, weighed
from mdsample_mlx.device import evaluate, upload, upload_indices
from mdsample_mlx.draw import cooled, inverse_cdf
from mdsample_mlx.reduce import FLOOR, Reduced, divergence, reduce
from mdsample_mlx.restrict import restricted

#: float32 logits `[n, W]` are made in chunks of at most this many bytes, so memory does not grow with rows and lengths
CHUNK_BYTES = 64 << 20
#: where a slot holds a language or rows have credit, logits are read twice: so many chunks are kept, not made again
READ_TWICE_CHUNKS = 4

#: the mean embeddings `[n, d]` of tokens with these probabilities `[n, W]`
Soften = Callable[[mx.array], mx.array]

#: the float32 logits `[n, W]` of places `[n]` (their numbers, int32)
Logits = Callable[[mx.array], mx.array]


@final
class MlxPrediction(BackendPrediction):
    """See `mdsample.models.denoiser.Prediction`. Forward pass and statistics are one evaluation, if one chunk."""

    def __init__(
        self,
        logits: Logits,
        width: int,
        wanted: Bools,
        restriction: Restriction,
        guide: Guide,
        device: mx.Device,
        *,
        soften: Soften | None = None,
        credits: Credits | None = None,
    ) -> None:
        """`logits`: of the N places where `wanted [B, L]`, row by row, after classifier-free guidance.

        `restriction` and, after it, a `guide` that cools or that adds what the query's `credits` say are applied here.
        `width`: W; what lies beyond the vocabulary is ignored. Raises `ValueError` where the restriction allows no
        token, `ModelError` where the logits are not finite; both name row and position. `soften`: of a self-conditioned
        model that is to remember.
        """
        self._logits, self._width, self._restriction, self._device = logits, width, restriction, device
        self._size, self.law = restriction.sets.shape[1], cooled_law(guide)
        #: restricted logits of all N places: draws need not make them again
        self._kept: mx.array | None = None
        self._places = WantedPlaces(wanted)
        rows, positions = self._places.rows, self._places.positions
        self._gains = None
        # where every token's law is needed, logits are read again once the weights are known
        again = self.law is not None or soften is not None
        twice = isinstance(guide, Credit) or (again and bool(restriction.spans))
        if twice and 4 * len(rows) * width <= READ_TWICE_CHUNKS * CHUNK_BYTES:
            with mx.stream(device):
                self._kept = self._restricted(arange64(len(rows)))
        self.lend(guide, credits)
        asked = self.hold(restriction.spans)
        soft: list[mx.array] = []
        if asked and not again:
            bits, sums = self._read(asked, others=True)
            self.settle(sums)
            self.finish(bits)
        else:
            if asked:
                self.settle(self._read(asked, others=False)[1])
            bits = self._reduced(soften, soft)
        refuse_unusable(bits[1].view(np.float32), rows, positions)
        self._marginals = self.marginals_of(bits)
        with mx.stream(device):
            self.memories = Kept(mx.concatenate(soft), self._places).memories() if soft else []

    def _reduced(self, soften: Soften | None, soft: list[mx.array]) -> NDArray[np.int32]:
        """Bits of the statistics of all places, `[4, N]`; soft embeddings go to `soft`, if the model is to remember."""
        every = arange64(len(self._places.rows))

        def statistics(chunk: slice) -> mx.array:
            scores = self._restricted(every[chunk])
            if len(scores) == len(every) and self._gains is None:
                self._kept = scores
            reduced = reduce(self._weighed(scores, every[chunk], self._weights))
            if soften is not None:
                soft.append(soften(mx.exp(reduced.below - reduced.log_total[:, None])))
                # before the logits that it is made of are let go
                evaluate(soft[-1])
            return _bits(reduced)

        return self._by_chunks(len(every), 4, statistics)

    def _read(self, asked: Sequence[tuple[Automaton, Longs]], others: bool) -> tuple[NDArray[np.int32], list[Sums]]:
        """Class sums of the places that are asked for, from one turn through the logits.

        With `others`, also the bits of the statistics of all other places, `[4, N]`.
        """
        group, numbers = self.grouped(asked, others)
        whose: list[tuple[int, Longs]] = []

        def read(chunk: slice) -> mx.array:
            at = numbers[chunk]
            scores = self._restricted(at)
            if len(at) == len(group) and self._gains is None:
                self._kept = scores
            parts: list[mx.array] = []
            for index in sorted(set[int](group[at].tolist())):
                where = np.flatnonzero(group[at] == index)
                some = scores if len(where) == len(at) else scores[upload_indices(where)]
                if index < 0:
                    parts.append(mx.flatten(_bits(reduce(some))))
                else:
                    table = class_table(asked[index][0], self._width)
                    parts += [some.max(1).view(mx.int32), mx.flatten(table.sums(some))]
                whose.append((index, at[where]))
            return mx.concatenate(parts)[None]

        return self.unpacked(asked, whose, self._by_chunks(len(numbers), 1, read)[0])

    def best(self) -> tuple[Ints, Floats]:
        """The most probable tokens and their log-probabilities, `[N]`; see `BackendPrediction`."""
        every = arange64(len(self._places.rows))

        def tops(chunk: slice) -> mx.array:
            reduced = reduce(self._restricted(every[chunk]))
            return mx.stack([reduced.token, reduced.log_probability.view(mx.int32)])

        token, bits = self._by_chunks(len(every), 2, tops)
        return token, bits.view(np.float32)

    def masses(self, asked: Sequence[tuple[Automaton, Longs]], t: float) -> list[Floats]:
        """Log-masses of the classes, `[M, C]` each; see `BackendPrediction`."""

        def masses(language: Automaton, numbers: Longs) -> mx.array:
            found = class_table(language, self._width).masses(self._restricted(numbers), t)
            return mx.flatten(found.view(mx.int32))[None]

        parts: list[mx.array] = []
        with mx.stream(self._device):
            for language, numbers in asked:
                parts += self._chunks(len(numbers), lambda chunk, of=language, at=numbers: masses(of, at[chunk]))
            found = _fetch(parts, 1)[0].view(np.float32)
        edges = np.cumsum([language.symbols * len(numbers) for language, numbers in asked])
        pieces = np.split(found, edges[:-1])
        return [piece.reshape(-1, of.symbols) for piece, (of, _) in zip(pieces, asked, strict=True)]

    def drawn(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Greedy | Temperature, weights: Weights | None
    ) -> tuple[Ints, Floats]:
        """Tokens and their log-probabilities, `[N]`; see `BackendPrediction`."""
        if isinstance(how, Greedy) and weights is None:
            # as in the marginals: logits computed again could round to another token
            return self._marginals.token[rows, positions], self._marginals.log_probability[rows, positions]
        numbers = self._places.numbers(rows, positions)
        shares = upload(split(uniforms))

        def draws(chunk: slice) -> mx.array:
            reduced = reduce(self._scores(numbers[chunk], self._weights if weights is None else weights))
            token, logged = reduced.token, reduced.log_probability
            if isinstance(how, Temperature):
                token = inverse_cdf(reduced.below, shares[:, chunk], how)
                logged = mx.where(mx.isfinite(logged), reduced.at(token), logged)
            return mx.stack([token, logged.view(mx.int32)])

        token, bits = self._by_chunks(len(rows), 2, draws)
        return token, bits.view(np.float32)

    def _scored(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        numbers = self._places.numbers(rows, positions)

        def scores(chunk: slice) -> mx.array:
            reduced = reduce(self._scores(numbers[chunk], self._weights))
            wanted = upload(tokens[chunk].astype(np.int32))[:, None]
            impossible = mx.take_along_axis(reduced.below, wanted, axis=1)[:, 0] <= FLOOR
            return mx.where(impossible, -mx.inf, reduced.at(wanted[:, 0])).view(mx.int32)[None]

        return self._by_chunks(len(rows), 1, scores)[0].view(np.float32)

    def _compared(self, rows: Ints, positions: Ints, before: MlxPrediction, before_rows: Ints) -> Floats:
        ours = self._places.numbers(rows, positions)
        theirs = before._places.numbers(before_rows, positions)

        def divergences(chunk: slice) -> mx.array:
            now = reduce(self._scores(ours[chunk], self._weights))
            old = reduce(before._scores(theirs[chunk], before._weights))
            return divergence(now, old).view(mx.int32)[None]

        return self._by_chunks(len(rows), 1, divergences)[0].view(np.float32)

    def _by_chunks(self, count: int, height: int, work: Callable[[slice], mx.array]) -> NDArray[np.int32]:
        """What `work` makes of chunks of `count` places, `[height, n]` int32 each, side by side on the host."""
        with mx.stream(self._device):
            return _fetch(self._chunks(count, work), height)

    def _chunks(self, count: int, work: Callable[[slice], mx.array]) -> list[mx.array]:
        size = max(1, CHUNK_BYTES // (4 * self._width))
        parts: list[mx.array] = []
        for first in range(0, count, size):
            parts.append(work(slice(first, min(first + size, count))))
            if count > size:
                # one after the other, or all chunks would be there at once
                evaluate(parts[-1])
        return parts

    def _scores(self, numbers: Longs, weights: Weights | None) -> mx.array:
        """Weighed and cooled logits `[n, W]` of these places."""
        return self._weighed(self._restricted(numbers), numbers, weights)

    def _weighed(self, scores: mx.array, numbers: Longs, weights: Weights | None) -> mx.array:
        if weights is not None:
            scores = weighed(scores, weights, numbers)
        return scores if self.law is None else cooled(scores, self.law)

    def _restricted(self, numbers: Longs) -> mx.array:
        """Logits `[n, W]` of these places, restricted to the sets, credit added."""
        rows, positions = self._places.rows[numbers], self._places.positions[numbers]
        if self._kept is not None:
            scores = self._kept[upload_indices(numbers)]
        else:
            scores = restricted(self._logits(upload_indices(numbers)), self._restriction, rows, positions)
        if self._gains is None:
            return scores
        token, gain = (upload(values[numbers]) for values in self._gains)
        added: Any = scores.at[mx.arange(len(numbers))[:, None], token]
        return added.add(gain)


def _bits(reduced: Reduced) -> mx.array:
    """Token, log-probability, second and entropy, `[4, n]` int32."""
    numbers = (reduced.log_probability, reduced.second, reduced.entropy)
    return mx.stack([reduced.token, *(x.view(mx.int32) for x in numbers)])


def _fetch(parts: list[mx.array], count: int) -> NDArray[np.int32]:
    """`parts` `[count, n]` int32, side by side on the host: where the device is waited for."""
    if not parts:
        return np.zeros((count, 0), np.int32)
    joined: Any = mx.concatenate(parts, 1)
    return np.array(joined, np.int32)

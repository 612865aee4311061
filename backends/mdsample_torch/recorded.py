"""CUDA graphs: what the GPU is told in one pass, recorded, so that the next pass of the same shape is told in one word.

A small batch is done sooner than Python can ask for its thousand kernels. Recorded are embedding and all layers but the
last, whose queries are other in every look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import attrs
import torch
from torch import Tensor

from mdsample.backend.places import PackedBatch

#: keys and values of every layer; `None`: nothing is kept
Stores = list[tuple[Tensor, Tensor]] | None
#: what is recorded: from places and stores to hidden states, cosines and sines
Pass = Callable[[PackedBatch[Tensor], Stores], tuple[Tensor, ...]]
#: runs something and records it: what does it again, and the tensors in which its results then stand
Record = Callable[[Callable[[], tuple[Tensor, ...]]], tuple[Callable[[], None], tuple[Tensor, ...]]]
#: recordings that are kept, each with memory of its own
RECORDINGS = 32


@attrs.frozen(eq=False)
class _Recording:
    #: where a recording reads what differs from pass to pass
    at: PackedBatch[Tensor]
    #: it writes into these, so they must live as long as it does
    stores: Stores
    replay: Callable[[], None]
    results: tuple[Tensor, ...]


@final
class Recorder:
    """A pass that is recorded when the same shapes come a second time, and played from then on.

    Results stand in the recording's own memory until the next pass.
    """

    def __init__(self, run: Pass, record: Record) -> None:
        """`record`: `record_cuda`, on a GPU."""
        self._run, self._record = run, record
        #: by shapes and stores; `None`: seen once
        self._made: dict[tuple[object, object], _Recording | None] = {}
        #: the stores of the latest passes, the latest first: two, since guidance has two
        self._latest: list[object] = []

    def __call__(self, at: PackedBatch[Tensor], stores: Stores) -> tuple[Tensor, ...]:
        """As `run`; `at` as `bucketed` makes it."""
        kept = None if stores is None else tuple(x.data_ptr() for pair in stores for x in pair)
        key = (at.shape, *(x.shape for x in _inputs(at))), kept
        if kept not in self._latest[:1]:
            self._latest = [kept, *(other for other in self._latest if other != kept)][:2]
            # a recording holds its stores: drop those that will not be used again
            self._made = {of: entry for of, entry in self._made.items() if of[1] is None or of[1] in self._latest}
        if key not in self._made:
            # stores that change in every pass would be recorded in vain
            self._made[key] = None
            if len(self._made) > RECORDINGS:
                del self._made[next(iter(self._made))]
            return self._run(at, stores)
        recording = self._made[key]
        if recording is None:
            own = _copied(at)
            recording = self._made[key] = _Recording(own, stores, *self._record(lambda: self._run(own, stores)))
        for to, new in zip(_inputs(recording.at), _inputs(at), strict=True):
            to.copy_(new)
        recording.replay()
        return recording.results


def record_cuda(work: Callable[[], tuple[Tensor, ...]]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    """By a CUDA graph. `work` runs twice before, so that nothing is compiled or set up while it is recorded."""
    own, current = torch.cuda.Stream(), torch.cuda.current_stream()
    own.wait_stream(current)
    with torch.cuda.stream(own):
        for _ in range(2):
            work()
    current.wait_stream(own)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph.replay, results


def _inputs(at: PackedBatch[Tensor]) -> tuple[Tensor, ...]:
    """What differs from pass to pass."""
    return tuple(x for x in (at.tokens, at.positions, at.cells, at.every.mask) if x is not None)


def _copied(at: PackedBatch[Tensor]) -> PackedBatch[Tensor]:
    mask = None if at.every.mask is None else at.every.mask.clone()
    return attrs.evolve(
        at,
        tokens=at.tokens.clone(),
        positions=at.positions.clone(),
        cells=None if at.cells is None else at.cells.clone(),
        every=attrs.evolve(at.every, mask=mask),
    )

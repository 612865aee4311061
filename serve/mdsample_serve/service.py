"""Service: the models that a server has, and how a request gets to one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import attrs

from mdsample.constraints.compile import within_seconds
from mdsample.errors import MdsampleError
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.film import Pieces
from mdsample_serve.answering import Answering
from mdsample_serve.asking import Ask
from mdsample_serve.errors import Refused, wrong
from mdsample_serve.limits import Limits
from mdsample_serve.metrics import Metrics
from mdsample_serve.worker import Worker


@attrs.frozen(eq=False, slots=False)
class Hosted:
    """A model under the name that clients know it by."""

    name: str
    worker: Worker
    #: as records say it, of a model from the hub
    revision: str | None = None
    #: when the server began, seconds
    created: int = attrs.field(factory=lambda: int(time.time()))

    @cached_property
    def pieces(self) -> Pieces:
        """The texts of its tokens."""
        return Pieces(self.worker.model.tokenizer)


class Service:
    """What handlers share."""

    def __init__(self, models: Mapping[str, Hosted], limits: Limits, metrics: Metrics) -> None:
        """`models`: by name, the default first."""
        self.models, self.limits, self.metrics = models, limits, metrics
        self.stopping = False
        # expressions of strangers may take seconds, and others must not wait for them
        self._quick = ThreadPoolExecutor(2, "mdsample-ready")
        self._slow = ThreadPoolExecutor(1, "mdsample-compile")

    def hosted(self, name: str | None) -> Hosted:
        """The model of a name, by default the first; `Refused` if there is none."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            near = get_close_matches(name[:80], self.models, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.models)}"
            raise Refused(404, f"there is no model {name[:80]!r}; {hint}", param="model", code="model_not_found")
        return self.models[name]

    @asynccontextmanager
    async def answering(
        self,
        hosted: Hosted,
        make: Callable[[Denoiser], Ask],
        *,
        rows: int,
        slow: bool,
        steps: bool = False,
        looks: bool = False,
    ) -> AsyncGenerator[Answering]:
        """A request ready for its worker, in whose queue it has room for `rows` until it is over.

        `slow`: it may have expressions to compile. `steps`, `looks`: as in `Answering`.
        """
        worker = hosted.worker
        model = worker.model
        if rows > self.limits.rows:
            raise wrong(f"the request asks for {rows:,} rows; {self.limits.rows} are the most at once", "n")
        worker.reserve(rows)
        loop = asyncio.get_running_loop()

        def ready() -> Answering:
            with within_seconds(self.limits.compile):
                ask = make(model)
                answering = Answering(worker, ask, loop, steps=steps, looks=looks, limits=self.limits)
                answering.make_ready()
            return answering

        future = (self._slow if slow else self._quick).submit(ready)
        try:
            answering: Answering = await _result(future)
            try:
                yield answering
            finally:
                answering.leave()
        finally:
            # a thread that still works on it keeps its place in the queue
            future.add_done_callback(lambda _: worker.release(rows))

    async def exclusively(self, hosted: Hosted, function: Callable[[Denoiser], Any]) -> Any:
        """What a function makes of the model, between two passes."""
        worker = hosted.worker
        assert worker.model is not None
        return await _queued(worker, lambda: worker.call(function))

    async def compiled(self, hosted: Hosted, function: Callable[[], Any]) -> Any:
        """What a function makes that has expressions to compile; it is in the model's queue until it is done."""

        def limited() -> Any:
            with within_seconds(self.limits.compile):
                return function()

        return await _queued(hosted.worker, lambda: self._slow.submit(limited))

    def stop(self) -> None:
        """Takes nothing new."""
        self.stopping = True
        for hosted in self.models.values():
            hosted.worker.refuse()

    def close(self) -> None:
        """Ends the threads, when what runs is done."""
        for hosted in self.models.values():
            hosted.worker.end()
        for pool in (self._quick, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)


async def _queued(worker: Worker, begin: Callable[[], Future[Any]]) -> Any:
    """What a thread gives that begins now; until it is done it has a place in the queue."""
    worker.reserve(1)
    future = begin()
    try:
        return await _result(future)
    finally:
        future.add_done_callback(lambda _: worker.release(1))


async def _result(future: Future[Any]) -> Any:
    """What a thread gives; the library's errors as refusals."""
    try:
        return await asyncio.wrap_future(future)
    except MdsampleError as fault:
        raise wrong(str(fault)) from fault
    except asyncio.CancelledError:
        future.cancel()
        raise

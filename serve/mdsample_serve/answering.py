"""Answering: one request on its way through the worker, as its handler sees it.

The worker's thread tells what happens to the rows; the handler, in the event loop, takes it as a stream of `News`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, final

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints
from mdsample.models.denoiser import Prediction, Query
from mdsample.policy.draw import Temperature
from mdsample.sampling import life
from mdsample.sampling.ready import Watch
from mdsample.sampling.result import Row
from mdsample.sampling.state import Event, State
from mdsample_serve.asking import Ask, fitting
from mdsample_serve.errors import Refused, wrong
from mdsample_serve.limits import Limits
from mdsample_serve.worker import Running, Worker


@attrs.frozen(eq=False)
class Look:
    """What was predicted for rows of a canvas in one pass: N places."""

    row: Ints
    position: Ints
    token: Ints
    #: of the most probable token, and of the second one
    probability: np.ndarray
    second: np.ndarray
    #: the second most probable tokens; −1 where that is not known
    runner: Ints
    #: nats
    entropy: np.ndarray


@attrs.frozen(eq=False)
class Step:
    """Rows went on."""

    state: State
    event: Event
    look: Look | None


@attrs.frozen(eq=False)
class Done:
    """A row is done; `place`: among those of the request."""

    place: int
    row: Row


News = Step | Done


@final
class Answering:
    """A request that the worker answers."""

    def __init__(
        self, worker: Worker, ask: Ask, loop: asyncio.AbstractEventLoop, *, steps: bool, looks: bool, limits: Limits
    ) -> None:
        """`loop`: in which the news are taken. `steps`: whether every step is told; `looks`: with what was predicted.

        `limits`: of its time, and of the passes of a step.
        """
        self._worker, self.ask, self._steps = worker, ask, steps
        self._loop = loop
        self._news: asyncio.Queue[News | Refused] = asyncio.Queue()
        self._look: Look | None = None
        self._unwanted: list[int] = []
        self._most_passes = limits.passes
        self._came, self._deadline = time.monotonic(), time.monotonic() + limits.seconds
        self._running: Running | None = None
        self._stopping = bool(ask.stops.texts)
        watch = Watch(self._event, self._heard if looks else None) if steps or self._stopping else None
        self._ready: Callable[[], Any] = lambda: worker.engine.ready(
            ask.rows, ask.sampler, ask.template.slots, speculate=ask.speculate, watch=watch
        )
        #: places of the rows of the canvas among those of the request
        self.order: list[int] = []

    def make_ready(self) -> None:
        """The plan of the rows; errors of the library for what does not fit. It may take a while: not in the loop."""
        ask = self.ask
        with fitting(ask.named, self._worker.model, ask.template, ask.rows[0]):
            ready = self._ready()
        chunk = ready.chunks[0]  # rows of unknown length have several, and nobody follows them
        if chunk.plan.passes > self._most_passes:
            raise wrong(
                f"a step of this policy takes up to {chunk.plan.passes:,} forward passes of a row; {self._most_passes} "
                "are the most here",
                "policy",
            )
        self.order = list(chunk.order)
        self._policy = chunk.plan.policy
        #: the state in which the rows begin
        self.first: State = chunk.state
        self._running = Running(ready, self, self._came, self._deadline)

    async def news(self) -> AsyncIterator[News]:
        """What happens, until all rows are done; raises `Refused`."""
        assert self._running is not None
        self._worker.enter(self._running)
        left = len(self.ask.rows)
        while left:
            item = await self._news.get()
            if isinstance(item, Refused):
                raise item
            left -= isinstance(item, Done)
            yield item

    def leave(self) -> None:
        """Nobody waits any more."""
        if self._running is not None:
            self._worker.leave(self._running)

    def final(self, state: State) -> Bools:
        """Positions that never change again, `[B, L]`."""
        return life.final(self._policy, state)

    # the worker's thread

    def finished(self, place: int, row: Row) -> None:
        """A row is done."""
        self._tell(Done(place, row))

    def failed(self, why: Refused) -> None:
        """Nothing more will come."""
        self._tell(why)

    def unwanted(self) -> list[int]:
        """Rows that have come to a text at which they stop."""
        places, self._unwanted = self._unwanted, []
        return places

    def _heard(self, rows: Ints, query: Query, prediction: Prediction) -> None:
        if len(query.tokens) != len(rows):
            return
        line, position = (x.astype(np.int32) for x in np.nonzero(query.wanted))
        seen = prediction.marginals.take(line, position)
        runner = _runners(query, prediction, line, position, seen.token)
        self._look = Look(rows[line], position, seen.token, seen.confidence, np.exp(seen.second), runner, seen.entropy)

    def _event(self, state: State, event: Event) -> None:
        look, self._look = self._look, None
        if self._steps and len(event.rows):
            self._tell(Step(state, event, look))
        if self._stopping:
            moved: list[int] = event.rows.tolist()
            final = self.final(state)
            for row in moved:
                place = self.order[row]
                told = self.ask.readers[place].told(state.tokens[row], final[row])
                if self.ask.stops.cut(told.text)[1] and state.active[row]:
                    self._unwanted.append(place)

    def _tell(self, news: News | Refused) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._news.put_nowait, news)


def _runners(query: Query, prediction: Prediction, line: Ints, position: Ints, best: Ints) -> Ints:
    """The second most probable token of each place.

    −1 where its share is lost in rounding, and in a slot that holds a language: its places are drawn together.
    """
    together = np.zeros_like(query.wanted)
    for span in query.restriction.spans:
        together[span.row, span.positions] = True
    alone = np.flatnonzero(~together[line, position])
    found = np.full(len(line), -1, np.int32)
    # of the two most probable, the lowest uniform draws one and the highest the other
    for uniform in (0.0, np.nextafter(1, 0)):
        uniforms = np.full(len(alone), uniform)
        token, _ = prediction.draw(line[alone], position[alone], uniforms, Temperature(top_k=2))
        found[alone] = np.where(token == best[alone], found[alone], token)
    return found

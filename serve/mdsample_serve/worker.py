"""Worker: the one thread that owns a model. All requests' rows are in its engine, and share forward passes.

Whatever the policies, seeds and templates of requests are, their rows are in one pass together. Who is in the next
pass is decided by `Turns`. Other threads only leave word: a request comes in, a request goes away, a function wants the
model to itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol

import attrs

from mdsample.models.denoiser import Denoiser
from mdsample.sampling.engine import Engine
from mdsample.sampling.ready import Ready
from mdsample.sampling.result import Row
from mdsample_serve.errors import Refused, failed
from mdsample_serve.metrics import Metrics
from mdsample_serve.turns import Turns

_log = logging.getLogger("mdsample_serve")


class Client(Protocol):
    """Who waits for the rows of a chunk; called by the worker's thread."""

    def finished(self, place: int, row: Row) -> None:
        """The row at `place` among those of the request is done."""

    def failed(self, why: Refused) -> None:
        """Nothing more will come."""

    def unwanted(self) -> list[int]:
        """Places of rows that need not go on, since the last call."""
        ...


@attrs.define(eq=False)
class Running:
    """A request in the engine."""

    ready: Ready
    client: Client
    #: when it came, and when it has to be over, by `time.monotonic`
    came: float
    deadline: float
    #: places of its rows that are not done, by their numbers in the engine
    rows: dict[int, int] = attrs.field(factory=dict[int, int])
    started: bool = False


class Worker:
    """A model, its engine and its thread."""

    def __init__(self, open_model: Callable[[], Denoiser], *, batch_size: int, queue: int, metrics: Metrics) -> None:
        """`open_model`: called in the thread, as some frameworks bind a model to it.

        `queue`: rows that may be under way.
        """
        self._open, self._batch_size, self._queue, self._metrics = open_model, batch_size, queue, metrics
        self._word = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._exclusive: deque[tuple[Callable[[Denoiser], Any], Future[Any]]] = deque()
        self._reserved = 0
        self._ending = False
        self._done_rows: deque[float] = deque(maxlen=64)
        self.opened: Future[Denoiser] = Future()
        self._thread = threading.Thread(target=self._run, name="mdsample-worker", daemon=True)
        self._running: list[Running] = []
        self._turns = Turns(batch_size)

    # what other threads call

    def start(self) -> None:
        """Begins to open the model."""
        self._thread.start()

    @property
    def model(self) -> Denoiser:
        """The model; `Refused` until it is open."""
        if not self.opened.done():
            raise Refused(503, "the model is still being loaded; try again", code="loading", wait=5)
        return self.opened.result()

    @property
    def engine(self) -> Engine:
        """What makes chunks of rows; that changes nothing in it, so any thread may ask it to."""
        return self._engine

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def reserve(self, rows: int) -> None:
        """Room for so many rows in the queue; `Refused` if it is full."""
        with self._word:
            if self._ending:
                raise Refused(503, "the server is stopping and takes nothing new", code="stopping")
            if self._reserved + rows > self._queue:
                raise Refused(
                    429,
                    f"{self._reserved} rows are being answered, and {self._queue} are the most; try again later",
                    code="queue_full",
                    wait=self._patience(),
                )
            self._reserved += rows

    def release(self, rows: int) -> None:
        """Gives room back."""
        with self._word:
            self._reserved -= rows

    def enter(self, running: Running) -> None:
        """A request comes in."""
        self._say(lambda: self._enter(running))

    def leave(self, running: Running) -> None:
        """Nobody waits for a request any more: its rows are out of the next pass."""
        self._say(lambda: self._leave(running))

    def call(self, function: Callable[[Denoiser], Any]) -> Future[Any]:
        """Runs a function with the model between two passes."""
        future: Future[Any] = Future()
        with self._word:
            self._exclusive.append((function, future))
            self._word.notify()
        return future

    def end(self, seconds: float = 30.0) -> None:
        """Refuses what is new, and ends when nothing runs, or after so long."""
        with self._word:
            self._ending = True
            self._word.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def refuse(self) -> None:
        """Refuses what is new, and goes on with what runs."""
        with self._word:
            self._ending = True

    def _say(self, word: Callable[[], None]) -> None:
        with self._word:
            self._calls.append(word)
            self._word.notify()

    def _patience(self) -> int:
        """Seconds in which a good part of the queue should be done, at the pace of late."""
        if len(self._done_rows) < 2:
            return 1
        pace = len(self._done_rows) / max(1e-3, time.monotonic() - self._done_rows[0])
        return int(min(60, max(1, self._batch_size / pace)))

    # what the thread does

    def _run(self) -> None:
        try:
            model = self._open()
            self._engine = Engine(model, batch_size=self._batch_size)
        except BaseException as fault:
            self.opened.set_exception(fault)
            return
        self.opened.set_result(model)
        while True:
            try:
                if not self._next_word():
                    return
                self._one_call(model)
                self._one_pass()
            except Exception:  # a fault of ours: what runs is lost, the server goes on
                _log.exception("the worker failed")
                self._begin_again(model)

    def _begin_again(self, model: Denoiser) -> None:
        running, self._running = self._running, []
        self._engine, self._turns = Engine(model, batch_size=self._batch_size), Turns(self._batch_size)
        for each in running:
            with suppress(Exception):
                each.client.failed(failed())

    def _next_word(self) -> bool:
        """Obeys all that was said; waits if there is nothing to do. False: it is over."""
        with self._word:
            while not (self._calls or self._exclusive or self._running):
                if self._ending:
                    return False
                self._word.wait()
            words = list(self._calls)
            self._calls.clear()
        for word in words:
            word()
        return True

    def _one_call(self, model: Denoiser) -> None:
        with self._word:
            if not self._exclusive:
                return
            function, future = self._exclusive.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(model))
            except BaseException as fault:
                future.set_exception(fault)

    def _one_pass(self) -> None:
        now = time.monotonic()
        for running in [running for running in self._running if running.deadline < now]:
            self._fail(running, Refused(504, "the request took too long and was ended", code="timeout"))
        chosen = self._turns.next()
        if not chosen:
            return
        for running in self._running:
            if not running.started and not running.rows.keys().isdisjoint(chosen):
                running.started = True
                self._metrics.queue_seconds.observe(now - running.came)
        try:
            self._engine.step(chosen)
        except Exception:
            _log.exception("a forward pass failed; its requests are tried one by one")
            self._one_by_one(set(chosen))
        self._metrics.passed(len(chosen), self._turns.waiting, time.monotonic() - now)
        for running in list(self._running):
            for place in running.client.unwanted():
                number = next((number for number, at in running.rows.items() if at == place), None)
                if number is not None:
                    self._engine.remove(number)
        self._hand_out()

    def _one_by_one(self, chosen: set[int]) -> None:
        """The pass again, for each request alone: the others need not suffer for one that fails."""
        for running in list(self._running):
            mine = chosen & running.rows.keys()
            try:
                if mine:
                    self._engine.step(mine)
            except Exception:
                _log.exception("a forward pass of one request failed")
                self._fail(running, Refused(500, "the model failed on this request; the server's log says how"))

    def _hand_out(self) -> None:
        """Gives finished rows to who waits for them."""
        for number, row in self._engine.finished():
            self._turns.leave(number)
            running = next((running for running in self._running if number in running.rows), None)
            if running is None:
                continue
            self._done_rows.append(time.monotonic())
            self._metrics.row(row)
            running.client.finished(running.rows.pop(number), row)
            if not running.rows:
                self._running.remove(running)

    def _enter(self, running: Running) -> None:
        numbers = self._engine.enter(running.ready)
        running.rows.update({number: place for place, number in enumerate(numbers)})
        self._running.append(running)
        self._turns.enter(numbers, running)
        self._hand_out()  # rows without blanks

    def _leave(self, running: Running) -> None:
        if running not in self._running:
            return
        self._running.remove(running)
        for number in running.rows:
            self._turns.leave(number)
            self._engine.remove(number)
        running.rows.clear()
        self._engine.finished()

    def _fail(self, running: Running, why: Refused) -> None:
        self._leave(running)
        with suppress(Exception):
            running.client.failed(why)

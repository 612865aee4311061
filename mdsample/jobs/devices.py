"""Several devices of one machine: a process and a model for each, rows given out as there is room for them.

A process that dies is told of; what it had in hand goes to the others, and only when none is left the job ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from signal import SIG_IGN, SIGINT, signal
from typing import Any, TypeVar

import attrs

from mdsample.errors import CrewError
from mdsample.jobs.crew import Absent, Item, Work, plain
from mdsample.models.denoiser import Denoiser

I = TypeVar("I", bound=Item)  # noqa: E741
T = TypeVar("T")
#: seconds until a process that was told to end is ended
_PATIENCE = 5.0


@attrs.define(eq=False)
class _Worker:
    """A process."""

    device: str
    process: BaseProcess
    pipe: Connection
    #: what it has and is not done with, by id
    held: dict[int | str, Any] = attrs.field(factory=dict[int | str, Any])
    #: whether it reads items now
    working: bool = False


@contextmanager
def devices(
    load: Callable[[str], Denoiser], names: Sequence[str], tell: Callable[[str], None] = lambda text: None
) -> Generator[Devices]:
    """Opens the model on each of the devices at once; `load` must be one that can be pickled.

    `tell` hears of processes that die. Raises what the first of them raises in opening.
    """
    context, workers = get_context("spawn"), list[_Worker]()
    try:
        for name in names:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, load, name), daemon=True)
            process.start()
            theirs.close()
            workers.append(_Worker(name, process, ours))
        about = [_ready(worker) for worker in workers]
        yield Devices(workers, Absent(about[0]), tell)
    finally:
        for worker in workers:
            with suppress(OSError):
                worker.pipe.send(None)
            worker.pipe.close()
        for worker in workers:
            worker.process.join(0 if worker.working else _PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


class Devices:
    """The crew of `devices`."""

    def __init__(self, workers: list[_Worker], model: Denoiser, tell: Callable[[str], None]) -> None:
        """Processes that are ready, and what they say of their model."""
        self._workers, self._tell = workers, tell
        self.model = model

    def run(self, work: Work[I, T], items: Iterable[I]) -> Iterator[T]:
        """As in `Crew`."""
        rest, again = iter(items), deque[I]()

        def following() -> I | None:
            return again.popleft() if again else next(rest, None)

        for worker in list(self._workers):
            self._settle(worker)
        for worker in list(self._workers):
            self._begin(worker, work, again)
        while busy := [worker for worker in self._workers if worker.working]:
            for pipe in wait([worker.pipe for worker in busy]):
                worker = next(worker for worker in busy if worker.pipe is pipe)
                try:
                    kind, value = worker.pipe.recv()
                    if kind == "more":
                        item = following()
                        if item is not None:
                            worker.held[item.id] = item
                        worker.pipe.send(item)
                except (EOFError, OSError):
                    again.extend(self._lost(worker))
                    continue
                if kind == "done":
                    name, result = value
                    del worker.held[name]
                    yield result
                elif kind == "over":
                    worker.working = False
                elif kind == "failed":
                    worker.working = False
                    worker.held.clear()
                    raise value
            # what a dead one left, where those that live have nothing more to do
            for worker in list(self._workers) if again else ():
                if not worker.working:
                    self._begin(worker, work, again)
        if again or next(rest, None) is not None:
            raise CrewError(
                "no process is left, and rows are; for want of memory take fewer devices or a smaller batch, and run "
                "the same command again to resume"
            )

    def _settle(self, worker: _Worker) -> None:
        """Lets a process end what it was doing for a work that has failed, or whose results nobody wants any more."""
        worker.held.clear()
        try:
            while worker.working:
                kind, _ = worker.pipe.recv()
                if kind == "more":
                    worker.pipe.send(None)
                worker.working = kind in ("more", "done")
        except (EOFError, OSError):
            self._lost(worker)

    def _begin(self, worker: _Worker, work: object, again: deque[Any]) -> None:
        try:
            worker.pipe.send(work)
            worker.working = True
        except OSError:
            again.extend(self._lost(worker))

    def _lost(self, worker: _Worker) -> list[Any]:
        """Takes a dead process from the crew; what it had in hand."""
        self._workers.remove(worker)
        worker.working = False
        worker.process.join(_PATIENCE)
        held = list(worker.held.values())
        others = f"the {len(self._workers)} others do" if self._workers else "nobody is left to do"
        self._tell(f"the process on {worker.device} {_end(worker)}; {others} the {len(held)} rows it had begun")
        return held


def _ready(worker: _Worker) -> Any:
    try:
        kind, value = worker.pipe.recv()
    except EOFError:
        worker.process.join(_PATIENCE)
        raise CrewError(f"the process on {worker.device} {_end(worker)} while it opened the model") from None
    if kind == "failed":
        raise value
    return value


def _end(worker: _Worker) -> str:
    code = worker.process.exitcode
    return f"was killed (signal {-code})" if code is not None and code < 0 else f"ended with code {code}"


def _serve(pipe: Connection, load: Callable[[str], Denoiser], device: str) -> None:
    """The life of a process: opens the model, then does one work after the other."""
    signal(SIGINT, SIG_IGN)  # an interrupt is for who leads
    with suppress(EOFError, OSError):  # who leads is gone
        try:
            denoiser = load(device)
        except Exception as fault:
            pipe.send(("failed", plain(fault, device)))
            return
        pipe.send(("ready", denoiser.about))
        while (work := pipe.recv()) is not None:
            try:
                for result in work(denoiser, _items(pipe)):
                    pipe.send(("done", result))
            except (EOFError, OSError):
                return
            except Exception as fault:
                pipe.send(("failed", plain(fault, device)))
            else:
                pipe.send(("over", None))


def _items(pipe: Connection) -> Iterator[Any]:
    while True:
        pipe.send(("more", None))
        item = pipe.recv()
        if item is None:
            return
        yield item

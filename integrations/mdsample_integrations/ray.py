"""Ray: a crew of actors with a model each, wherever the cluster has room for them.

Ray Data gives out the rows, restarts actors that die and repeats what they had in hand, on another machine if theirs is
gone. It gives up a task that ends its actor several times. What is missing then is done once more, a row a task, and a
row that ends its actor even alone has no result but that. What leads the job takes the results as they come; which of
them are in its file already it knows itself, so a job resumes as it does without Ray. Nothing here schedules, and
nothing else imports Ray.
"""

from __future__ import annotations

import logging
import pickle
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

import attrs

from mdsample.errors import CrewError
from mdsample.jobs.crew import Absent, Item, Work, plain
from mdsample.models.denoiser import About, Denoiser

# none of them has types that a strict checker could use
arrow: Any = import_module("pyarrow")
ray: Any = import_module("ray")
data: Any = import_module("ray.data")
exceptions: Any = import_module("ray.exceptions")

I = TypeVar("I", bound=Item)  # noqa: E741
T = TypeVar("T")
Load = Callable[[], Denoiser]
#: a task has at most so many batches: with more, one that is lost costs more; with fewer, places stand empty at its end
_BATCHES = 8
#: seconds that an address is given to answer
_PATIENCE = 5.0
#: tasks that an actor has on average, so that all end at about the same time
_TASKS = 4
#: so often may an actor die on a task
_DEATHS = 3
_LOST = f"alone it ended its actor {_DEATHS} times, as for want of memory; give actors more of it, or shorten the row"


@attrs.frozen
class Actor:
    """What an actor takes of its machine."""

    gpus: float = 0.0
    #: a fraction leaves room for Ray's own work on small machines
    cpus: float = 1.0
    #: bytes, of the machine's memory; `None`: not counted
    memory: int | None = None

    def fitting(self, resources: Mapping[str, float]) -> int:
        """How many fit into what a machine has."""
        needs = {"GPU": self.gpus, "CPU": self.cpus, "memory": self.memory or 0}
        return min(int(resources.get(name, 0) / need + 1e-9) for name, need in needs.items() if need)

    def options(self) -> dict[str, Any]:
        """As Ray takes it."""
        memory = {} if self.memory is None else {"memory": self.memory}
        return {"num_gpus": self.gpus, "num_cpus": self.cpus, **memory}


@contextmanager
def cluster(address: str) -> Generator[Sequence[Mapping[str, float]]]:
    """Joins a cluster (`auto`: the one here; `local`: a new one on this machine); what each machine has.

    `CrewError` if there is none. One that this process has joined already is used as it is.
    """
    joined = not ray.is_initialized()
    if joined:
        _require_there(address)
        try:
            where = None if address == "local" else address
            ray.init(address=where, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as fault:
            raise CrewError(f"there is no Ray cluster at {address!r}: {fault}") from fault
    try:
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        if joined:
            ray.shutdown()


def _require_there(address: str) -> None:
    """Refuses an address that nobody listens at; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if address in ("auto", "local") or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, ValueError, OverflowError) as fault:
        raise CrewError(f"there is no Ray cluster at {address!r}: {fault}; say auto, local or HOST:PORT") from None


def actor_for(machines: Sequence[Mapping[str, float]], gpus: float | None = None, cpus: float | None = None) -> Actor:
    """What an actor takes unless one says otherwise: a GPU where the cluster has some, and a CPU."""
    own = 1.0 if any(machine.get("GPU", 0) for machine in machines) else 0.0
    return Actor(own if gpus is None else gpus, 1.0 if cpus is None else cpus)


@contextmanager
def actors(
    address: str,
    load: Load,
    number: int | None = None,
    gpus: float | None = None,
    cpus: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Generator[Actors]:
    """A crew of `number` actors, by default as many as fit; `load`, which can be pickled, opens the model in each."""
    with cluster(address) as machines:
        actor = actor_for(machines, gpus, cpus)
        fit = sum(actor.fitting(machine) for machine in machines)
        if not fit:
            raise CrewError(
                f"no actor fits: each takes {actor.gpus:g} GPUs and {actor.cpus:g} CPUs, and no machine of the cluster "
                "has as much; say --actor-gpus or --actor-cpus"
            )
        number = fit if number is None else number
        if number > fit:
            tell(f"{fit} of {number} actors fit now; the others begin when there is room")
        yield Actors(load, actor, number, Absent(about(load, actor)), tell)


def about(load: Load, actor: Actor) -> About:
    """What the model says of itself, where it will run."""
    ask = ray.remote(max_retries=_DEATHS - 1, **actor.options())(lambda: load().about)
    try:
        return ray.get(ask.remote())
    except exceptions.RayTaskError as fault:
        raise CrewError(f"on the cluster: {fault.cause}") from None
    except exceptions.RayError as fault:
        raise CrewError(
            f"the process died while it opened the model, as for want of memory: {_reason(fault)}"
        ) from None


@attrs.frozen(eq=False)
class Actors:
    """The crew of `actors`."""

    load: Load
    actor: Actor
    number: int
    model: Denoiser
    #: hears of rows that are done again
    tell: Callable[[str], None]

    def run(self, work: Work[I, T], items: Iterable[I]) -> Iterator[T]:
        """As in `Crew`."""
        packed = [(item.id, pickle.dumps(item)) for item in items]
        if not packed:
            return
        wished = -(-len(packed) // (self.number * _TASKS))
        size = max(work.batch_size, min(_BATCHES * work.batch_size, wished))
        #: what has no result yet, and where it stands
        left = {name: place for place, (name, _) in enumerate(packed)}
        blocks = [_block([item for _, item in packed[at : at + size]]) for at in range(0, len(packed), size)]
        del packed
        yield from self._results(work, blocks, left)
        if not left:
            return
        self.tell(f"actors died on tasks with {len(left)} rows, {_DEATHS} times; each of these rows is now done alone")
        again = [item for at in sorted({place // size for place in left.values()}) for item in _unpacked(blocks[at])]
        again = [item for item in again if item.id in left]
        yield from self._results(work, [_block([pickle.dumps(item)]) for item in again], left)
        yield from (work.lost(item, _LOST) for item in again if item.id in left)

    def _results(self, work: Work[I, T], blocks: Sequence[Any], left: dict[int | str, int]) -> Iterator[T]:
        """The results of these tasks, but of those that Ray gave up; what came is taken from `left`."""
        # what Ray would log is raised, or done again
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.execution_options.verbose_progress = False
        context.max_errored_blocks = -1
        results = data.from_arrow_refs(blocks).map_batches(
            _Member,
            batch_size=None,
            batch_format="pyarrow",
            # a task that waits for an actor would count its deaths on another one
            compute=data.ActorPoolStrategy(size=min(self.number, len(blocks)), max_tasks_in_flight_per_actor=1),
            fn_constructor_args=(self.load, pickle.dumps(work)),
            zero_copy_batch=True,
            max_task_retries=_DEATHS - 1,
            **self.actor.options(),
        )
        try:
            for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for found in map(pickle.loads, batch["result"].to_pylist()):
                    if isinstance(found, CrewError):
                        raise found
                    name, result = found
                    if left.pop(name, None) is not None:
                        yield result
        except exceptions.RayError as fault:
            raise CrewError(f"the cluster gave up: {_reason(fault)}") from fault


def _block(packed: list[bytes]) -> Any:
    """The rows of a task, in the cluster."""
    return ray.put(arrow.table({"item": packed}))


def _unpacked(block: Any) -> Iterator[Any]:
    return map(pickle.loads, ray.get(block)["item"].to_pylist())


class _Member:
    """An actor: a model, and what is done with it."""

    def __init__(self, load: Load, work: bytes) -> None:
        """Opens the model."""
        self._model, self._work = load(), pickle.loads(work)

    def __call__(self, batch: Any) -> Iterator[dict[str, list[bytes]]]:
        """The results of a task's rows with their ids, and last an error of the work's own, which Ray would drop."""
        items = map(pickle.loads, batch["item"].to_pylist())
        try:
            for named in self._work(self._model, items):
                yield {"result": [pickle.dumps(named)]}
        except Exception as fault:
            yield {"result": [pickle.dumps(plain(fault, "the cluster"))]}


def _reason(fault: BaseException) -> str:
    cause = getattr(fault, "cause", None) or fault
    return f"{type(cause).__name__}: {cause}".partition("\n")[0]


@attrs.frozen
class Probe:
    """What a model took where it will run."""

    #: seconds until it was open, and of a row
    opening: float
    row: float
    #: bytes of the machine's memory, and of its device if that is known
    memory: int
    device_memory: int | None
    rows: int


def probe(load: Load, actor: Actor, work: Work[I, Any], items: Sequence[I]) -> Probe:
    """Opens the model in one actor and does these rows there."""
    measure = ray.remote(max_retries=0, **actor.options())(_measured)
    try:
        return ray.get(measure.remote(load, work, list(items)))
    except exceptions.RayTaskError as fault:
        raise CrewError(f"on the cluster: {fault.cause}") from None
    except exceptions.RayError as fault:
        raise CrewError(f"the probe died, as for want of memory: {_reason(fault)}") from fault


def _measured(load: Load, work: Any, items: Sequence[Any]) -> Probe:
    from resource import RUSAGE_SELF, getrusage

    began = time.perf_counter()
    model = load()
    opened = time.perf_counter()
    model.restart_peak_memory()
    done = sum(1 for _ in work(model, items))
    seconds = time.perf_counter() - opened
    return Probe(opened - began, seconds / done, 1024 * getrusage(RUSAGE_SELF).ru_maxrss, model.peak_memory, done)

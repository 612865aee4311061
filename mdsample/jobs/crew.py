"""Crews: several processes with a model each, which share the rows of a job.

Rows are independent, so who fills a row, beside which others and how often it was begun changes nothing of its result;
a crew only has to give every row out and take every result once. What leads the job has no model: it knows what the
crew's models say of themselves, checks and writes with that, and sends work to where a model is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, Protocol, TypeVar, cast

import attrs

from mdsample.core.tokens import Tokenizer
from mdsample.errors import CrewError, MdsampleError
from mdsample.jobs.job import Job
from mdsample.jobs.posterior import Tracer
from mdsample.jobs.records import Record, Request
from mdsample.jobs.scores import ScoreJob
from mdsample.models.denoiser import Denoiser, Query
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import Prepared
from mdsample.sampling.row import Row
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation


class Item(Protocol):
    """What is to be done for one row."""

    @property
    def id(self) -> int | str:
        """Of the row; no two are alike."""
        ...


I_contra = TypeVar("I_contra", bound=Item, contravariant=True)
T_co = TypeVar("T_co", covariant=True)
I = TypeVar("I", bound=Item)  # noqa: E741
T = TypeVar("T")


class Work(Protocol[I_contra, T_co]):
    """What is done with rows where a model is; it travels there as a pickle."""

    @property
    def batch_size(self) -> int:
        """How many rows it does at once."""
        ...

    def __call__(self, denoiser: Denoiser, items: Iterable[I_contra]) -> Iterator[tuple[int | str, T_co]]:
        """Results as they finish, each with its row's id; items are read only as there is room for them."""
        ...

    def lost(self, item: I_contra, why: str) -> T_co:
        """The result of an item that ends every process that does it, in a crew that begins them anew.

        `CrewError` where the work has none for it.
        """
        ...


class Crew(Protocol):
    """Processes with a model each."""

    @property
    def model(self) -> Denoiser:
        """What is known of their models, for checks and records; it does not predict."""
        ...

    def run(self, work: Work[I, T], items: Iterable[I]) -> Iterator[T]:
        """The result of every item once, as they finish; `CrewError` where nobody is left to do the work."""
        ...


class Absent(Denoiser):
    """A model that is elsewhere."""

    def predict(self, query: Query) -> NoReturn:
        """Never asked: the crew predicts."""
        raise CrewError(f"{self.name} was asked here, but it is with the crew; this is a fault of mdsample")


@attrs.frozen(eq=False)
class Recorded:
    """Work: the records of requests that can be answered."""

    job: Job | Tracer | ScoreJob

    @property
    def batch_size(self) -> int:
        """That of the job; a request of traces is several rows."""
        return -(-self.job.batch_size // (self.job.n if isinstance(self.job, Tracer) else 1))

    def __call__(self, denoiser: Denoiser, items: Iterable[Request]) -> Iterator[tuple[int | str, Record]]:
        """With the model that is there; a row on which it fails, also when it is alone, is a record with `error`."""
        job, rest, begun = self._with(denoiser), iter(items), dict[int | str, Request]()

        def taken() -> Iterator[Request]:
            for item in rest:
                begun[item.id] = item
                yield item

        while True:
            try:
                for record in job.records(taken()):
                    del begun[record["id"]]
                    yield record["id"], record
                return
            except (EOFError, OSError):
                raise  # who leads is gone
            except Exception:
                # one row may be too much for the model beside others, or by itself
                for item in list(begun.values()):
                    yield item.id, _alone(job, item)
                begun.clear()

    def lost(self, item: Request, why: str) -> Record:
        """A record with `error`."""
        return {"id": item.id, "error": why}

    def _with(self, denoiser: Denoiser) -> Job | Tracer | ScoreJob:
        chats = attrs.evolve(self.job.chats, tokenizer=denoiser.tokenizer)
        if isinstance(self.job, ScoreJob):
            return attrs.evolve(self.job, denoiser=denoiser, chats=chats)
        # no more rows are taken up than are filled at once, so that none wait here while others have nothing to do
        return attrs.evolve(self.job, denoiser=denoiser, chats=chats, chunk_size=self.job.batch_size)


def _alone(job: Job | Tracer | ScoreJob, request: Request) -> Record:
    try:
        (record,) = job.records([request])
    except Exception as fault:
        return {"id": request.id, "error": f"{type(fault).__name__}: {fault}"}
    return record


def plain(fault: Exception, where: str) -> CrewError:
    """An error that can be pickled, and says where it was."""
    told = str(fault) if isinstance(fault, MdsampleError) else f"{type(fault).__name__}: {fault}"
    return CrewError(f"on {where}: {told}")


def records(crew: Crew, job: Job | Tracer | ScoreJob, requests: Iterable[Request]) -> Iterator[Record]:
    """The records of a job's requests by a crew, as they finish; what cannot be answered needs no model."""
    failed: list[Record] = []

    def sound() -> Iterator[Request]:
        for request in requests:
            if request.error:
                failed.append({"id": request.id, "error": request.error})
            else:
                yield request

    for record in crew.run(Recorded(job), sound()):
        yield from failed
        failed.clear()
        yield record
    yield from failed


@attrs.frozen(eq=False)
class Filled:
    """Work: rows of one policy, filled."""

    sampler: Sampler
    slots: tuple[str, ...]
    batch_size: int
    speculate: Speculation | None

    def __call__(self, denoiser: Denoiser, items: Iterable[Prepared]) -> Iterator[tuple[int | str, Row]]:
        """Rows without their tokenizer, which is larger than all else of them."""
        size, guess = self.batch_size, self.speculate
        how = self.sampler, denoiser, self.slots, iter(items)
        for row in fill(*how, batch_size=size, chunk_size=size, speculate=guess):
            yield row.id, attrs.evolve(row, tokenizer=cast("Tokenizer", None))

    def lost(self, item: Prepared, why: str) -> NoReturn:
        """A comparison takes answers to all of its problems."""
        raise CrewError(f"problem {item.id!r} has no answer: {why}; the others are answered")


def rows(crew: Crew, work: Filled, prepared: Iterable[Prepared]) -> Iterator[Row]:
    """Rows filled by a crew, as they finish."""
    tokenizer: Any = crew.model.tokenizer
    return (attrs.evolve(row, tokenizer=tokenizer) for row in crew.run(work, prepared))

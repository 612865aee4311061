"""Jobs: a model, a template and a sampler that answer requests, and the records of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

import attrs

from mdsample.core.template import Template
from mdsample.errors import MdsampleError, TemplateError, WatchError
from mdsample.jobs.records import Record, Request, asked, fingerprint
from mdsample.models.chat import Chats
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.engine import BATCH_SIZE, fill, require_fit
from mdsample.sampling.prepared import Prepared, prepare
from mdsample.sampling.result import Row
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation, require_exact
from mdsample.sampling.state import State
from mdsample.sampling.structured import Structured
from mdsample.sampling.trace import Trace, versions
from mdsample.scoring.watch import SlotReading, SlotWatcher, plain
from mdsample.tasks.catalog import task_for


@attrs.frozen(eq=False)
class Answer:
    """What became of a request."""

    #: its place among the job's requests
    place: int
    request: Request
    #: `None` if the request has an error
    row: Row | None
    #: what the watched slot said along the way
    readings: tuple[SlotReading, ...] = ()


def request_of(template: Template, prompt: str) -> Request:
    """The request of a prompt, for the template's one field; `TemplateError` if it does not have just one."""
    fields = template.fields
    if len(fields) != 1:
        raise TemplateError(
            f"a prompt fills the one field of a template, but this one has: {', '.join(fields) or 'none'}; "
            + ("give JSON lines as input" if fields else "leave the prompt out")
        )
    return Request(0, {fields[0]: prompt})


@attrs.frozen(eq=False, slots=False)
class Job:
    """One way to answer requests; raises `TemplateError` or `PolicyError` at once if its pieces do not fit together."""

    denoiser: Denoiser
    template: Template
    sampler: Sampler
    #: of a model from the hub
    revision: str | None = attrs.field(default=None, kw_only=True)
    batch_size: int = attrs.field(default=BATCH_SIZE, kw_only=True)
    #: rows that are taken up at once, as in `engine.fill`
    chunk_size: int | None = attrs.field(default=None, kw_only=True)
    #: how many steps are guessed, see `mdsample.sampling.speculate`
    speculate: Speculation | None = attrs.field(default=None, kw_only=True)
    #: a slot whose marginals are taken down in every pass; see `mdsample.scoring.watch`
    watch_slot: str | None = attrs.field(default=None, kw_only=True)
    #: where messages of rows are put; by default around `template`
    chats: Chats = attrs.field(
        default=attrs.Factory(lambda job: Chats.of(job.denoiser, job.template), takes_self=True), kw_only=True
    )

    #: the schema whose text stands in the template
    structured: Structured | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """What a row's own text cannot change is checked on an empty row."""
        if self.speculate is not None:
            require_exact(self.denoiser)
            if self.watch_slot is not None:
                raise WatchError(
                    f"to watch slot {self.watch_slot!r} takes down what every forward pass says of it, and guesses are "
                    "passes that the row may never come to; leave out one of the two"
                )
        if self.watch_slot is not None:
            SlotWatcher(self.denoiser, self.template, self.watch_slot, self.sampler.seed)
        nothing = dict.fromkeys(self.template.fields, "")
        row = prepare(self.denoiser, self.template, 0, nothing)
        require_fit(self.denoiser, self.sampler, self.template.slots, row)

    @cached_property
    def fingerprint(self) -> Record:
        """What decides the records: two runs with the same fingerprint and requests give the same ones."""
        facts = fingerprint(self.denoiser, self.sampler, self.template, self.revision, self.speculate)
        return facts | ({} if self.watch_slot is None else {"watch": self.watch_slot})

    def request(self, prompt: str | None = None, given: Mapping[str, str] | None = None) -> Request:
        """The request of a prompt, for the template's one field; without one, the first problem of the model's task.

        `given`: texts of slots that the row brings. Raises `TemplateError` if the template does not take it.
        """
        fields = self.template.fields
        own = None if prompt is None else request_of(self.template, prompt)
        task = task_for(self.denoiser)
        problem = task.read()[0] if task is not None else None
        if own is not None:
            request = own
        elif not fields:
            request = Request(0)
            if problem is not None and not given:
                request, given = Request(problem.id), problem.given
        elif problem is not None and problem.texts.keys() >= set(fields):
            expected = problem.answer if "answer" in self.template.slots else None
            request = Request(problem.id, {field: problem.texts[field] for field in fields}, expected)
        else:
            raise TemplateError("there is no sample problem for this model and template; give a prompt, or an input")
        prepare(self.denoiser, self.template, request.id, request.texts, given)
        return attrs.evolve(request, given=dict(given or {}))

    def answers(
        self, requests: Iterable[Request], *, one_chunk: bool = False, on_step: Callable[[State], None] | None = None
    ) -> Iterator[Answer]:
        """Answers as they finish: rows as `engine.fill` takes them up and yields them, and what cannot be answered.

        Requests are read no further than that. `one_chunk` keeps all rows in one state, for a trace of them all.
        `on_step` as in `engine.fill`.
        """
        asked_for: dict[int | str, tuple[int, Request]] = {}
        requests = list(requests) if one_chunk else requests
        failed: list[Answer] = []
        along = (
            None
            if self.watch_slot is None
            else SlotWatcher(self.denoiser, self.template, self.watch_slot, self.sampler.seed)
        )

        def rows() -> Iterator[Prepared]:
            for number, request in enumerate(requests):
                try:
                    if request.error:
                        raise TemplateError(request.error)
                    template, texts = self.chats.placed(self.template, request.texts, request.messages)
                    row = prepare(self.denoiser, template, request.id, texts, request.given)
                    if along is not None:
                        along.track(row, request.expected)
                except TemplateError as fault:
                    failed.append(Answer(number, attrs.evolve(request, error=str(fault)), None))
                else:
                    asked_for[request.id] = number, request
                    yield row

        for row in fill(
            self.sampler,
            along or self.denoiser,
            self.template.slots,
            rows(),
            batch_size=self.batch_size,
            chunk_size=len(requests) if one_chunk and isinstance(requests, list) else self.chunk_size,
            on_step=on_step,
            speculate=self.speculate,
        ):
            yield from failed
            failed.clear()
            readings = () if along is None else along.readings(row.id)
            yield Answer(*asked_for.pop(row.id), row, readings)
        yield from failed

    def records(
        self, requests: Iterable[Request], *, on_step: Callable[[State], None] | None = None
    ) -> Iterator[Record]:
        """The records of `answers`, as they finish."""
        return map(self.record, self.answers(requests, on_step=on_step))

    def record(self, answer: Answer) -> Record:
        """The answer as a flat JSON object."""
        request, row = answer.request, answer.row
        if row is None:
            return {"id": request.id, "error": request.error}
        return {
            "id": row.id,
            **asked(request),
            "text": row.text,
            "slots": row.slots,
            **({} if self.structured is None else {"value": self._value(self.structured, row)}),
            **({} if request.expected is None else {"expected": request.expected}),
            **row.to_dict(),
            **({} if self.watch_slot is None else {"along": plain(answer.readings)}),
            **self.fingerprint,
            "backend": self.denoiser.backend,
            "approximate": self.denoiser.cache is not None and self.denoiser.cache.approximate,
            "versions": versions(),
        }

    def _value(self, structured: Structured, row: Row) -> object:
        """What the row's JSON says, `None` if it left before its values were filled."""
        try:
            return structured.parsed(row)
        except MdsampleError:
            return None

    def trace(self, state: State) -> Trace:
        """The record of a run that stands at `state`."""
        return Trace.of(self.sampler.result(self.denoiser, state))


def in_request_order(answers: Iterable[Answer]) -> Iterator[Answer]:
    """The same answers in the order of their requests; on an interrupt, first whatever is finished."""
    waiting: dict[int, Answer] = {}
    due = 0
    try:
        for answer in answers:
            waiting[answer.place] = answer
            while due in waiting:
                yield waiting.pop(due)
                due += 1
    except KeyboardInterrupt:
        yield from (waiting[place] for place in sorted(waiting))
        raise

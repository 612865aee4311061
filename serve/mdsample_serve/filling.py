"""`/v1/fill`: a template's slots, as `mdsample run` fills them; the record is the one that `run --json` prints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import attrs
from fastapi import APIRouter, Request
from starlette.responses import Response

from mdsample.core.template import Template
from mdsample.jobs.job import Answer, Job
from mdsample.jobs.records import Request as RowRequest
from mdsample.models.chat import Chats
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.prepared import prepare
from mdsample.sampling.row import Row
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.structured import Structured
from mdsample_serve import asking, bodies, traces, wishes
from mdsample_serve.answering import Answering, Done
from mdsample_serve.asking import Ask
from mdsample_serve.errors import about, wrong
from mdsample_serve.limits import Limits
from mdsample_serve.replying import reply
from mdsample_serve.service import Hosted, Service


@attrs.frozen(eq=False, kw_only=True)
class FillAsk(Ask):
    """Rows of a job."""

    job: Job
    requests: Sequence[RowRequest]

    def record(self, place: int, row: Row) -> dict[str, Any]:
        """As `mdsample run --json` prints it."""
        return self.job.record(Answer(place, self.requests[place], row))


def fill_ask(body: bodies.Fill, hosted: Hosted, model: Denoiser, limits: Limits) -> FillAsk:
    """What a body asks for."""
    layout = Template.parse(model.template) if body.template is None else wishes.laid_out(body.template)
    layout = wishes.with_lengths(layout, body)
    structured, barred = None, ""
    if "schema_" in body.model_fields_set:
        schema = asking.checked_schema(body.schema_, "schema")
        with about("schema"):
            structured = Structured.of(schema, layout, model.tokenizer)
        layout, barred = (
            structured.template,
            "messages have no place in the template of a schema; leave out one of them",
        )
    sampler = Sampler(wishes.policy_of(body, model, layout, (), structured), seed=body.seed or 0)
    plain = None if body.template is None else layout
    named = wishes.named_of(body)
    empty = prepare(model, layout, 0, dict.fromkeys(layout.fields, ""))
    with asking.fitting(named, model, layout, empty):
        job = Job(
            model,
            layout,
            sampler,
            revision=hosted.revision,
            speculate=wishes.speculation_of(body),
            chats=Chats(model.tokenizer, model.name, plain, barred=barred),
            structured=structured,
        )
    messages = tuple(asking.spoken(body.messages or []))
    if messages and (body.prompt is not None or body.fields is not None):
        raise wrong("messages stand in the place of prompt and fields; leave out one of them", "messages")
    texts: Mapping[str, str] = {} if messages else asking.fields_of(layout, body.prompt, body.fields)
    requests = [RowRequest(number, texts, messages=messages, given=body.given or {}) for number in range(body.n or 1)]
    template, placed = job.chats.placed(layout, texts, messages)
    rows = [prepare(model, template, request.id, placed, request.given) for request in requests]
    ask = FillAsk(
        rows=rows,
        template=layout,
        sampler=sampler,
        speculate=job.speculate,
        named=named,
        structured=structured,
        job=job,
        requests=requests,
    )
    asking.check_ask(ask, limits)
    return ask


def routes(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter(tags=["mdsample's"])

    @router.post("/v1/fill")
    async def fill(body: bodies.Fill, request: Request) -> Response:
        """Fill a template's slots. With `n` a list of records; with `stream` header, steps and records as events."""
        hosted = service.hosted(body.model)
        return await reply(
            service,
            request,
            body,
            hosted,
            lambda model: fill_ask(body, hosted, model, service.limits),
            body.n or 1,
            events=lambda answering: _events(answering, hosted),
            whole=lambda answering: _whole(answering, body, hosted),
        )

    return router


async def _whole(answering: Answering, body: bodies.Fill, hosted: Hosted) -> dict[str, Any]:
    ask, pieces = answering.ask, hosted.pieces
    assert isinstance(ask, FillAsk)
    records: dict[int, dict[str, Any]] = {}
    steps = traces.beginning(answering, pieces) if body.trace else []
    async for news in answering.news():
        if isinstance(news, Done):
            records[news.place] = ask.record(news.place, news.row)
        elif body.trace:
            steps.append(traces.step(news, pieces))
    ordered = [records[place] for place in range(len(ask.rows))]
    trace = {"trace": {"header": traces.header(answering, hosted, pieces), "steps": steps}} if body.trace else {}
    return {**ordered[0], **trace} if body.n is None else {"object": "list", "data": ordered, **trace}


async def _events(answering: Answering, hosted: Hosted) -> AsyncIterator[dict[str, Any]]:
    ask, pieces = answering.ask, hosted.pieces
    assert isinstance(ask, FillAsk)
    yield {"type": "header", **traces.header(answering, hosted, pieces)}
    for step in traces.beginning(answering, pieces):
        yield {"type": "step", **step}
    async for news in answering.news():
        if isinstance(news, Done):
            yield {"type": "record", **ask.record(news.place, news.row)}
        else:
            yield {"type": "step", **traces.step(news, pieces)}

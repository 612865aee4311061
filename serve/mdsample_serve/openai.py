"""OpenAI's surface: `/v1/models`, `/v1/completions`, `/v1/chat/completions`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from mdsample.models.denoiser import Denoiser
from mdsample.sampling.row import Row
from mdsample_serve import asking, bodies, refusals, traces
from mdsample_serve.answering import Answering, Done
from mdsample_serve.asking import Ask
from mdsample_serve.choices import Shape, finished, usage
from mdsample_serve.errors import as_json
from mdsample_serve.replying import reply
from mdsample_serve.service import Hosted, Service


def routes(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["OpenAI's"])

    @router.get("/v1/models")
    async def models() -> Response:
        """The models of this server."""
        return as_json({"object": "list", "data": [_about(hosted) for hosted in service.models.values()]})

    @router.get("/v1/models/{name}")
    async def model(name: str) -> Response:
        """One of them."""
        return as_json(_about(service.hosted(name)))

    @router.post("/v1/completions")
    async def completions(body: bodies.Completions, request: Request) -> Response:
        """Text after a prompt and, with `suffix`, before what follows: infilling."""
        refusals.check_completions(body)
        count = len(body.prompt) if isinstance(body.prompt, list) and not _is_ids(body.prompt) else 1
        seed = _seed(body)
        shape = Shape(
            service.hosted(body.model), body, seed, "cmpl", "text_completion", with_logprobs=body.logprobs == 0
        )
        return await _answer(
            service,
            request,
            shape,
            lambda model: asking.completion(body, model, seed, service.limits),
            count * (body.n or 1),
        )

    @router.post("/v1/chat/completions")
    async def chat(body: bodies.Chat, request: Request) -> Response:
        """The reply to a conversation."""
        refusals.check_chat(body)
        seed = _seed(body)
        shape = Shape(
            service.hosted(body.model), body, seed, "chatcmpl", "chat.completion", with_logprobs=bool(body.logprobs)
        )
        return await _answer(
            service, request, shape, lambda model: asking.chat(body, model, seed, service.limits), body.n or 1
        )

    return router


def _is_ids(prompt: list[Any]) -> bool:
    return bool(prompt) and isinstance(prompt[0], int)


def _seed(body: bodies.Layout) -> int:
    """The request's, or a new one, which the answer tells."""
    return secrets.randbelow(1 << 31) if body.seed is None else body.seed


def _about(hosted: Hosted) -> dict[str, Any]:
    about: dict[str, Any] = {"id": hosted.name, "object": "model", "created": hosted.created, "owned_by": "mdsample"}
    if hosted.worker.opened.done() and hosted.worker.opened.exception() is None:
        model = hosted.worker.model
        about |= {"template": model.template, "max_length": model.max_length, "backend": model.backend}
    return about


async def _answer(
    service: Service, request: Request, shape: Shape, make: Callable[[Denoiser], Ask], rows: int
) -> Response:
    """Of a request, as a whole or as a stream."""
    events, whole = partial(_chunks, shape), partial(_whole, shape)
    return await reply(service, request, shape.body, shape.hosted, make, rows, events=events, whole=whole)


async def _whole(shape: Shape, answering: Answering) -> dict[str, Any]:
    ask, rows, steps = answering.ask, dict[int, Row](), list[dict[str, Any]]()
    tokens = shape.hosted.pieces if shape.body.trace else None
    if tokens is not None:
        steps += traces.beginning(answering, tokens)
    async for news in answering.news():
        if isinstance(news, Done):
            rows[news.place] = news.row
        elif tokens is not None:
            steps.append(traces.step(news, tokens))
    done = [finished(shape, ask, place, rows[place]) for place in range(len(ask.rows))]
    before = ask.before or [""] * len(done)
    choices = [
        shape.choice(place, prompt + each.text, each.finish, each.logprobs, chunk=False)
        for place, (each, prompt) in enumerate(zip(done, before, strict=True))
    ]
    answer = {
        **shape.head(chunk=False),
        "choices": choices,
        "usage": usage(ask, rows, sum(each.tokens for each in done)),
    }
    if tokens is not None:
        answer["trace"] = {"header": traces.header(answering, shape.hosted, tokens), "steps": steps}
    return answer


async def _chunks(shape: Shape, answering: Answering) -> AsyncIterator[dict[str, Any]]:
    """Chunks: of each row the text that is final by then, and only what is new of it."""
    ask, rows, tokens = answering.ask, dict[int, Row](), 0
    told = [""] * len(ask.rows)
    head = shape.head(chunk=True)
    for place in range(len(ask.rows)):
        opening = shape.opening(place, ask.before[place] if ask.before else "")
        if opening is not None:
            yield {**head, "choices": [opening]}
    known = shape.hosted.pieces if shape.body.trace else None
    if known is not None:
        yield {**head, "choices": [], "canvas": traces.header(answering, shape.hosted, known)}
        for step in traces.beginning(answering, known):
            yield {**head, "choices": [], "canvas": step}
    async for news in answering.news():
        choices: list[dict[str, Any]] = []
        if isinstance(news, Done):
            done = finished(shape, ask, news.place, news.row)
            rows[news.place], tokens = news.row, tokens + done.tokens
            text = done.text.removeprefix(told[news.place])
            choices.append(shape.choice(news.place, text, done.finish, done.logprobs, chunk=True))
        else:
            moved: list[int] = news.event.rows.tolist()
            final = answering.final(news.state)
            for row in moved:
                place = answering.order[row]
                if place in rows or not news.state.active[row]:
                    continue
                now = ask.readers[place].told(news.state.tokens[row], final[row]).text
                now = ask.stops.sure(now)
                if len(now) > len(told[place]) and now.startswith(told[place]):
                    choices.append(shape.choice(place, now[len(told[place]) :], None, None, chunk=True))
                    told[place] = now
        if known is not None and not isinstance(news, Done):
            yield {**head, "choices": choices, "canvas": traces.step(news, known)}
        elif choices:
            yield {**head, "choices": choices}
    if shape.body.stream_options is not None and shape.body.stream_options.include_usage:
        yield {**head, "choices": [], "usage": usage(ask, rows, tokens)}

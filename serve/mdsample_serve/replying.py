"""Replying: rows that the worker fills, told as a whole or as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request
from starlette.responses import Response

from mdsample.models.denoiser import Denoiser
from mdsample_serve import bodies
from mdsample_serve.answering import Answering
from mdsample_serve.asking import Ask
from mdsample_serve.errors import as_json
from mdsample_serve.events import Events, unless_gone
from mdsample_serve.service import Hosted, Service
from mdsample_serve.wishes import parsed

#: a body with one of these may have expressions to compile
_COMPILED = ("regex(", "integer(", "number(", "date(", "schema(", "choices(")


async def reply(
    service: Service,
    request: Request,
    body: bodies.OpenAI | bodies.Fill,
    hosted: Hosted,
    make: Callable[[Denoiser], Ask],
    rows: int,
    *,
    events: Callable[[Answering], AsyncIterator[Mapping[str, Any]]],
    whole: Callable[[Answering], Awaitable[Any]],
) -> Response:
    """The answer to a body whose rows `make` prepares: `events` of a stream, else JSON of the `whole`."""
    if body.policy is not None:
        parsed(body.policy)  # a mistake in it is told before anything else is looked at
    stack = AsyncExitStack()
    steps = bool(body.stream) or body.trace

    async def ready() -> Answering:
        return await stack.enter_async_context(
            service.answering(hosted, make, rows=rows, slow=_is_slow(body), steps=steps, looks=body.trace)
        )

    if body.stream:
        try:
            answering = await ready()
        except BaseException:
            await stack.aclose()
            raise
        return Events(events(answering), service.limits, stack.aclose)

    async def told() -> Any:
        return await whole(await ready())

    try:
        answer = await unless_gone(request.receive, asyncio.create_task(told()))
    finally:
        await stack.aclose()
    return Response(status_code=499) if answer is None else as_json(answer)


def _is_slow(body: bodies.Layout) -> bool:
    """Whether it may have expressions to compile."""
    formatted = isinstance(body, bodies.Chat) and body.response_format is not None
    schema = isinstance(body, bodies.Fill) and body.schema_ is not None
    wished = any(not isinstance(wish, int) for wish in (body.slots or {}).values())
    named = any(name in body.policy for name in _COMPILED) if body.policy else False
    return formatted or schema or wished or named or body.regex is not None

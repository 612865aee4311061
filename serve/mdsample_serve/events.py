"""Events: an answer that comes bit by bit, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mdsample_serve.errors import Refused, failed
from mdsample_serve.limits import Limits

_log = logging.getLogger("mdsample_serve")


class Events(Response):
    """Sends what an iterator gives, a line of JSON each, then `[DONE]`.

    A reader that is gone, or takes nothing for too long, ends the iterator. After some silence a comment is sent.
    """

    media_type = "text/event-stream"

    def __init__(
        self, items: AsyncIterator[Mapping[str, Any]], limits: Limits, close: Callable[[], Awaitable[None]]
    ) -> None:
        """`close`: called at the end, whatever the end is."""
        super().__init__(None, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._items, self._limits, self._close = items, limits, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One answer."""
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        sending = asyncio.create_task(self._send(headers, send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            with suppress(asyncio.CancelledError, TimeoutError, OSError):
                await sending
            with suppress(asyncio.CancelledError):
                await gone
            await self._close()

    async def _send(self, headers: list[tuple[bytes, bytes]], send: Send) -> None:
        async def write(data: bytes, more: bool = True) -> None:
            async with asyncio.timeout(self._limits.patience):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        waiting: asyncio.Task[Mapping[str, Any]] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(self._items))
                ready, _ = await asyncio.wait({waiting}, timeout=self._limits.heartbeat)
                if not ready:
                    await write(b": still here\n\n")
                    continue
                try:
                    item = waiting.result()
                except StopAsyncIteration:
                    break
                except Exception as fault:
                    if not isinstance(fault, Refused):
                        _log.exception("a stream failed")
                    refusal = fault if isinstance(fault, Refused) else failed()
                    await write(line({"type": "error", **refusal.error}))
                    break
                finally:
                    waiting = None
                await write(line(item))
            await write(b"data: [DONE]\n\n", more=False)
        finally:
            if waiting is not None:
                waiting.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration, Refused):
                    await waiting


def line(item: Mapping[str, Any]) -> bytes:
    """An event; in ASCII, so no letter of a text ends a line."""
    return b"data: " + json.dumps(item, allow_nan=False).encode() + b"\n\n"


async def _gone(receive: Receive) -> None:
    """Until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Receive, work: asyncio.Task[Any]) -> Any:
    """The result of some work, which is cancelled if the client goes away; then `None`."""
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        return None
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        if work.cancelled() or not work.done():
            with suppress(asyncio.CancelledError, Refused):
                await work

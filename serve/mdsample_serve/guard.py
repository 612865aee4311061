"""Guard: what every request passes before a handler sees it, as plain ASGI.

Keys, hosts and origins, the size of a body and the time in which it has to come; headers of every answer.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mdsample_serve.errors import Refused, failed
from mdsample_serve.limits import Limits
from mdsample_serve.metrics import Metrics

_log = logging.getLogger("mdsample_serve")
#: what may be asked without a key: it says nothing
_OPEN = ("/healthz", "/readyz")
#: where the page is, which holds no secret
_NEEDS_KEY = ("/v1/", "/metrics", "/docs", "/openapi.json")
#: names that mean this machine
LOOPBACK = ("127.0.0.1", "localhost", "::1")

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@attrs.frozen(eq=False)
class Guard:
    """An ASGI application around another one."""

    app: ASGIApp
    limits: Limits
    metrics: Metrics
    #: who may ask; nobody in particular if there are none
    keys: Sequence[bytes] = attrs.field(repr=False)
    #: other sites whose pages may ask
    origins: Sequence[str]
    #: names by which this server may be called; without a key, so that no page of a stranger gets here by a name of
    #: its own that means this machine
    hosts: Sequence[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        origin = headers.get("origin", b"").decode("latin-1")

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _with_headers(message["headers"], origin in self.origins)}
            await send(message)

        try:
            self._admit(scope, headers, origin)
            body = await self._body(headers, receive) if scope["method"] == "POST" else None
            await self.app(scope, receive if body is None else _replayed(body, receive), answer)
        except Refused as refusal:
            if status == 0:
                await refusal.response()(scope, receive, answer)
        except Exception:
            # nothing of the request is in the log, and nothing of the fault in the answer
            _log.exception("a request failed")
            if status == 0:
                await failed().response()(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.request_seconds.labels(route).observe(time.perf_counter() - began)

    def _admit(self, scope: Scope, headers: dict[str, bytes], origin: str) -> None:
        """`Refused` for who may not ask."""
        if not self.keys and _name(headers.get("host", b"").decode("latin-1")) not in self.hosts:
            raise Refused(403, "this server answers to other names only; call it by 127.0.0.1 or localhost")
        own = urlsplit(origin).netloc.encode("latin-1") == headers.get("host", b"")
        preflight = scope["method"] == "OPTIONS"
        if origin and not own and origin not in self.origins:
            raise Refused(403, "pages of other sites may not ask here; start the server with --cors for them")
        path: str = scope["path"]
        if self.keys and not preflight and path not in _OPEN and path.startswith(_NEEDS_KEY):
            kind, _, key = headers.get("authorization", b"").partition(b" ")
            known = [hmac.compare_digest(key.strip(), one) for one in self.keys]  # all of them, whichever it is
            if kind.lower() != b"bearer" or not any(known):
                raise Refused(401, "a key is needed: Authorization: Bearer KEY", code="invalid_api_key")

    async def _body(self, headers: dict[str, bytes], receive: Receive) -> bytes:
        most = self.limits.body
        too_large = Refused(413, f"the body has more than {most:,} bytes", code="body_too_large")
        length = headers.get("content-length", b"")
        if length.isdigit() and len(length) < 20 and int(length) > most:
            raise too_large
        body, until = b"", asyncio.get_running_loop().time() + self.limits.patience
        while True:
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"the body did not come within {self.limits.patience:g} s") from None
            if message["type"] == "http.disconnect":
                raise Refused(400, "the body was cut off")
            body += message.get("body", b"")
            if len(body) > most:
                raise too_large
            if not message.get("more_body", False):
                return body


def _with_headers(headers: Sequence[tuple[bytes, bytes]], other_site: bool) -> list[tuple[bytes, bytes]]:
    there = {name.lower() for name, _ in headers}
    more = {**HEADERS, "cross-origin-resource-policy": "cross-origin"} if other_site else HEADERS
    return [
        *headers,
        *((name.encode(), value.encode()) for name, value in more.items() if name.encode() not in there),
    ]


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read already, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _name(host: str) -> str:
    """A host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def read_keys(data: bytes) -> list[bytes]:
    """The keys of a file, one a line; `ValueError` if there are none, or one is too short to be a secret."""
    keys: list[Any] = [line.strip() for line in data.splitlines()]
    keys = [key for key in keys if key and not key.startswith(b"#")]
    if not keys:
        raise ValueError("holds no key; write one a line")
    if short := [number for number, key in enumerate(keys, 1) if len(key) < 16]:
        raise ValueError(
            f"key {short[0]} is shorter than 16 characters; make it longer, say with: openssl rand -hex 24"
        )
    return keys

"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.responses import Response


class Refused(Exception):
    """A request that is not answered."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, wait: int | None = None
    ) -> None:
        """`param`: the field that is wrong. `code`: a word for programs. `wait`: seconds until a retry makes sense."""
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.wait = status, message, param, code, wait

    @property
    def error(self) -> dict[str, Any]:
        """The object that a client reads."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """The whole answer."""
        headers = {} if self.wait is None else {"Retry-After": str(self.wait)}
        return as_json(self.error, self.status, headers)


_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def wrong(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """A request that cannot be honoured as it is."""
    return Refused(400, message, param=param, code=code)


@contextmanager
def about(param: str) -> Generator[None]:
    """Says of the library's errors which field of the body they are about.

    Settings out of their range are a plain `ValueError`, so nothing goes in here but what reads or makes them.
    """
    try:
        yield
    except ValueError as fault:
        raise wrong(str(fault), param) from fault


def failed() -> Refused:
    """What nobody expected; nothing of the fault is in it."""
    return Refused(500, "the server failed on this request; its log says how")


def half_letter(value: object) -> str | None:
    """Half of a surrogate pair somewhere in a value, which no tokenizer can read; JSON may hold one."""
    left = [value]
    while left:  # no recursion: a body may be nested as deeply as JSON can be
        one = left.pop()
        if isinstance(one, str):
            if half := _HALF.search(one):
                return f"U+{ord(half[0]):04X}"
        elif isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(one, list | tuple):
            left += one
    return None


_HALF = re.compile("[\ud800-\udfff]")


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in ASCII, which half of a surrogate pair in it cannot break."""
    return Response(json.dumps(value, allow_nan=False), status, dict(headers or {}), "application/json")

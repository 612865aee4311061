"""The application: routes, errors in one shape, the page, and the guard around them all."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from mdsample._version import __version__
from mdsample.errors import MdsampleError
from mdsample_serve import filling, openai, own
from mdsample_serve.errors import Refused, failed, wrong
from mdsample_serve.guard import Guard
from mdsample_serve.service import Service


def application(service: Service, *, keys: Sequence[bytes], origins: Sequence[str], hosts: Sequence[str]) -> ASGIApp:
    """What uvicorn serves; the arguments as in `Guard`."""
    app = FastAPI(
        title="mdsample",
        version=__version__,
        summary="Masked diffusion language models: OpenAI's endpoints, with slots and policies.",
        docs_url=None,
        redoc_url=None,
        # a strict server answers with 400 and OpenAI's shape, not with 422 and FastAPI's
        responses={400: {"description": "What is wrong, in OpenAI's shape."}},
    )
    routers = [openai.routes(service), filling.routes(service), own.routes(service)]
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(MdsampleError, _library)
    app.add_exception_handler(RequestValidationError, _invalid)
    endpoints = [route for router in routers for route in router.routes]
    app.add_exception_handler(HTTPException, partial(_http, endpoints))
    # the fault itself goes on to the guard, which writes it into the log
    app.add_exception_handler(Exception, _unexpected)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(_documentation(app.openapi()), media_type="text/html")

    app.mount("/", StaticFiles(directory=str(files("mdsample_serve") / "page"), html=True))
    inner: ASGIApp = app
    if origins:
        inner = CORSMiddleware(
            app,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    return Guard(inner, service.limits, service.metrics, keys, origins, hosts)


#: what pydantic calls the ways to read a value
_WAYS = frozenset({"str", "int", "SlotWish"})
#: what JSON calls values
_JSON = {
    "list": "a list",
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "NoneType": "null",
}


async def _refused(_: Request, fault: Exception) -> Response:
    assert isinstance(fault, Refused)
    return fault.response()


async def _library(_: Request, fault: Exception) -> Response:
    return wrong(str(fault)).response()


async def _unexpected(_: Request, fault: Exception) -> Response:
    return failed().response()


async def _http(endpoints: Sequence[BaseRoute], request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)
    status, path, others = fault.status_code, request.url.path, _methods(endpoints, request.scope)
    if status in (404, 405):
        # the page's files lie beneath all paths, so theirs is the word on an endpoint that takes other methods
        status = 405 if others else 404 if path.startswith("/v1/") else status
    if status == 404:
        return Refused(404, "there is nothing here; GET /docs lists the endpoints").response()
    if status == 405:
        allowed = ", ".join(others or ["GET", "HEAD"])
        response = Refused(405, f"{request.method:.20} is not taken here; send {allowed}").response()
        response.headers["Allow"] = allowed
        return response
    return Refused(status, str(fault.detail)).response()


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """The methods that the endpoint of a path takes, if there is one and it does not take that of the request."""
    others = [route for route in routes if isinstance(route, Route) and route.matches(scope)[0] is Match.PARTIAL]
    return sorted({method for route in others for method in route.methods or ()})


async def _invalid(request: Request, fault: Exception) -> Response:
    """The first thing that is wrong with a body, in a sentence."""
    assert isinstance(fault, RequestValidationError)
    first: dict[str, Any] = fault.errors()[0]
    where = [str(part) for part in first["loc"][1:]]
    # pydantic names the ways to read a value that has several
    named = [part for part in where if part not in _WAYS and not part.startswith("list[")]
    place, kind, given = ".".join(named), first["type"], first.get("input")
    if isinstance(given, bytes):  # nobody has read it, and nothing of it is repeated
        sent = request.headers.get("content-type")
        got = "none was sent" if sent is None else f"got {sent!r:.60}"
        return wrong(f"the body must be sent as Content-Type: application/json; {got}").response()
    if named != where and kind != "extra_forbidden":
        return wrong(f"{place} has none of the forms that it may have; GET /docs lists them", named[0]).response()
    match kind:
        case "json_invalid":
            return wrong("the body is not JSON").response()
        case "extra_forbidden":
            return wrong(f"there is no field {place[:80]!r} here; GET /docs lists them", place[:80]).response()
        case "not_unicode":
            return wrong(f"{place}: {first['msg']}; remove or replace it", named[0]).response()
        case "missing" if not place:
            return wrong("the body is empty; send a JSON object").response()
        case _ if not place:
            return wrong(f"the body must be a JSON object; got {_JSON[type(given).__name__]}").response()
        case "missing":
            return wrong(f"the field {place!r} is missing", place).response()
        case _:
            got = "" if isinstance(given, dict | list) else f"; got {given!r:.60}"
            return wrong(f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}{got}", place).response()


def _documentation(schema: dict[str, Any]) -> str:
    """The endpoints and their fields as a page without scripts: one from elsewhere would break the page's policy."""
    shapes: dict[str, Any] = schema.get("components", {}).get("schemas", {})
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>mdsample: API</title><link rel=stylesheet href=style.css><main><h1>mdsample's API</h1>"
        "<p>OpenAI's clients work with it: set their base URL to this server's /v1. "
        "As a file: <a href=openapi.json>openapi.json</a>.</p>"
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(operation.get('description', ''))}</p>")
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            shape = shapes.get(body.get("$ref", "").rpartition("/")[2])
            parts.append(_fields(shape) if shape else "")
    return "".join(parts) + "</main></html>"


def _fields(shape: dict[str, Any]) -> str:
    required = shape.get("required", [])
    rows = [
        f"<dt><code>{html.escape(name)}</code> {html.escape(_kind(field))}{' (required)' * (name in required)}</dt>"
        f"<dd>{html.escape(field.get('description', ''))}</dd>"
        for name, field in shape.get("properties", {}).items()
    ]
    return f"<dl>{''.join(rows)}</dl>"


def _kind(field: dict[str, Any]) -> str:
    ways = field.get("anyOf") or field.get("oneOf") or [field]
    names = [str(way.get("type") or way.get("$ref", "").rpartition("/")[2] or "anything") for way in ways]
    return " or ".join(dict.fromkeys(name for name in names if name != "null"))

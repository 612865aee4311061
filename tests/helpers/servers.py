"""A server in a thread, on a port of its own, and a model whose passes can be made to fail or to wait."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import httpx
import openai
from mdsample_serve.limits import Limits
from mdsample_serve.server import Address, Server, service_of
from mdsample_serve.service import Service

from mdsample.models.denoiser import Denoiser, Prediction, Query


class Troubled(Denoiser):
    """A model that fails on rows which hold a token, and waits at a gate."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.about)
        self.inner = inner
        self.poison: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.passes: list[int] = []

    def predict(self, query: Query) -> Prediction:
        self.gate.wait(20)
        self.passes.append(len(query.tokens))
        if self.poison is not None and (query.tokens == self.poison).any():
            raise RuntimeError("the device is gone")
        return self.inner.predict(query)


@attrs.frozen
class Here:
    """A running server."""

    url: str
    service: Service
    model: Troubled
    port: int
    client: openai.OpenAI

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=60, **more)

    def events(self, path: str, body: Any) -> list[dict[str, Any]]:
        """What a stream gives, `[DONE]` checked and left out."""
        lines = [
            line for line in self.post(path, {**body, "stream": True}).text.splitlines() if line.startswith("data: ")
        ]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    def idle(self) -> bool:
        """Waits until nothing runs, and nothing has room in the queue; false if that does not come about."""
        worker = next(iter(self.service.models.values())).worker
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if not (worker._running or worker._reserved or worker._turns or worker.engine.running):
                return True
            time.sleep(0.01)
        return False


@contextmanager
def serving(
    model: Denoiser,
    *,
    batch_size: int = 4,
    limits: Limits | None = None,
    name: str = "tiny",
    others: Mapping[str, Denoiser] | None = None,
    **address: Any,
) -> Iterator[Here]:
    """A server of a model, which clients call `name`, and perhaps of others."""
    troubled = Troubled(model)
    models = {name: troubled, **(others or {})}
    opening = {each: (lambda found=found: found, None) for each, found in models.items()}
    service = service_of(opening, batch_size=batch_size, limits=limits or Limits())
    server = Server(service, Address(port=0, **address))
    listening = server.listen()
    thread = threading.Thread(target=server.serve_forever, args=[listening])
    thread.start()
    port: int = listening.getsockname()[1]
    try:
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{port}"
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            yield Here(url, service, troubled, port, client)
    finally:
        troubled.gate.set()
        server.should_exit = True
        thread.join(20)

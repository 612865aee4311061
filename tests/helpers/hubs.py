"""A hub on this machine, which takes down what is asked of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
import huggingface_hub
import huggingface_hub.constants
import pytest


@attrs.define
class Hub:
    """What it serves, and what was asked of it."""

    #: org/tiny
    folder: Path
    #: bytes of weights that were sent in parts
    sent: int = 0
    #: files of weights that were asked for whole
    whole: set[str] = attrs.field(factory=set[str])
    #: whether parts of files can be had
    ranges: bool = True
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    #: what revisions were asked for, of which model
    revisions: set[str] = attrs.field(factory=set[str])
    #: what else it serves
    others: Mapping[str, Path] = attrs.field(factory=dict[str, Path])

    def answer(self, path: str, part: str | None) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a path and its Range."""
        for name, folder in {"org/tiny": self.folder, **self.others}.items():
            if path.removeprefix("/api/models").startswith(f"/{name}/"):
                return self._answer(name, folder, path, part)
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def _answer(self, name: str, folder: Path, path: str, part: str | None) -> tuple[int, bytes, dict[str, str]]:
        files = sorted(file for file in folder.iterdir() if file.is_file())
        if path.startswith(f"/api/models/{name}/tree/"):
            found = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
            return 200, json.dumps(found).encode(), {}
        if path.startswith(f"/api/models/{name}/revision/"):
            self.revisions |= {f"{name}@{path.rsplit('/', 1)[1]}"}
            siblings = [{"rfilename": file.name} for file in files]
            return 200, json.dumps({"id": name, "sha": self.commit, "siblings": siblings}).encode(), {}
        if not path.startswith(f"/{name}/resolve/{self.commit}/"):
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        file = folder / path.rsplit("/", 1)[1]
        headers = {"X-Repo-Commit": self.commit, "ETag": f'"{self.commit}-{file.name}"'}
        if part is None:
            self.whole |= {file.name} if file.suffix == ".safetensors" else set()
            return 200, file.read_bytes(), headers
        first, last = map(int, part.removeprefix("bytes=").split("-"))
        with file.open("rb") as opened:
            opened.seek(first)
            body = opened.read(last + 1 - first)
        self.sent += len(body)
        return 206 if self.ranges else 200, body, headers


@contextmanager
def serving(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """Lets `huggingface_hub` ask this one, and keep what it gets in an empty cache."""
    served = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = served.answer(self.path.partition("?")[0], self.headers["Range"])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=[0.01], daemon=True)
        thread.start()
        where = f"http://127.0.0.1:{listening.server_port}"
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", where)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", where + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield served
        huggingface_hub.close_session()
        listening.shutdown()
        thread.join()

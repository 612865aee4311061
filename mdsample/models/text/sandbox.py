"""Jinja that came with a checkpoint, so anybody's: rendered as transformers renders chat templates, in a sandbox.

It sees the values that it is given, and neither Python's insides nor files. It runs in a process of its own
(`rendering`), which may use little time and memory and is ended if it uses more. One such process serves all
renderings of this one.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import final

from mdsample.errors import RenderError

#: rounds of loops, and calls of macros and blocks; a chat template takes a few per message
STEPS = 10_000
#: characters; instructions to a model and descriptions of tools fill a few thousand
LONGEST = 100_000
#: of the processor; a chat template takes some milliseconds
SECONDS = 0.5
#: of memory, beside what Python and Jinja take
MEGABYTES = 256

_PATIENCE = 10  # seconds by the clock, for a machine that is busy with other things


def render(source: str, values: Mapping[str, object]) -> str:
    """The text that a template writes, with `values` (as JSON has them) as its variables; raises `RenderError`."""
    global _child
    request = json.dumps({"source": source, "values": dict(values)})
    with _lock:
        if _child is None or not _child.mine:
            _child = _Child()
        try:
            answer = _child.ask(request)
        except BaseException:  # an interrupt too: its answer must not be taken for the next one's
            _child.end()
            _child = None
            raise
    if "error" in answer:
        raise RenderError(answer["error"])
    return answer["text"]


@final
class _Child:
    """The process that renders."""

    def __init__(self) -> None:
        limits = {"steps": STEPS, "longest": LONGEST, "seconds": SECONDS, "megabytes": MEGABYTES}
        script = str(Path(__file__).with_name("rendering.py"))
        self._parent = os.getpid()
        try:
            # isolated: nothing of its environment is imported, this folder included
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", script, json.dumps(sys.path), json.dumps(limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise RenderError(f"there is no Python to render it with ({error})") from error
        atexit.register(self.end)

    @property
    def mine(self) -> bool:
        """Whether this process started it, and not one that it was forked from."""
        return self._parent == os.getpid()

    def ask(self, request: str) -> dict[str, str]:
        """Its answer; `RenderError` if it came to an end over it."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        watch = threading.Timer(_PATIENCE, process.kill)
        watch.start()
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        late = watch.finished.is_set()
        watch.cancel()
        if line.endswith(b"\n"):
            return json.loads(line)
        code = process.wait()
        if late or (sys.platform != "win32" and code == -signal.SIGPROF):
            raise RenderError(f"it takes more than {SECONDS:g} s")
        raise RenderError(f"the process that renders it came to an end with exit code {code}")

    def end(self) -> None:
        """It is gone after this, if this process started it."""
        atexit.unregister(self.end)
        if self.mine:
            with suppress(OSError), self._process as process:  # what it no longer reads is left unsaid
                process.kill()


_lock = threading.Lock()
_child: _Child | None = None

"""Lines: a file of JSON lines that grows by one line at a time and can be cut off by a kill anywhere."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from mdsample.errors import RecordError

#: what a record's line begins with
OPENING = b'{"id": '


class Lines:
    """A file to append to; a context manager. Lines leave the process at once and are durable within about a second."""

    def __init__(self, path: Path, read: Callable[[bytes], bytes]) -> None:
        """`read` takes what is in the file and gives what is to be kept of it; raises `RecordError`."""
        self.path = path
        self._synced = time.monotonic()
        try:
            if path.is_file():
                data = path.read_bytes()
                kept = read(data)
                if kept != data:
                    replace(path, kept)
            self._file: BinaryIO = path.open("ab")
        except OSError as fault:
            raise RecordError(f"cannot write {path}: {fault.strerror or fault}") from fault

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes a record."""
        with self._named():
            self._file.write(line(record).encode() + b"\n")
            self._file.flush()
            if time.monotonic() - self._synced > 1:
                self._sync()

    def __enter__(self) -> Self:
        """The file, open for appending."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        with self._named():
            self._sync()
            self._file.close()

    @contextmanager
    def _named(self) -> Generator[None]:
        """An error of the system on an open file says which file that is."""
        try:
            yield
        except OSError as fault:
            raise OSError(fault.errno, fault.strerror, str(self.path)) from fault

    def _sync(self) -> None:
        if self.path.is_file():
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def line(record: Mapping[str, Any]) -> str:
    """A record as one line of ASCII, so that it survives any terminal, pipe and line reader."""
    return json.dumps(record)


def finite(number: float) -> float | None:
    """The number, or `None` for infinity, which JSON does not have."""
    return number if math.isfinite(number) else None


def parsed(raw: bytes) -> dict[str, Any] | None:
    """The JSON object that a line holds, an empty one for other JSON; `None` for what is no JSON."""
    try:
        found: object = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def replace(path: Path, data: bytes) -> None:
    """New contents, whole or not at all; a link stays a link, and the file keeps its permissions."""
    path = path.resolve()
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    shutil.copymode(path, part)
    part.replace(path)

"""Answers: a file of JSON lines that keeps every answer of a benchmark, so that none is computed twice.

Each line carries all that decides it (task, model, policy, template, seed …), so one file may hold any number of models
and policies. Lines of other comparisons are left alone; a last line that a kill cut off is taken away.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from mdsample.records import Record, RecordError, finite, line, replace

#: what decides an answer besides its problem
KEY = ("task", "model", "backend", "cache", "policy", "template", "seed")
_OPENING = b'{"id": '


@attrs.frozen
class Answered:
    """One problem answered by one policy."""

    id: int | str
    #: what the task read out of the row, and what is right
    answer: str
    expected: str
    solved: bool
    #: all that the model wrote
    text: str
    nfe: int
    steps: int
    #: blanks filled
    filled: int
    error_bound: float
    tv_bound: float
    #: wall-clock time since the answer before it, or since the start
    seconds: float


_FIELDS = tuple(field.name for field in attrs.fields(Answered))


class Answers:
    """The file; a context manager. Lines are written when rows are done and made durable about once a second."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; raises `RecordError` if that is no file of answers."""
        self._path = path
        self._found: dict[tuple[object, ...], dict[int | str, Answered]] = {}
        self._synced = time.monotonic()
        try:
            if path.is_file():
                self._read()
            self._file = path.open("ab")
        except OSError as fault:
            raise RecordError(f"cannot write {path}: {fault.strerror or fault}") from fault

    def found(self, key: Mapping[str, object], expected: Mapping[int | str, str]) -> dict[int | str, Answered]:
        """Answers to these problems under `key`; `RecordError` if one was judged by another right answer."""
        there = self._found.get(tuple(key[name] for name in KEY), {})
        for name, answered in there.items():
            if name in expected and answered.expected != expected[name]:
                raise RecordError(
                    f"{self._path} answers problem {name!r} of other data: {answered.expected!r} is right there, "
                    f"{expected[name]!r} here; give another --output"
                )
        return {name: answered for name, answered in there.items() if name in expected}

    def write(self, key: Mapping[str, object], answered: Answered, **more: object) -> None:
        """Appends an answer."""
        told = attrs.asdict(answered) | {"error_bound": finite(answered.error_bound)}
        record: Record = {**told, **{name: key[name] for name in KEY}, **more}
        self._file.write(line(record).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > 1:
            self._sync()

    def __enter__(self) -> Answers:
        """The file, open for appending."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._sync()
        self._file.close()

    def _sync(self) -> None:
        if self._path.is_file():
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _read(self) -> None:
        *lines, last = self._path.read_bytes().split(b"\n")
        for number, raw in enumerate(lines, 1):
            record = _parsed(raw)
            if record is None:
                raise RecordError(f"line {number} of {self._path} is no answer of a benchmark; give another --output")
            key = tuple(record[name] for name in KEY)
            answered = Answered(**{name: record[name] for name in _FIELDS})
            if record["error_bound"] is None:
                answered = attrs.evolve(answered, error_bound=math.inf)
            self._found.setdefault(key, {})[answered.id] = answered
        if last and not (last.startswith(_OPENING) or _OPENING.startswith(last)):
            raise RecordError(f"{self._path} is not a file of answers, and is left alone; give another --output")
        if last:
            replace(self._path, b"".join(raw + b"\n" for raw in lines))


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        record: object = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    found = cast("dict[str, Any]", record) if isinstance(record, dict) else {}
    return found if found.keys() >= {*KEY, *_FIELDS} and type(found["id"]) in (int, str) else None

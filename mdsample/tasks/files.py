"""Files of data sets: rows as JSON objects, one a line, and faults that name the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from mdsample.core.files import read_whole
from mdsample.core.sources import is_table, open_source
from mdsample.errors import RecordError
from mdsample.tasks.catalog import Problem


class Where:
    """A line of a file, for messages."""

    def __init__(self, path: Path, line: int, number: int, unit: str = "line") -> None:
        """`number`: of the row, from 0."""
        self.number = number
        self._said = f"{path}, {unit} {line}"

    def __str__(self) -> str:
        """The file and the line."""
        return self._said


def read_once(problems: Callable[[], Iterator[Problem]]) -> Callable[[], tuple[Problem, ...]]:
    """Reads once; ids must differ."""
    kept: list[tuple[Problem, ...]] = []

    def read() -> tuple[Problem, ...]:
        if not kept:
            loaded = tuple(problems())
            names = [problem.id for problem in loaded]
            for name in names:
                if isinstance(name, bool) or not isinstance(name, int | str):  # pyright: ignore[reportUnnecessaryIsInstance]
                    raise RecordError(f"an id must be text or a whole number; got {name!r:.40}")
            if twice := [name for name, times in Counter(names).items() if times > 1]:
                raise RecordError(f"two problems have the id {twice[0]!r}")
            kept.append(loaded)
        return kept[0]

    return read


def text_of(path: Path) -> str:
    """A data set's file as text, unpacked where it is packed by gzip; `RecordError`."""
    try:
        data = read_whole(path)
        return (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise RecordError(f"{path} is not UTF-8 (byte {fault.start})") from fault
    except (OSError, EOFError, zlib.error) as fault:
        raise RecordError(f"cannot read {path}: {getattr(fault, 'strerror', None) or fault}") from fault


def rows_of(path: Path) -> Iterator[tuple[Where, Mapping[str, Any]]]:
    """The JSON objects of a file, one a line, or the rows of a table; `RecordError`, which names the line."""
    if is_table(str(path)):
        try:
            for number, raw in enumerate(open_source(str(path))):
                yield Where(path, number, number, "row"), cast("Mapping[str, Any]", raw.value)
        except OSError as fault:
            raise RecordError(f"cannot read {path}: {fault.strerror or fault}") from fault
        return
    filled = [(i, line) for i, line in enumerate(text_of(path).split("\n"), 1) if line.strip()]
    if not filled:
        raise RecordError(f"{path} holds no problems")
    for number, (i, line) in enumerate(filled):
        where = Where(path, i, number)
        try:
            row = row_object(line)
        except RecordError as fault:
            raise RecordError(f"{where}: {fault}") from fault
        yield where, row


def row_object(line: str | bytes) -> dict[str, Any]:
    """The JSON object that a line of data is; `RecordError` if it is none."""
    try:
        row: object = json.loads(line)
    except (ValueError, RecursionError) as fault:
        raise RecordError(f"this is not JSON: {fault}") from fault
    if not isinstance(row, dict):
        raise RecordError(f"a row must be a JSON object; got {row!r:.40}")
    return cast("dict[str, Any]", row)


def text_in(row: Mapping[str, Any], name: str, where: Where) -> str:
    """A text or whole number under a key, as text; `RecordError`."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        fault = f"is {value!r:.40}" if name in row else f"is not there; there are: {', '.join(row) or 'no keys'}"
        raise RecordError(f"{where}: {name!r} must be text or a whole number; it {fault}")
    return str(value)

"""Records as Parquet: JSON lines while a job runs, and a Parquet file when it is done.

A Parquet file has its index at the end, so nothing can be appended to it. A job therefore grows `NAME.parquet.jsonl`,
from which it resumes; when it ends without an interrupt these lines become `NAME.parquet`, whole or not at all, and are
removed. A job that is given a finished file makes lines of it first, so more rows can be added.

Nothing is lost on the way: a column keeps its values as Parquet's own types where reading gives the same values back,
and is JSON text where it does not (objects with other keys from row to row, say); which ones are is in the schema.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import attrs

from mdsample.core.extra import needed
from mdsample.core.files import locked, mode, require_writable, write_whole
from mdsample.core.sources import PARQUET
from mdsample.errors import RecordError
from mdsample.jobs.lines import OPENING, line

Record = Mapping[str, Any]
#: rows of a row group
_GROUP = 1024
_PIECE = 1 << 20
#: in the metadata of a column that holds JSON text
_JSON = {b"mdsample": b"json"}
_PURPOSE = "writing Parquet"


@contextmanager
def as_lines(path: Path) -> Generator[Path]:
    """The file of JSON lines that a job grows for `path`: itself, or for Parquet one beside it.

    Parquet is written when the block ends without an error. Raises `RecordError` if pyarrow is missing, or if what is
    there holds no records, and `WriteError`.
    """
    if path.suffix.lower() != PARQUET:
        yield path
        return
    needed("pyarrow.parquet", "data", _PURPOSE)
    lines = path.with_name(path.name + ".jsonl")
    require_writable(path)
    with locked(path):
        if mode(path) and not mode(lines):
            write_whole(lines, (line(record).encode() + b"\n" for record in records_of(path)))
        yield lines
        if mode(lines) and lines.stat().st_size:
            to_parquet(lines, path)
        with suppress(OSError):
            lines.unlink()


def records_of(path: Path) -> Iterator[Record]:
    """The records in a Parquet file that a job wrote; `RecordError` if it holds none."""
    parquet = needed("pyarrow.parquet", "data", _PURPOSE)
    try:
        with parquet.ParquetFile(path) as file:
            as_json = {field.name for field in file.schema_arrow if _JSON.items() <= (field.metadata or {}).items()}
            if file.schema_arrow.names[:1] != ["id"]:
                raise RecordError(f"{path} is not a file of records, and is left alone; give another --output")
            told: dict[bytes, bytes] = file.schema_arrow.metadata or {}
            nulls: list[str] = json.loads(told.get(b"mdsample", b"[]"))
            for batch in file.iter_batches(batch_size=_GROUP):
                for row in batch.to_pylist():
                    yield {
                        name: json.loads(value) if name in as_json and value is not None else value
                        for name, value in row.items()
                        if value is not None or name in nulls
                    }
    except (OSError, ValueError) as fault:
        raise fault if isinstance(fault, RecordError) else RecordError(f"cannot read {path}: {fault}") from fault


def to_parquet(lines: Path, path: Path) -> None:
    """Writes records as Parquet, whole or not at all; of many rows a row group at most is in memory."""
    columns = _columns(lines)
    arrow, parquet = needed("pyarrow", "data", _PURPOSE), needed("pyarrow.parquet", "data", _PURPOSE)
    fields = [
        arrow.field(name, arrow.string() if column.as_json else column.type, metadata=_JSON if column.as_json else None)
        for name, column in columns.items()
    ]
    nulls = [name for name, column in columns.items() if column.null and not column.as_json]
    schema = arrow.schema(fields, metadata={b"mdsample": json.dumps(nulls).encode()})
    with TemporaryDirectory(prefix=".mdsample-", dir=path.parent) as folder:
        made = Path(folder, "records")
        with parquet.ParquetWriter(made, schema) as writer:
            for group in _groups(lines):
                writer.write_table(arrow.table([_array(arrow, c, n, group) for n, c in columns.items()], schema=schema))
        with open(made, "rb") as file:
            write_whole(path, iter(lambda: file.read(_PIECE), b""))


@attrs.define
class _Column:
    """What a column holds, over all rows."""

    #: Arrow's type of its values
    type: Any
    #: whether some row has null there, and whether some row lacks it
    null: bool = False
    absent: bool = False
    #: whether Arrow cannot give the same values back
    as_json: bool = False


def _columns(lines: Path) -> dict[str, _Column]:
    """Two turns through the rows: one to learn the types, one to see that they give the same values back."""
    arrow = needed("pyarrow", "data", _PURPOSE)
    columns: dict[str, _Column] = {}
    seen = 0
    for group in _groups(lines):
        for name in dict.fromkeys(name for record in group for name in record):
            column = columns.setdefault(name, _Column(arrow.null(), absent=seen > 0))
            with _text_instead(arrow, column):
                column.type = _joined(arrow, column.type, arrow.array([record.get(name) for record in group]).type)
        for name, column in columns.items():
            column.absent |= any(name not in record for record in group)
            column.null |= any(name in record and record[name] is None for record in group)
        seen += len(group)
    for column in columns.values():
        # what is null is told from what is not there only if a column has but one of the two
        column.as_json |= (column.null and column.absent) or not _storable(arrow, column.type)
    for group in _groups(lines):
        for name, column in columns.items():
            values = [record.get(name) for record in group]
            with _text_instead(arrow, column):
                column.as_json |= not column.as_json and not _same(arrow.array(values, column.type).to_pylist(), values)
    return columns


@contextmanager
def _text_instead(arrow: Any, column: _Column) -> Generator[None]:
    """A column for which Arrow has no type is written as text."""
    try:
        yield
    except (arrow.ArrowException, OverflowError, UnicodeEncodeError):
        column.as_json = True


def _joined(arrow: Any, one: Any, other: Any) -> Any:
    """The type that holds the values of both."""
    pair = [arrow.schema([arrow.field("x", kind)]) for kind in (one, other)]
    return arrow.unify_schemas(pair, promote_options="permissive").field("x").type


def _storable(arrow: Any, kind: Any) -> bool:
    """Whether Parquet has it; it has no objects without keys."""
    if arrow.types.is_struct(kind):
        return kind.num_fields > 0 and all(_storable(arrow, kind.field(i).type) for i in range(kind.num_fields))
    return not arrow.types.is_list(kind) or _storable(arrow, kind.value_type)


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 1 is neither 1.0 nor true."""
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("Record", one), cast("Record", other)
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(one, list) and isinstance(other, list):
        ours, theirs = cast("list[Any]", one), cast("list[Any]", other)
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return type(cast("object", one)) is type(cast("object", other)) and one == other


def _array(arrow: Any, column: _Column, name: str, group: Iterable[Record]) -> Any:
    if not column.as_json:
        return arrow.array([record.get(name) for record in group], column.type)
    return arrow.array([json.dumps(record[name]) if name in record else None for record in group], arrow.string())


def _groups(lines: Path) -> Iterator[list[Record]]:
    with open(lines, "rb") as file:
        whole = (raw for raw in file if raw.startswith(OPENING))
        while group := [json.loads(raw) for raw in islice(whole, _GROUP)]:
            yield group

"""Sources: rows as they stand in a file, one after the other, however large it is.

JSON lines, plain text, Parquet (row group by row group), a folder that `datasets` saved, or any iterable of mappings,
such as a data set of `datasets`. A source can be read again from its beginning, and knows how many rows it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import count
from pathlib import Path
from typing import Any, Protocol, cast

import attrs

from mdsample.core.extra import needed
from mdsample.errors import RecordError

PARQUET = ".parquet"
#: rows of a Parquet file that are in memory as Python values at once
_BATCH = 512
#: what `save_to_disk` leaves in a folder: a data set, or several splits of one
_SAVED, _SPLITS = "state.json", "dataset_dict.json"


@attrs.frozen
class Raw:
    """A row as it stands there."""

    #: for messages, as in `line 3`
    where: str
    #: an object's columns, or the text of a line of plain text; `None` for a row with a fault
    value: Mapping[str, Any] | str | None
    fault: str = ""


class Source(Protocol):
    """Rows that can be read more than once."""

    @property
    def keyed(self) -> bool:
        """Whether rows have keys; else they are plain text."""
        ...

    def __iter__(self) -> Iterator[Raw]:
        """From the first row on."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...


def open_source(path: str, name: str = "") -> Source:
    """A file or a saved data set; `name` is what messages call it. `RecordError` for what holds no rows, `OSError`."""
    called = name or path
    if is_saved(path):
        return _saved(Path(path), called)
    if is_table(path):
        return _Parquet.of(path, called)
    return _Lines.of(path, None, called)


def is_saved(path: str) -> bool:
    """Whether it is a folder that `save_to_disk` of `datasets` left."""
    return any(Path(path, name).is_file() for name in (_SAVED, _SPLITS))


def is_table(path: str) -> bool:
    """Whether it is a file or folder of columns, and not of lines."""
    return path.lower().endswith(PARQUET) or is_saved(path)


def source_of(data: bytes, name: str = "") -> Source:
    """Lines in memory; `name` is the file's, for its ending and for messages."""
    if name.lower().endswith(PARQUET):
        raise RecordError(f"{name} is Parquet, which is read from a file; it cannot come through a pipe")
    return _Lines.of(None, data, name)


def rows_of(rows: Iterable[Mapping[str, Any]]) -> Source:
    """Rows that a program has: a list of mappings, or a data set of `datasets`.

    What has no length is taken into memory. A column that is `None` is one that the row lacks.
    """
    return _Mappings(rows if isinstance(rows, Sized) else list(rows))


@attrs.frozen
class _Lines:
    """JSON lines or plain text, in a file or in memory."""

    path: str | None
    data: bytes | None
    keyed: bool

    @staticmethod
    def of(path: str | None, data: bytes | None, name: str) -> _Lines:
        """Refuses what is no text of lines."""
        lines = _Lines(path, data, False)
        head = data or b""
        if path is not None:
            with open(path, "rb") as file:
                head = file.read(2)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise RecordError(f"{name} is UTF-16; save it as UTF-8")
        first = next((raw for _, raw in lines.filled()), None)
        if first is None:
            raise RecordError(f"{name or 'the input'} holds no rows")
        ending, begins = Path(name).suffix.lower(), first.lstrip()[:1]
        if ending == ".json" and begins == b"[":
            raise RecordError(f"{name} is one JSON array; give one object a line, as `jq -c '.[]' {name}` writes")
        keyed = ending in (".jsonl", ".ndjson", ".json") or (ending != ".txt" and begins == b"{")
        return _Lines(path, data, keyed)

    def filled(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, and their numbers from 1."""
        for number, raw in enumerate(self._raw(), 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield number, raw.strip(b"\r")

    def _raw(self) -> Iterator[bytes]:
        if self.path is None:
            yield from (self.data or b"").split(b"\n")
            return
        with open(self.path, "rb") as file:
            for raw in file:
                yield raw.removesuffix(b"\n")

    def __len__(self) -> int:
        return sum(1 for _ in self.filled())

    def __iter__(self) -> Iterator[Raw]:
        for number, raw in self.filled():
            where = f"line {number}"
            try:
                text = raw.decode()
            except UnicodeDecodeError as fault:
                yield Raw(where, None, f"this is not UTF-8 (byte {fault.start} of the line)")
                continue
            yield _object(where, text) if self.keyed else Raw(where, text)


def _object(where: str, text: str) -> Raw:
    try:
        row: object = json.loads(text)
    except (ValueError, RecursionError) as fault:
        return Raw(where, None, f"this is not JSON: {fault}")
    if not isinstance(row, dict):
        return Raw(where, None, f"a row must be a JSON object; got {kind(row)}")
    return Raw(where, cast("dict[str, Any]", row))


@attrs.frozen
class _Parquet:
    """A Parquet file, of which a row group at most is in memory."""

    path: str
    rows: int
    keyed: bool = True

    @staticmethod
    def of(path: str, name: str) -> _Parquet:
        parquet = needed("pyarrow.parquet", "data", "reading Parquet")
        with open(path, "rb"):
            pass
        try:
            with parquet.ParquetFile(path) as file:
                rows = int(file.metadata.num_rows)
        except (OSError, ValueError) as fault:
            raise RecordError(f"{name} is not Parquet that can be read: {fault}") from fault
        if not rows:
            raise RecordError(f"{name} holds no rows")
        return _Parquet(path, rows)

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[Raw]:
        parquet = needed("pyarrow.parquet", "data", "reading Parquet")
        numbers = count()
        with parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from (_present(next(numbers), row) for row in batch.to_pylist())


@attrs.frozen
class _Mappings:
    """Rows that are there already."""

    rows: Any
    keyed: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Raw]:
        return (_present(number, row) for number, row in enumerate(self.rows))


def _saved(folder: Path, name: str) -> _Mappings:
    if (folder / _SPLITS).is_file():
        splits = sorted(part.name for part in folder.iterdir() if (part / _SAVED).is_file())
        raise RecordError(f"{name} holds splits ({', '.join(splits)}); name one, as in {folder / (splits or [''])[0]}")
    datasets = needed("datasets", "data", "reading a saved data set")
    try:
        rows = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as fault:
        raise RecordError(f"{name} cannot be read as a saved data set: {fault}") from fault
    if not len(rows):
        raise RecordError(f"{name} holds no rows")
    return _Mappings(rows)


def _present(number: int, row: object) -> Raw:
    """A row of columns: those that are `None` are not there."""
    where = f"row {number}"
    if not isinstance(row, Mapping):
        return Raw(where, None, f"a row must be a mapping of columns; got {kind(row)}")
    columns = cast("Mapping[str, Any]", row)
    return Raw(where, {name: value for name, value in columns.items() if value is not None})


def kind(value: object) -> str:
    """What a value is, in JSON's words."""
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")

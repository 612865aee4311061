"""Lines: records as JSON, one a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from os import SEEK_END
from typing import Any, BinaryIO, cast

#: what a record's line begins with
OPENING = b'{"id": '


def line(record: Mapping[str, Any]) -> str:
    """A record as one line of ASCII, so that it survives any terminal, pipe and line reader."""
    return json.dumps(record)


def finite(number: float) -> float | None:
    """The number, or `None` for infinity, which JSON does not have."""
    return number if math.isfinite(number) else None


def last_line(file: BinaryIO) -> bytes:
    """What follows the last line break of a file, which is then read from its beginning."""
    end, tail = file.seek(0, SEEK_END), b""
    while end and b"\n" not in tail:
        start = max(0, end - (1 << 16))
        file.seek(start)
        tail, end = file.read(end - start) + tail, start
    file.seek(0)
    return tail.rpartition(b"\n")[2]


def parsed(raw: bytes) -> dict[str, Any] | None:
    """The JSON object that a line holds, an empty one for other JSON; `None` for what is no JSON."""
    try:
        value: object = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

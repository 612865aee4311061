"""What a TOML file holds, read key by key, with faults that name the key and its line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import cast

from mdsample.errors import MdsampleError, shown

_HEADER = re.compile(r"\s*(\[\[?)\s*([\w-]+)\s*\]")
_KEY = re.compile(r"""\s*(?:"([^"\\]*)"|'([^']*)'|([\w-]+))\s*=""")


class TomlFault(MdsampleError):
    """A wrong key or value; the message names it."""


def first_lines(text: str) -> dict[str, int]:
    """The line of each table and key, as far as they can be told without a parser of TOML: by `tasks[1].limit`."""
    lines: dict[str, int] = {}
    count: dict[str, int] = {}
    inside = ""
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            inside = header[2]
            if header[1] == "[[":
                count[inside] = count.get(inside, -1) + 1
                inside = f"{inside}[{count[inside]}]"
            lines.setdefault(inside, number)
        elif key := _KEY.match(line):
            name = next(filter(None, key.groups()), "")
            lines.setdefault(f"{inside}.{name}" if inside else name, number)
    return lines


class Entry:
    """A value, and where it stands."""

    def __init__(self, path: str, value: object, lines: Mapping[str, int]) -> None:
        """`path`: the keys that lead there, empty for the whole file; `lines`: those of `first_lines`."""
        self._path, self._value, self._lines = path, value, lines

    def fault(self, message: str) -> TomlFault:
        """An error about this value."""
        line = next((self._lines[path] for path in (self._path, self._above()) if path in self._lines), None)
        where = self._path if line is None else f"line {line}, {self._path}"
        return TomlFault(f"{where}: {message}" if where else message)

    def _above(self) -> str:
        """The path of what it is a member of."""
        return re.sub(r"\[\d+\]$|\.[^.[]*$", "", self._path)

    # what kind of value it is

    @property
    def is_table(self) -> bool:
        """Whether it has keys."""
        return isinstance(self._value, dict)

    @property
    def is_list(self) -> bool:
        """Whether it has members."""
        return isinstance(self._value, list)

    def items(self) -> list[Entry]:
        """The members of a list, of which there is at least one."""
        values = cast("list[object]", self._value) if self.is_list else []
        if not values:
            raise self.fault(f"this must be a list with something in it; got {shown(self._value, 40)}")
        return [Entry(f"{self._path}[{number}]", value, self._lines) for number, value in enumerate(values)]

    def entries(self) -> dict[str, Entry]:
        """The keys of a table, of which there is at least one."""
        table = self._table()
        if not table:
            raise self.fault("there is nothing in it")
        return {key: self[key] for key in table}

    def as_text(self) -> str:
        """A text that is not empty."""
        if not isinstance(self._value, str) or not self._value.strip():
            raise self.fault(f"this must be a text; got {shown(self._value, 40)}")
        return self._value

    def as_integer(self, least: int | None = None) -> int:
        """A whole number."""
        value = self._value
        if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
            wanted = "a whole number" if least is None else f"a whole number of at least {least}"
            raise self.fault(f"this must be {wanted}; got {shown(value, 40)}")
        return value

    def as_number(self, above: float) -> float:
        """A finite number above another."""
        value = self._value
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < 1e300:
            raise self.fault(f"this must be a number above {above:g}; got {shown(value, 40)}")
        return float(value)

    # the keys of a table

    def __getitem__(self, key: str) -> Entry:
        """What stands under a key, which must be there."""
        table = self._table()
        path = f"{self._path}.{key}" if self._path else key
        if key not in table:
            raise self.fault(f"{key!r} is missing")
        return Entry(path, table[key], self._lines)

    def __contains__(self, key: str) -> bool:
        """Whether there is such a key."""
        return key in self._table()

    def require_keys(self, *names: str) -> None:
        """Refuses every other key."""
        for key in self._table():
            if key not in names:
                close = get_close_matches(key, names, 1)
                other = f"did you mean {close[0]!r}?" if close else f"it takes: {', '.join(names)}"
                raise self[key].fault(f"there is no such key; {other}")

    def text(self, key: str, default: str) -> str:
        """The text under a key."""
        return self[key].as_text() if key in self else default

    def integer(self, key: str, default: int | None, least: int) -> int | None:
        """The whole number under a key."""
        return self[key].as_integer(least) if key in self else default

    def flag(self, key: str) -> bool:
        """Whether true stands under a key."""
        value = self[key]._value if key in self else False
        if not isinstance(value, bool):
            raise self[key].fault(f"this must be true or false; got {shown(value, 40)}")
        return value

    def choice(self, key: str, default: str, among: Collection[str]) -> str:
        """The text under a key, one of these."""
        found = self.text(key, default)
        if key in self and found not in among:
            raise self[key].fault(f"this is one of {', '.join(among)}; got {found!r:.80}")
        return found

    def _table(self) -> dict[str, object]:
        if not self.is_table:
            raise self.fault(f"this must be a table of keys; got {shown(self._value, 40)}")
        return cast("dict[str, object]", self._value)

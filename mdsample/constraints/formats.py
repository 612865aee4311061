"""Formats: regular expressions of JSON's strings and of what `format` names in a JSON schema, quotes included."""

from __future__ import annotations

from collections.abc import Mapping

from mdsample.constraints.patterns import date

#: a character of a string as JSON writes it; any other can stand for itself, so that `\uXXXX` is not needed
CHARACTER = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])'

_NAME = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+){0,3}"
_HOST = rf"{_NAME}(?:\.{_NAME}){{0,3}}\.[A-Za-z]{{2,6}}"
_HEX = "[0-9a-f]"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ZONE = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_TIME = date("%H:%M:%S")

#: the expression of each format, and a text of the usual length
FORMATS: Mapping[str, tuple[str, str]] = {
    "date": (date(), "2026-10-28"),
    "time": (_TIME + _ZONE, "10:28:36+01:00"),
    "date-time": (f"{date()}T{_TIME}{_ZONE}", "2026-10-28T10:28:36+01:00"),
    "email": (rf"[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+){{0,3}}@{_HOST}", "first.second@example-mail.com"),
    "hostname": (_HOST, "one.example-name.com"),
    "ipv4": (rf"{_BYTE}(?:\.{_BYTE}){{3}}", "192.168.133.207"),
    "uri": (rf"https?://{_HOST}(?:/[A-Za-z0-9._~-]*){{0,6}}", "https://www.example.com/some/page-name.html"),
    "uuid": (
        f"{_HEX}{{8}}-{_HEX}{{4}}-[1-5]{_HEX}{{3}}-[89ab]{_HEX}{{3}}-{_HEX}{{12}}",
        "1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d",
    ),
}


def string(least: int, most: int | None) -> str:
    """Strings of `least` to `most` characters."""
    counted = "*" if (least, most) == (0, None) else f"{{{least},{'' if most is None else most}}}"
    return f'"{CHARACTER}{counted}"'

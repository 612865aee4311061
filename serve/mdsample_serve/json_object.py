"""Any JSON object, as far as a regular expression can say it: three levels deep, with one space where JSON has any."""

from __future__ import annotations

_STRING = r'"([^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"
_PLAIN = rf"({_STRING}|{_NUMBER}|true|false|null)"


def _level(value: str) -> str:
    """A value, an object or a list of such values."""
    return rf"({value}|{_object(value)}|\[({value}(, {value})*)?\])"


def _object(value: str) -> str:
    pair = rf"{_STRING}: {value}"
    return rf"\{{({pair}(, {pair})*)?\}}"


JSON_OBJECT = rf" ?{_object(_level(_PLAIN))}"

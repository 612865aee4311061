"""Any JSON object, as far as a regular expression can say it: values, lists and objects in it, three levels at most."""

from __future__ import annotations

_STRING = r'"([^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"
_PLAIN = rf"({_STRING}|{_NUMBER}|true|false|null)"


def _list(value: str) -> str:
    return rf"\[({value}(, {value})*)?\]"


def _object(value: str) -> str:
    pair = rf"{_STRING}: {value}"
    return rf"\{{({pair}(, {pair})*)?\}}"


#: a list may hold objects, and an object of an object plain values
_ITEM = rf"({_PLAIN}|{_object(_PLAIN)})"
JSON_OBJECT = rf" ?{_object(rf'({_PLAIN}|{_object(_PLAIN)}|{_list(_ITEM)})')}"

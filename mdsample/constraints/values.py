"""Values: what a JSON schema says of a value as a whole: its type, how it is written, what it is equal to."""

from __future__ import annotations

import json
from typing import cast


def kind_of(value: object) -> str | None:
    """The narrowest type of a value: 1.0 is an integer, `true` is not a number; `None`: not a value of JSON."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    kinds: dict[type, str] = {bool: "boolean", int: "integer", str: "string", type(None): "null"}
    kinds |= {dict: "object", list: "array", tuple: "array"}
    return next((kind for type_, kind in kinds.items() if isinstance(value, type_)), None)


def is_a(value: object, kind: str) -> bool:
    """Whether a value is of a type."""
    return kind in (own := kind_of(value), "number" if own == "integer" else own)


def as_json(value: object) -> str:
    """As it is written in a text; `ValueError` or `TypeError` for what JSON cannot write."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()  # half a surrogate pair is not a character
    return text


def key_of(value: object) -> str:
    """The same for values that are equal, as 1 and 1.0 are, in lists and objects too; errors as `as_json`."""
    as_json(value)
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: object) -> object:
    """With whole numbers as integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in cast("dict[object, object]", value).items()}
    return value

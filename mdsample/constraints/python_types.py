"""Python types: dataclasses and pydantic models as JSON schemas, and parsed JSON as one of them.

A pydantic model is asked for its own schema, and makes its own object (`model_json_schema`, `model_validate`); pydantic
is not imported. Of a dataclass the annotations are read, and what a field's `metadata` says in the words of JSON schema
(`field(metadata={"maxItems": 3})`); a field with a default need not be there.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any, cast
from uuid import UUID

from mdsample.constraints.values import key_of
from mdsample.errors import PolicyError, shown

#: the schema of a type that JSON has no other word for, and what makes one of its text
_WRITTEN: dict[object, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    str: ({"type": "string"}, str),
    bool: ({"type": "boolean"}, bool),
    int: ({"type": "integer"}, int),
    float: ({"type": "number"}, float),
    type(None): ({"type": "null"}, lambda _: None),
    date: ({"type": "string", "format": "date"}, date.fromisoformat),
    datetime: ({"type": "string", "format": "date-time"}, datetime.fromisoformat),
    time: ({"type": "string", "format": "time"}, time.fromisoformat),
    UUID: ({"type": "string", "format": "uuid"}, UUID),
}
_UNIONS = (typing.Union, types.UnionType)


def schema_of(kind: object) -> dict[str, Any]:
    """The JSON schema of a dataclass, of a pydantic model, or of a type that a field of one may have.

    A mapping is taken as a schema. Raises `PolicyError` for a type that has none, and names the field.
    """
    if isinstance(kind, Mapping):
        return dict(cast("Mapping[str, Any]", kind))
    return _schema(kind, getattr(kind, "__name__", "the type"), ())


def _schema(kind: Any, where: str, inside: tuple[object, ...]) -> dict[str, Any]:
    if kind in inside:
        raise PolicyError(f"{where} holds itself; no slot holds what has no end")
    if kind in _WRITTEN:
        return dict(_WRITTEN[kind][0])
    origin, among = typing.get_origin(kind), typing.get_args(kind)
    inside = (*inside, kind)
    if origin is typing.Literal:
        return {"enum": list(among)}
    if origin in _UNIONS:
        return {"anyOf": [_schema(one, where, inside) for one in among]}
    if origin is list and among:
        return {"type": "array", "items": _schema(among[0], where, inside)}
    if origin is tuple and among and Ellipsis not in among:
        ways = [_schema(one, where, inside) for one in among]
        return {"type": "array", "prefixItems": ways, "minItems": len(ways), "maxItems": len(ways)}
    if _is_enum(kind):
        return {"enum": [member.value for member in kind]}
    if hasattr(kind, "model_json_schema"):
        if len(inside) > 1 and any(dataclasses.is_dataclass(outer) for outer in inside):
            raise PolicyError(f"{where} is a pydantic model within a dataclass; make both the one or both the other")
        return cast("dict[str, Any]", kind.model_json_schema())
    if _is_dataclass(kind):
        fields = dataclasses.fields(kind)
        hints = _hints(kind)
        properties = {
            field.name: _schema(hints[field.name], f"{kind.__name__}.{field.name}", inside) | dict(field.metadata)
            for field in fields
            if field.init
        }
        return {
            "type": "object",
            "properties": properties,
            "required": [field.name for field in fields if field.init and _needed(field)],
            "additionalProperties": False,
        }
    raise PolicyError(
        f"{where} is {shown(kind)}, which has no JSON schema here; use str, int, float, bool, None, date, datetime, "
        "time, UUID, an Enum, Literal, list[…], tuple[…], a union, or a dataclass of these"
    )


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _is_dataclass(kind: object) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except NameError as error:
        raise PolicyError(f"the annotations of {kind.__name__} cannot be read: {error}") from error


def _needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def build(kind: Any, parsed: Any) -> Any:
    """A value of a type from parsed JSON; of a mapping (a schema), what was parsed.

    Raises `PolicyError` if it is none; what a pydantic model or a dataclass itself refuses, it says itself.
    """
    if isinstance(kind, Mapping):
        return parsed
    if hasattr(kind, "model_validate"):
        return kind.model_validate(parsed)
    origin, among = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        return _built_as_one(kind, among, parsed)
    if origin is typing.Literal:
        found = [value for value in among if key_of(value) == key_of(parsed)]
        return found[0] if found else _refuse(kind, parsed)
    if origin in (list, tuple):
        _require(kind, parsed, list)
        ways = among if origin is tuple else among * len(parsed)
        if len(ways) != len(parsed):
            _refuse(kind, parsed)
        made = [build(one, value) for one, value in zip(ways, parsed, strict=True)]
        return (*made,) if origin is tuple else made
    if _is_enum(kind):
        # a tuple is a list in JSON, and True is 1 to Python
        found = [member for member in kind if key_of(member.value) == key_of(parsed)]
        return found[0] if found else _refuse(kind, parsed)
    if _is_dataclass(kind):
        _require(kind, parsed, dict)
        hints = _hints(kind)
        if not {*parsed} <= {*hints}:
            _refuse(kind, parsed)
        return kind(**{key: build(hints[key], value) for key, value in parsed.items()})
    if kind not in _WRITTEN:
        return _refuse(kind, parsed)
    words = {"string": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float), "null": (type(None),)}
    schema, make = _WRITTEN[kind]
    _require(kind, parsed, *words[schema["type"]])
    return make(parsed)


def _built_as_one(kind: object, among: tuple[object, ...], parsed: object) -> object:
    """The first of a union that it can be."""
    for one in among:
        try:
            return build(one, parsed)
        except (TypeError, ValueError):
            continue
    return _refuse(kind, parsed)


def _require(kind: object, parsed: object, *types_: type) -> None:
    if not isinstance(parsed, types_) or (isinstance(parsed, bool) and bool not in types_):
        _refuse(kind, parsed)


def _refuse(kind: object, parsed: object) -> Any:
    raise PolicyError(f"{shown(parsed)} is no {getattr(kind, '__name__', kind)}")

"""Policies as a TOML table `[policy]`, and back: a key for each seat, one part or an array of parts under it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from reprlib import repr as brief
from typing import cast

import attrs

from mdsample.errors import SpecError
from mdsample.policy.base import MANY, SEATS, Part, Policy, part_text
from mdsample.policy.installed import Maker, Parts, by_name
from mdsample.policy.parsing import find, make, parse
from mdsample.policy.writing import written

#: key in the `[policy]` table -> seat; a seat that holds many has a plural key and an array
_KEYS = {f"{seat}s" if seat in MANY else seat: seat for seat in SEATS}
_EXAMPLE = "{ blocks = { size = 32 } } or 'blocks(32)'"


def to_toml(policy: Policy) -> str:
    """The policy as a TOML table `[policy]`, every setting written out; one that is `None` is left out."""
    lines = ["[policy]"]
    for key, seat in _KEYS.items():
        tables = [_part_toml(part) for part in policy.parts if part.seat == seat]
        if tables:
            lines.append(f"{key} = [{', '.join(tables)}]" if seat in MANY else f"{key} = {tables[0]}")
    return "\n".join(lines) + "\n"


def _part_toml(part: Part) -> str:
    values = ((field.name, getattr(part, field.name)) for field in attrs.fields(type(part)))
    settings = ", ".join(f"{name} = {written(value, _toml_text)}" for name, value in values if value is not None)
    return f"{{ {part.name} = {{ {settings} }} }}" if settings else f"{{ {part.name} = {{}} }}"


def _toml_text(text: str) -> str:
    # JSON's escapes are TOML's too, but TOML wants one more character escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_toml(text: str, *, parts: Parts = ()) -> Policy:
    """The policy of a TOML document with the one key `policy`, a text or a table, or `SpecError`.

    `parts` as for `parse`.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"this is not TOML: {error}") from None
    if list(document) != ["policy"]:
        raise SpecError(
            f"expected the one key 'policy'; there is: {', '.join(document) or 'nothing'}; write it as in "
            "policy = 'med(0.2)+early-exit'"
        )
    return policy_from_toml_value(document["policy"], parts=parts)


def policy_from_toml_value(value: object, *, parts: Parts = ()) -> Policy:
    """The policy of what `tomllib` read under the key `policy`: a text, or a table with a key for each seat."""
    own = by_name(parts)
    if isinstance(value, str):
        return parse(value, parts=own)
    if (table := _table(value)) is None:
        raise SpecError(f"policy: expected a text or a table; got {brief(value)}")
    policy = Policy()
    for key, held in table.items():
        if key not in _KEYS:
            raise SpecError(f"policy has no key {key!r}; it has: {', '.join(_KEYS)}")
        if _KEYS[key] not in MANY:
            policy = policy + _part_from_toml(key, f"policy.{key}", held, own)
        elif isinstance(held, list):
            for number, member in enumerate(cast("list[object]", held)):
                policy = policy + _part_from_toml(key, f"policy.{key}[{number}]", member, own)
        else:
            raise SpecError(f"policy.{key}: expected an array of parts; got {brief(held)}")
    return policy


def _part_from_toml(key: str, path: str, value: object, own: Mapping[str, Maker]) -> Part:
    def fail(message: str, setting: str | None = None) -> SpecError:
        return SpecError(f"{path}: {message}")

    if isinstance(value, str):
        try:
            policy = parse(value, parts=own)
        except SpecError as error:
            raise SpecError(f"{path}: {error.message}", error.text, error.column) from None
    elif (named := _table(value)) is not None and len(named) == 1:
        [(name, settings)] = named.items()
        if (given := _table(settings)) is None:
            raise fail(f"expected {name} = {{ setting = value, … }}; got {brief(settings)}")
        policy = Policy() + make(name, find(name, own, fail), given, fail)
    else:
        raise fail(f"expected one part, as in {_EXAMPLE}; got {brief(value)}")
    match list(policy.parts):
        case [part] if part.seat == _KEYS[key]:
            return part
        case [part]:
            raise fail(f"{part.name} belongs under {next(k for k, seat in _KEYS.items() if seat == part.seat)!r}")
        case parts:
            raise fail(f"expected one part; got {'+'.join(map(part_text, parts)) or 'none'}")


def _table(value: object) -> dict[str, object] | None:
    """What `tomllib` read, if it is a table."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else None

"""Policies, parts and settings as they are written: the text that `mdsample.spec` reads back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import attrs

from mdsample.part import Part

if TYPE_CHECKING:
    from mdsample.policy import Policy


def policy_text(policy: Policy, full: bool = False) -> str:
    """The shortest text that parses back to the policy; with `full`, every setting of its parts by name."""
    return "+".join(part_text(part, full) for part in policy.parts())


def part_text(part: Part, full: bool = False) -> str:
    """The shortest text of a part, without defaults; with `full`, every setting by name."""
    said: list[str] = []
    for number, field in enumerate(attrs.fields(type(part))):
        value = getattr(part, field.name)
        if full or value != field.default:
            name = f"{field.name}=" if number > 0 or field.kw_only or full else ""
            said.append(name + value_text(value))
    return f"{part.name}({','.join(said)})" if said else part.name


def value_text(value: object) -> str:
    """A setting's value as policy text writes it."""
    return written(value, str.__repr__)  # Python's escapes are among ours


def written(value: object, quoted: Callable[[str], str]) -> str:
    """A value in policy text or in TOML, which differ only in how they quote a text."""
    match value:
        case tuple():
            return f"[{','.join(written(member, quoted) for member in cast('tuple[object, ...]', value))}]"
        case str():
            return quoted(value)
        case None | bool():
            return str(value).lower()
        case float():
            return repr(value + 0.0).removesuffix(".0")  # + 0.0 turns -0.0 into 0.0
        case _:
            return repr(value)

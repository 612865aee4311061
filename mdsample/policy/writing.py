"""Values of settings as policy text and TOML write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast


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

"""A change of a public name or signature must be meant."""

from __future__ import annotations

import ast
from difflib import unified_diff

import api


def test_the_public_interface_is_what_was_written_down() -> None:
    before, now = (text.splitlines() for text in (api.SNAPSHOT.read_text(encoding="utf-8"), api.interface()))
    changed = "\n".join(unified_diff(before, now, "written down", "now", n=1, lineterm=""))
    assert not changed, (
        f"the public interface changed:\n{changed}\n\nIf this is meant, say it in CHANGELOG.md under Added or Changed "
        "and run: python tests/helpers/api.py --write"
    )


def test_every_name_is_found() -> None:
    """No page and no `__all__` names what is not there."""
    for module, name in {*api.shown(), *((door, name) for door in api.DOORS for name in api.exports(door))}:
        there, its_name = api.home(module, name)
        defined = {api.named(node) for node in api.source(there)}
        assert its_name in defined or api.source(f"{there}.{its_name}"), f"{module} has no {name}"


def test_callers_see_overloads_members_and_defaults() -> None:
    code = """
@overload
def f(x: int) -> int: ...
@overload
def f(x: str) -> str: ...
def f(x: object) -> object: return x
@attrs.frozen
class A(Base):
    size: int = 3
    _hidden: int = 4
    @property
    def twice(self) -> int: ...
    @staticmethod
    def of(x: int, *, y: str = "a") -> A: ...
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
def _own(): ...
"""
    assert list(api.described(ast.parse(code).body)) == [
        "f(x: int) -> int",
        "f(x: str) -> str",
        "class A(Base)",
        "    size: int = 3",
        "    twice: int",
        "    staticmethod of(x: int, *, y: str='a') -> A",
        "    __len__(self) -> int",
    ]

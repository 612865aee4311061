"""The public interface as text: `python tests/helpers/api.py --write` writes it down anew, to `tests/api.txt`.

Public is what a package exports in `__all__`, and what the pages and examples import. It is read from the source, so
that it needs no framework and is the same on every Python.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests" / "api.txt"
TOPS = {
    "mdsample": ROOT,
    "mdsample_torch": ROOT / "backends",
    "mdsample_mlx": ROOT / "backends",
}
#: packages that list what they export
DOORS = ("mdsample", "mdsample.exact", "mdsample.testing", "mdsample_torch")
#: methods with names of Python's own that callers use
_CALLED = ("__init__", "__call__", "__add__", "__getitem__", "__iter__", "__len__")


@cache
def source(module: str) -> list[ast.stmt]:
    """The statements of a module of ours; none for other modules."""
    path = TOPS.get(module.split(".")[0], ROOT).joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8")).body
    return []


def imported(code: Iterable[ast.stmt]) -> Iterator[tuple[str, str, str]]:
    """Names that statements import from our packages: module, name there, name here."""
    for node in code:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imported(node.body)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in TOPS:
            yield from ((node.module or "", alias.name, alias.asname or alias.name) for alias in node.names)


def shown() -> Iterator[tuple[str, str]]:
    """Module and name of all that the pages and examples import."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            yield from ((module, name) for module, name, _ in imported(ast.parse(block).body))
    for script in sorted((ROOT / "examples").rglob("*.py")):
        yield from ((module, name) for module, name, _ in imported(ast.parse(script.read_text("utf-8")).body))


def exports(module: str) -> list[str]:
    """What `__all__` of a module lists."""
    for node in source(module):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def home(module: str, name: str) -> tuple[str, str]:
    """Where a name is defined; a module is where it lies."""
    if source(f"{module}.{name}"):
        return module, name
    for there, its_name, here in imported(source(module)):
        if here == name:
            return home(there, its_name)
    return module, name


def interface() -> str:
    """What every package exports, then every public name where it is defined."""
    names = {home(door, name) for door in DOORS for name in exports(door)} | {home(*pair) for pair in shown()}
    lines: list[str] = []
    for door in DOORS:
        lines += [f"{door} exports", *(f"    {name}" for name in sorted(exports(door))), ""]
    for module in sorted({module for module, name in names if not source(f"{module}.{name}")}):
        wanted = {name for there, name in names if there == module}
        lines += [module, *(f"    {line}" for line in described(source(module), wanted)), ""]
    return "\n".join(lines[:-1]) + "\n"


def described(body: list[ast.stmt], wanted: set[str] | None = None) -> Iterator[str]:
    """One line for each public name, its signature or type, and below a class those of its members."""
    overloaded = set[str]()
    for node in body:
        name = named(node)
        if not (name in _CALLED or (name and name[0] != "_")) or (wanted is not None and name not in wanted):
            continue
        match node:
            case ast.FunctionDef():
                marks = [ast.unparse(mark) for mark in node.decorator_list]
                if "overload" in marks:
                    overloaded.add(name)
                elif name in overloaded:
                    continue  # callers see the overloads only
                returns = ast.unparse(node.returns) if node.returns else ""
                if {"property", "cached_property"} & set(marks):
                    yield f"{name}: {returns}"
                else:
                    kind = "".join(f"{mark} " for mark in marks if mark in ("staticmethod", "classmethod"))
                    yield f"{kind}{name}({ast.unparse(node.args)}){f' -> {returns}' if returns else ''}"
            case ast.ClassDef():
                bases = ", ".join(map(ast.unparse, node.bases))
                yield f"class {name}({bases})" if bases else f"class {name}"
                yield from (f"    {line}" for line in described(node.body))
            case ast.AnnAssign():
                yield f"{name}: {ast.unparse(node.annotation)}{given(node.value)}"
            case ast.Assign():
                yield f"{name}{given(node.value)}"
            case _:
                pass


def named(node: ast.stmt) -> str:
    """The name that a statement gives, if it gives one."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return ""


def given(value: ast.expr | None) -> str:
    """A default, shortened where it is a table."""
    text = "" if value is None else ast.unparse(value)
    return f" = {text if len(text) <= 100 else '…'}" if text else ""


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        SNAPSHOT.write_text(interface(), encoding="utf-8")
    else:
        sys.stdout.write(interface())

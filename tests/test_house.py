"""The house: every folder has a floor, and an import never goes up, under `TYPE_CHECKING` and in functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: floors, the ground first; what stands on one floor does not know its neighbours
FLOORS = (
    ("mdsample.errors", "mdsample._version"),
    ("mdsample.core",),
    ("mdsample.constraints",),
    ("mdsample.policy",),
    ("mdsample.models",),
    ("mdsample.backend", "mdsample.sampling"),
    ("mdsample.scoring", "mdsample.tasks", "mdsample.exact"),
    ("mdsample.jobs", "mdsample.testing"),
    ("mdsample.evaluation",),
    ("mdsample",),
    ("mdsample_torch", "mdsample_mlx"),
    ("mdsample_serve", "mdsample_integrations"),
    ("mdsample_cli",),
)
#: where the packages are
TOPS = (
    "mdsample",
    "backends/mdsample_torch",
    "backends/mdsample_mlx",
    "serve/mdsample_serve",
    "integrations/mdsample_integrations",
    "cli/mdsample_cli",
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    found: dict[str, Path] = {}
    for top in TOPS:
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to((ROOT / top).parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, there: Mapping[str, Path]) -> Iterator[str]:
    """The modules of ours that a file names in an import, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in there)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where they go"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = inner if inner in there else node.module or ""
                if target in there:
                    yield target


def room(module: str) -> str:
    """The folder or file of `FLOORS` that a module is in."""
    parts = module.split(".")
    return next(name for n in range(min(2, len(parts)), 0, -1) if (name := ".".join(parts[:n])) in FLOOR)


@cache
def arrows() -> dict[str, set[str]]:
    """Imports between modules."""
    there = modules()
    return {module: set(imports(module, path, there)) - {module} for module, path in there.items()}


def test_every_folder_has_a_floor() -> None:
    for module in modules():
        top = module.split(".")[0]
        assert top != "mdsample" or module == "mdsample" or room(module) != "mdsample", f"{module} has no floor"


@pytest.mark.parametrize("module", sorted(modules()))
def test_an_import_never_goes_up(module: str) -> None:
    here = room(module)
    for target in arrows()[module]:
        there = room(target)
        if there == here:
            continue
        # the package itself is the front door; only what is built on top comes in by it
        assert FLOOR[there] < FLOOR[here], f"{module} imports {target}, which is no lower"


def test_there_is_no_circle() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as circle:
        pytest.fail(f"an import circle: {' -> '.join(circle.args[1])}")

"""Parts and presets beyond the built-in ones: given to `parse` by hand, or installed by other packages.

A package registers them as entry points of the group `mdsample.parts`, each under its name in policy text:

    [project.entry-points."mdsample.parts"]
    half = "mdsample_half:Half"

Entry points are read where a name is not built in, and for the menu; importing mdsample reads none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, cast

from mdsample.errors import SpecError, shown
from mdsample.policy.base import Part, Policy
from mdsample.policy.catalog import PARTS
from mdsample.policy.presets import PRESETS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "mdsample.parts"
#: what a name in policy text stands for: a part's class, or a preset, a function that returns a `Policy`
Maker = Callable[..., Part | Policy]
#: parts by name, presets among them, or just the classes of parts
Parts = Mapping[str, Maker] | Iterable[type[Part]]


def by_name(parts: Parts) -> dict[str, Maker]:
    """The given parts by their names in policy text; `SpecError` for a name that is another's."""
    if isinstance(parts, str) or not hasattr(parts, "__iter__"):
        raise TypeError(f"parts is a list of classes of parts, or a mapping of names to them; got {shown(parts)}")
    pairs: Iterable[tuple[str, Maker]] = (
        cast("Mapping[str, Maker]", parts).items()
        if isinstance(parts, Mapping)
        else [(getattr(part, "name", ""), part) for part in parts]
    )
    named: dict[str, Maker] = {}
    for name, maker in pairs:
        _check(name, maker, "parts=")
        if named.setdefault(name, maker) is not maker:
            raise SpecError(f"parts=: two parts are called {name!r}; give one of them another name")
    return named


def installed() -> dict[str, EntryPoint]:
    """Entry points of installed packages by name, not loaded; `SpecError` for a name that is taken."""
    # imported here: it takes as long to import as half of the library
    from importlib.metadata import entry_points

    named: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.name in PARTS or entry.name in PRESETS:
            raise SpecError(f"{_package(entry)} calls a part {entry.name!r}, a built-in name; give it another name")
        other = named.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise SpecError(f"{_package(other)} and {_package(entry)} both have a part {entry.name!r}; uninstall one")
    return named


def loaded(entry: EntryPoint) -> Maker:
    """What an entry point names; `SpecError` if that cannot be imported, or is neither a part nor a function."""
    try:
        maker: Maker = entry.load()
    except (ImportError, AttributeError) as error:
        raise SpecError(f"{_package(entry)}: the part {entry.name!r} cannot be imported ({error})") from error
    _check(entry.name, maker, _package(entry))
    return maker


def _check(name: str, maker: object, where: str) -> None:
    """Raises `SpecError` unless the name is free and fits what it stands for."""
    builtin = PARTS.get(name, PRESETS.get(name))
    if builtin is not None and builtin is not maker:
        raise SpecError(f"{where}: {name!r} is a built-in name; give the part another name")
    if isinstance(maker, type) and issubclass(maker, Part):
        if maker.name != name:
            raise SpecError(f"{where}: the part {maker.name!r} is given as {name!r}; use its own name")
    elif isinstance(maker, type) or not callable(maker):
        raise SpecError(
            f"{where}: {name!r} must be a class of parts or a function that returns a policy; got {shown(maker)}"
        )


def _package(entry: EntryPoint) -> str:
    return f"the installed package {entry.dist.name!r}" if entry.dist else f"the entry point {entry.value!r}"

"""Backends that are installed: whether they work on this machine, on which devices, and whether a model fits there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from mdsample.backend.load import beside, choose_backend, entries, imported, missing, place, shortage
from mdsample.backend.setup import Choice, Device, Lister, Setup
from mdsample.errors import ModelError
from mdsample.models.inspect import Facts

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@attrs.frozen
class Backend:
    """An installed backend."""

    name: str
    #: why it does not work here, and what to do; empty if it works
    fault: str
    devices: tuple[Device, ...]


@attrs.frozen
class Run:
    """What would become of a model on one backend."""

    backend: str
    #: why it cannot be opened there, and what to do; empty if nothing is known against it
    fault: str = ""
    #: `None` if the backend does not say
    choice: Choice | None = None
    #: bytes that the weights take there
    memory: int | None = None


def installed_backends() -> tuple[Backend, ...]:
    """Every installed backend, sorted by name; imports their frameworks."""
    backends: list[Backend] = []
    for name, entry in sorted(entries().items()):
        fault = missing(entry)
        lister: Lister | None = None if fault else beside(entry, "devices")
        backends.append(Backend(name, fault, () if lister is None else lister()))
    return tuple(backends)


def runs(
    facts: Facts, name: str | Path, backend: str = "auto", *, device: str | None = None, dtype: str | None = None
) -> tuple[Run, ...]:
    """What would become of a model on the backend of this name; for `auto` on all, the one that `load` takes first.

    `name`: as `load` takes it, as are the others. Counted are the weights alone, as `load` does before it reads them.
    Raises `ModelError` if that backend does not have the device or the dtype; too little memory is a `fault`.
    """
    setup = Setup(device=device, dtype=dtype)
    first = choose_backend(name, backend, setup)
    imported(first)
    outcomes = [_run(facts, first, setup)]
    if backend == "auto":
        for other, entry in sorted(entries().items()):
            if other == first.name:
                continue
            try:
                outcomes.append(_run(facts, entry, setup))
            except ModelError as error:
                outcomes.append(Run(other, str(error)))
    return tuple(outcomes)


def _run(facts: Facts, entry: EntryPoint, setup: Setup) -> Run:
    if fault := missing(entry):
        return Run(entry.name, fault)
    placed = place(facts, entry, setup)
    return Run(entry.name) if placed is None else Run(entry.name, shortage(*placed), *placed)

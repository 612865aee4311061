"""Backends that are installed: whether they work on this machine, on which devices, and whether a model fits there.

A backend says so with two functions beside its opener, in the module that its entry point names: `devices`, a `Lister`,
and `choose`, a `Chooser`. Of a backend without them it is known only that it works.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from mdsample.backend.load import choose_backend, entries, imported, missing
from mdsample.backend.setup import Setup
from mdsample.errors import ModelError
from mdsample.models.inspect import Facts

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@attrs.frozen
class Device:
    """Something that a backend runs models on."""

    #: as `device=` takes it
    name: str
    #: bytes of its memory that can be had now; `None` where nothing tells
    available: int | None
    #: what it is, for people
    about: str = ""


@attrs.frozen
class Choice:
    """Where a backend would put a model."""

    device: Device
    #: float32, bfloat16 or float16
    dtype: str
    #: whether quantised matrices stay packed in memory
    packed: bool = False


class Lister(Protocol):
    """A backend's `devices`."""

    def __call__(self) -> tuple[Device, ...]:
        """The devices there are, the one that is taken by default first."""
        ...


class Chooser(Protocol):
    """A backend's `choose`."""

    def __call__(self, stored: str, setup: Setup) -> Choice:
        """What the opener would take for weights `stored` as F32, F16 or BF16; the same `ModelError` as there."""
        ...


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
        lister: Lister | None = None if fault else _beside(entry, "devices")
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
    choose: Chooser | None = _beside(entry, "choose")
    if choose is None:
        return Run(entry.name)
    choice = choose(facts.dtype, setup)
    needed = (facts.memory_packed if choice.packed else facts.memory)[choice.dtype]
    available = choice.device.available
    short = "too little memory; take a smaller dtype, another device or a smaller model"
    return Run(entry.name, short if available is not None and needed > available else "", choice, needed)


def _beside(entry: EntryPoint, function: str) -> Any:
    """A function of the module that a backend's entry point names; `None` if it has none of this name."""
    try:
        return type(entry)(entry.name, f"{entry.module}:{function}", entry.group).load()
    except AttributeError:
        return None

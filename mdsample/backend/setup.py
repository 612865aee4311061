"""Setup: how a model is to run, as `load` and the backends take it, and what a backend says of devices and sizes.

A backend may have four functions beside its opener, in the module that its entry point names: `devices`, a `Lister`,
`choose`, a `Chooser`, `check_other`, a `Checker`, and `check_trunk`, a `TrunkChecker`. Of a backend without them it is
known only that it works.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import attrs

from mdsample.errors import shown
from mdsample.models.cache import Cache
from mdsample.models.families.trunk import Trunk
from mdsample.models.files import Files


@attrs.frozen(kw_only=True)
class Setup:
    """What `None` means is up to the backend, but for the cache: then nothing is kept from pass to pass."""

    #: `cpu`, `cuda`, `cuda:1`, `mps`; with mlx `gpu` or `cpu`
    device: str | None = None
    #: `float32`, `bfloat16` or `float16`, the type of the weights
    dtype: str | None = None
    cache: Cache | None = None
    #: whether the layers are to be compiled; a backend that compiles nothing refuses it
    compile: bool = False
    #: the folder of an adapter that is merged into the weights; a backend that merges none refuses it
    adapter: Path | None = None

    def __attrs_post_init__(self) -> None:
        """`TypeError` for what is of another type."""
        for name, value in (("device", self.device), ("dtype", self.dtype)):
            if not isinstance(value, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"{name} is text, such as 'cpu' or 'float32'; got {shown(value)}")
        if not isinstance(self.cache, Cache | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"cache is text, such as 'dual(8)'; got {shown(self.cache)}")
        if not isinstance(self.compile, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"compile is True or False; got {shown(self.compile)}")
        if not isinstance(self.adapter, Path | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"adapter is the path of a folder; got {shown(self.adapter)}")


#: all by itself
DEFAULT = Setup()


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


class Checker(Protocol):
    """A backend's `check_other`."""

    def __call__(self, files: Files) -> None:
        """`ModelError` for a model of none of our families that the opener would refuse; weights are elsewhere yet."""
        ...


class TrunkChecker(Protocol):
    """A backend's `check_trunk`."""

    def __call__(self, trunk: Trunk) -> None:
        """`ModelError` for a model of one of our families that the opener would refuse."""
        ...

"""Setup: how a model is to run, as `load` and the backends take it."""

from __future__ import annotations

import attrs

from mdsample.errors import shown
from mdsample.models.cache import Cache


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

    def __attrs_post_init__(self) -> None:
        """`TypeError` for what is of another type."""
        for name, value in (("device", self.device), ("dtype", self.dtype)):
            if not isinstance(value, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"{name} is text, such as 'cpu' or 'float32'; got {shown(value)}")
        if not isinstance(self.cache, Cache | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"cache is text, such as 'dual(8)'; got {shown(self.cache)}")
        if not isinstance(self.compile, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"compile is True or False; got {shown(self.compile)}")


#: all by itself
DEFAULT = Setup()

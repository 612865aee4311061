"""Setup: how a model is to run, as `load` and the backends take it."""

from __future__ import annotations

import attrs

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
        """`TypeError` for what is not text."""
        for name, value in (("device", self.device), ("dtype", self.dtype)):
            if not isinstance(value, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"{name} is text, such as 'cpu' or 'float32'; got {value!r:.80}")


#: all by itself
DEFAULT = Setup()

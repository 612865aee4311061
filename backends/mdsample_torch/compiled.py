"""A layer compiled by torch, once for every shape: with `bucketed` there are few.

One layer is compiled and not the whole trunk: all layers of a model are the same code, so the time that compiling takes
does not grow with their number. The last layer, whose queries are other in every look, and layers with experts, whose
products have sizes that depend on the data, run as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch

from mdsample.errors import ModelError

#: shapes that are remembered; a run of ragged rows has a few dozen
SHAPES = 256


@final
class Compiled:
    """A function of torch, compiled once for every key; equal keys promise equal shapes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Raises `ModelError` if this torch cannot."""
        self._function = function
        self._made: dict[object, Callable[..., Any]] = {}
        self(None)

    def __call__(self, key: object) -> Callable[..., Any]:
        """The function for calls of this key; compiled when it is called first."""
        if key not in self._made:
            if len(self._made) >= SHAPES:
                # the oldest: a dictionary keeps the order in which keys came
                del self._made[next(iter(self._made))]
            self._made[key] = _compile(self._function)
        return self._made[key]


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    compiler: Any = torch.compile  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    try:
        # shapes of their own each: none of them counts against the limit of another, beyond which torch gives up
        return compiler(function, dynamic=False, fullgraph=True, isolate_recompiles=True)
    except TypeError as error:
        raise ModelError(f"compile needs torch 2.13 or later; this is {torch.__version__}") from error

"""Imports Triton and the kernels so that they run on a CPU: the setting is read when they are first imported."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
with pytest.MonkeyPatch.context() as environment, contextlib.suppress(ImportError):
    if DEVICE == "cpu":
        environment.setenv("TRITON_INTERPRET", "1")
    import triton.experimental.gluon  # pyright: ignore # noqa: F401 - the interpreter does so later, and asks anew
    from mdsample_torch import reduce_triton  # noqa: F401

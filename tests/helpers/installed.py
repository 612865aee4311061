"""Parameters that are skipped where their framework is not installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest


def on(framework: str, value: Any) -> Any:
    """A value for `parametrize` or a fixture, for a test that needs torch or mlx."""
    missing = importlib.util.find_spec(framework) is None
    marks = [pytest.mark.backend, pytest.mark.skipif(missing, reason=f"{framework} is not installed")]
    return pytest.param(value, id=framework, marks=marks)

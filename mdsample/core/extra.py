"""Libraries that only some files need: imported when such a file is named, and refused in a sentence where missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mdsample.errors import RecordError


def needed(module: str, extra: str, purpose: str) -> Any:
    """The module; `RecordError` says what to install if it is missing. `purpose`: what it is needed for."""
    try:
        return import_module(module)
    except ImportError as fault:
        package = module.split(".")[0]
        raise RecordError(f"{purpose} takes {package} ({fault}): pip install 'mdsample[{extra}]'") from None

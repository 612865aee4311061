"""Strategies, toys and suites to test a part or backend of your own with.

What draws parts and policies at random needs Hypothesis (`mdsample[testing]`) and is imported once it is asked for:
`check_part`, `parts`, `policies`. `pytest --pyargs mdsample.testing` tries an installation.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mdsample.testing.denoiser import check_backend, check_denoiser
from mdsample.testing.promises import a_trace_replays, keeps_its_promises, rows_are_independent, run, same_row
from mdsample.testing.toys import ScriptedDenoiser, Symbols

if TYPE_CHECKING:
    from mdsample.testing.part import check_part
    from mdsample.testing.strategies import parts, policies

__all__ = [
    "ScriptedDenoiser",
    "Symbols",
    "a_trace_replays",
    "check_backend",
    "check_denoiser",
    "check_part",
    "keeps_its_promises",
    "parts",
    "policies",
    "rows_are_independent",
    "run",
    "same_row",
]

_RANDOM = {"check_part": "part", "parts": "strategies", "policies": "strategies"}


def __getattr__(name: str) -> object:
    """What needs Hypothesis."""
    if name not in _RANDOM:
        raise AttributeError(f"module 'mdsample.testing' has no attribute {name!r}")
    try:
        return getattr(import_module(f"mdsample.testing.{_RANDOM[name]}"), name)
    except ModuleNotFoundError as fault:
        if fault.name != "hypothesis":
            raise
        raise ModuleNotFoundError(
            f"mdsample.testing.{name} needs Hypothesis: pip install 'mdsample[testing]'", name=fault.name
        ) from fault

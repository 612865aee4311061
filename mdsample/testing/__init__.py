"""Strategies, toys and suites to test a part or backend of your own with; needs Hypothesis (`mdsample[test]`)."""

from mdsample.testing.denoiser import check_backend, check_denoiser
from mdsample.testing.part import check_part
from mdsample.testing.promises import a_trace_replays, keeps_its_promises, rows_are_independent, run, same_row
from mdsample.testing.strategies import parts, policies
from mdsample.testing.toys import ScriptedDenoiser, Symbols

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

"""Hostile inputs are answered, or refused with one sentence; `tests/helpers/hostile.py` runs all thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HELPER = Path(__file__).parent / "helpers" / "hostile.py"


@pytest.mark.skipif(sys.platform != "linux", reason="cases need /dev/full, and limits for one process")
@pytest.mark.parametrize("every", [10, pytest.param(3, marks=pytest.mark.slow)])
def test_hostile_inputs(every: int) -> None:
    for needed in ("matplotlib", "math_verify"):
        pytest.importorskip(needed)
    # a process of its own, since it forks; time is for the helper alone to judge, on a machine that does nothing else
    command = [sys.executable, str(HELPER), "--every", str(every), "--seconds", "20"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr

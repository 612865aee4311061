"""Hostile inputs are answered, or refused with one sentence; `tests/helpers/hostile.py` runs all, this test a tenth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HELPER = Path(__file__).parent / "helpers" / "hostile.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="cases need /dev/full, and limits for one process")
def test_hostile_inputs() -> None:
    for needed in ("matplotlib", "math_verify"):
        pytest.importorskip(needed)
    # a process of its own, since it forks; time is for the helper alone to judge, on a machine that does nothing else
    command = [sys.executable, str(HELPER), "--every", "10", "--seconds", "20"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr

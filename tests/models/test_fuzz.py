"""Model folders with faults at random are read, or refused with one sentence; `fuzz_models` tries more."""

from __future__ import annotations

import pytest
from fuzz_models import run_cases


@pytest.mark.slow
def test_500_folders() -> None:
    ends, wrong = run_cases(0, range(500))
    assert not wrong and ends["read"] > 20 and ends["ModelError"] > 200, (ends, wrong)

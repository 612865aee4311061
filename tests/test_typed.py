"""What is required, keyword-only or of another type is seen by type checkers, not only when it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CALLS = Path(__file__).parent / "typed" / "calls.py"
WRONG = {number for number, text in enumerate(CALLS.read_text().splitlines(), 1) if text.endswith("# wrong")}


def test_pyright() -> None:
    pytest.importorskip("pyright")
    found = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(CALLS)],
        capture_output=True,
        text=True,
        check=False,
        cwd=CALLS.parent,
    )
    told = json.loads(found.stdout)["generalDiagnostics"]
    assert {each["range"]["start"]["line"] + 1 for each in told if each["severity"] == "error"} == WRONG


def test_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(CALLS)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert {int(line) for line in re.findall(r"calls\.py:(\d+): error", found.stdout)} == WRONG, found.stdout

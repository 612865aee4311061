"""The benchmark of valid texts, on a small part of what it runs; and that it sees what is invalid."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
SOME = ["--only", "choice", "--only", "set", "--texts", "90", "--weights", "stubborn", "--backend", "reference"]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(FOLDER))
    names = runpy.run_path(str(FOLDER / "validity.py"))
    return names["main"].__globals__


def test_a_model_that_wants_something_else_writes_what_it_must(
    benchmark: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every preset at every temperature; the lines that are kept are not run again."""
    out = tmp_path / "valid.jsonl"
    monkeypatch.setattr(sys, "argv", ["validity.py", *SOME, "--out", str(out)])
    assert benchmark["main"]() == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["| set | 90/90 |", "| choice | 90/90 |", "| all | 180/180 |"]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["language"], line["valid"]) for line in lines] == [("set", 90), ("choice", 90)]
    out.write_text(json.dumps({**lines[0], "valid": 89}) + "\n" + json.dumps(lines[1]) + "\n")
    assert benchmark["main"]() == 1
    assert "| set | 89/90 |" in capsys.readouterr().out


def test_what_is_invalid_is_counted(
    benchmark: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the constraint no text is one of the language's."""
    monkeypatch.setattr(benchmark["Task"], "policy", lambda _, base: base)
    monkeypatch.setattr(sys, "argv", ["validity.py", *SOME[:5], "2", *SOME[6:]])
    assert benchmark["main"]() == 1
    told = capsys.readouterr()
    assert "| set | 0/2 |" in told.out and "| choice | 0/2 |" in told.out and "does not match" in told.err

"""Scores of many rows as a file of records: written row by row, resumed, refused for other texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import is_refused
from mdsample_cli.main import main

ON = ["score", "-t", "{prompt}{answer:2}", "--backend", "reference", "--method", "marginals"]


def test_scores_are_written_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = [{"id": n, "prompt": f"{n} + 1 =", "choices": ["1", "2"]} for n in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*table, {"id": 9, "choices": []}]))
    line, out = [*ON, "-i", str(tmp_path / "in.jsonl"), "--choices-from", "choices"], tmp_path / "out.jsonl"
    assert main([*line, "--json"]) == 1
    printed = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert main([*line, "-o", str(out)]) == 1
    assert [json.loads(text) for text in out.read_text().splitlines()] == printed
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:2]) + '{"id": 2, "pro')
    capsys.readouterr()
    assert main([*line, "-o", str(out)]) == 1 and "already has 2 of 4 rows" in capsys.readouterr().err
    # the numbers of a row round with those that share its pass
    assert [json.loads(text)["id"] for text in out.read_text().splitlines()] == [row["id"] for row in printed]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({**row, "choices": ["1", "3"]}) + "\n" for row in table))
    is_refused([*line, "-o", str(out)], "answers row 0 of another input", capsys)
    other = [*ON[:-1], "chain", "-i", str(tmp_path / "in.jsonl"), "--choices-from", "choices", "-o", str(out)]
    is_refused(other, "method there:", capsys)
    is_refused([*ON, "hi", "--choices", "1,2", "-o", "x"], "--output is for the rows of --input", capsys)
    is_refused([*line, "--ray", "auto"], "--ray finishes rows in no order", capsys)
    is_refused([*line, "--actors", "2", "-o", "x"], "--actors is of a cluster", capsys)

"""The examples run on the embedded models, and print and write what they say."""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def run(name: str, *arguments: str) -> None:
    main: Any = runpy.run_path(str(FOLDER / f"{name}.py"))["main"]
    main(arguments)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_each_is_listed_short_and_says_how_it_is_run(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert f"[{script.name}]({script.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    assert f"python examples/{script.name}" in (ast.get_docstring(ast.parse(text)) or "")
    imported = re.findall(r"^(?:from|import) (mdsample\S*)(?: import (.+))?$", text, re.MULTILINE)
    assert imported and not any(name.startswith("_") for _, names in imported for name in names.split(", "))


def test_early_exit_solves_as_much_in_fewer_passes(capsys: pytest.CaptureFixture[str]) -> None:
    run("gsm8k_early_exit", "--limit", "1")
    found = re.findall(r"(\d) of 1 solved, ([\d.]+) forward passes", capsys.readouterr().out)
    assert [solved for solved, _ in found] == ["1", "1", "1"]
    one, parallel, early = (float(passes) for _, passes in found)
    assert early < parallel < one == 68


def test_every_line_becomes_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("json_from_file", "--limit", "2", "--output", str(tmp_path / "objects.jsonl"))
    objects = [json.loads(line) for line in (tmp_path / "objects.jsonl").read_text(encoding="utf-8").splitlines()]
    problems = (FOLDER / "data" / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    right = [int(json.loads(line)["answer"].split("#### ")[1]) for line in problems]
    assert objects == [{"answer": answer} for answer in right[:2]]
    assert "2 objects" in capsys.readouterr().out


def test_the_files_have_the_same_problems() -> None:
    problems = (FOLDER / "data" / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    texts = (FOLDER / "data" / "problems.txt").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["question"] for line in problems] == texts


def test_what_fills_a_hole_parses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "code.py").write_text("d = {'a': <hole>}\n", encoding="utf-8")
    run("infill_code", "--file", str(tmp_path / "code.py"), "-n", "2")
    printed = capsys.readouterr().out
    assert printed.startswith("d = {'a': ") and len(ast.parse(printed).body) in (1, 2)


def test_a_file_without_a_hole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("pass\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        run("infill_code", "--file", str(tmp_path / "code.py"))


@pytest.mark.backend
def test_policies_differ_on_palindromes(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    run("compare_policies", "--limit", "30")
    lines = capsys.readouterr().out.splitlines()
    right = {line.split()[0]: re.findall(r"right +(\d+)%", line)[0] for line in lines}
    assert right.pop("random+steps(4)") < "80" and set(right.values()) == {"100"}


@pytest.mark.slow
@pytest.mark.backend
def test_traces_are_drawn_and_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("torch", "transformers", "accelerate", "peft"):
        pytest.importorskip(name)
    run("posterior_traces", "--limit", "2", "--out", str(tmp_path / "run"))
    assert "1 steps on 2 traces" in capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "run" / "traces.jsonl").read_text().splitlines()]
    assert [sum(trace["kept"] for trace in record["traces"]) for record in records] == [1, 1]
    assert (tmp_path / "run" / "tuned" / "model.safetensors").stat().st_size > 1_000_000

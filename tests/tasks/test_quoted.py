"""The data sets that papers quote, in tiny files of the published layouts: prompts, answers, programs that are run."""

from __future__ import annotations

import gzip
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import pytest
from commands import is_refused
from hypothesis import given
from hypothesis import strategies as st
from mdsample_cli.main import main

import mdsample
from mdsample.core.template import Template
from mdsample.errors import RecordError
from mdsample.sampling.result import Row
from mdsample.tasks.catalog import Task
from mdsample.tasks.child import passes
from mdsample.tasks.named import PUBLISHED, Source, task_named
from mdsample.tasks.puzzles import _reaches, _value

HUMANEVAL = [
    {
        "task_id": f"HumanEval/{n}",
        "prompt": f'def add{n}(a, b):\n    """The sum and {n}."""\n',
        "entry_point": f"add{n}",
        "canonical_solution": f"    return a + b + {n}\n",
        "test": f"def check(candidate):\n    assert candidate(1, 2) == {3 + n}\n",
    }
    for n in range(2)
]
MBPP = [
    {
        "task_id": n,
        "text": f"Write a function to add {n}.",
        "code": f"def plus(x):\n  return x + {n}",
        "test_list": [f"assert plus({x}) == {x + n}" for x in range(3)],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    for n in (2, 3, 4, 11, 12, 511)
]
SCHOOL = [
    {"question": f"What is {n} + 1?", "answer": f"{n} + 1 = <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"} for n in range(4)
]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(*pieces: tuple[str, bool]) -> Row:
    """What tasks read of a finished row: texts, and whether each stands in a slot."""

    class Finished:
        def shown(self) -> list[tuple[int, str]]:
            return [(place, text) for place, (text, _) in enumerate(pieces)]

    made = cast("Any", Finished())
    made.blank, made.slot = [False] * len(pieces), [0 if inside else -1 for _, inside in pieces]
    made.text = "".join(text for text, _ in pieces).strip()
    made.slots = {"solution": made.text}
    return made


def solved(task: Task, problem: int, *pieces: tuple[str, bool]) -> bool:
    return task.correct(row(*pieces), task.read()[problem])


def test_humaneval_is_right_where_its_tests_pass(tmp_path: Path) -> None:
    plain = lines(tmp_path / "HumanEval.jsonl", HUMANEVAL)
    packed = tmp_path / "HumanEval.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    task = task_named("humaneval", Source(packed, run_code=True))
    assert [problem.texts["prompt"] for problem in task.read()] == [given["prompt"] for given in HUMANEVAL]
    assert task.read() == task_named("humaneval", Source(plain, run_code=True)).read()
    assert task.read()[1].id == "HumanEval/1"
    right = str(HUMANEVAL[1]["canonical_solution"])
    assert solved(task, 1, (right, True)) and not solved(task, 0, (right, True))
    # what follows the function is no part of it
    for after in ("\nclass X:\n", "\nprint(1 / 0)\n", "\n```\nSo it is.", "\ndef f(:", "\nif True:\n    1 / 0\n"):
        assert solved(task, 1, (right + after, True))
    assert not solved(task, 1, ("", True)) and not solved(task, 1, ("    return 'a'", True))


def test_a_hole_in_humaneval_is_filled_between_its_texts(tmp_path: Path) -> None:
    given = HUMANEVAL[1] | {"prompt": HUMANEVAL[1]["prompt"] + "    c = ", "suffix": "\n    return c + 1\n"}
    task = task_named("humaneval-infilling", Source(lines(tmp_path / "h.jsonl", [given]), run_code=True))
    assert Template.parse(task.template).fields == ("prompt", "suffix")
    assert solved(task, 0, ("a + b", True), (str(given["suffix"]), False))
    assert not solved(task, 0, ("a - b", True), (str(given["suffix"]), False))


def test_mbpp_has_the_papers_prompt_and_split(tmp_path: Path) -> None:
    path = lines(tmp_path / "mbpp.jsonl", MBPP)
    task = task_named("mbpp", Source(path, run_code=True))
    assert task.name == "mbpp (3 shots)" and [problem.id for problem in task.read()] == [11, 12]
    prompt = task.read()[0].texts["prompt"]
    assert prompt.count("[BEGIN]") == 4 and prompt.count("[DONE]") == 3 and prompt.endswith("[BEGIN]\n")
    assert prompt.startswith(
        "You are an expert Python programmer, and here is your task: Write a function to add 2. Your code should pass "
        "these tests:\n\nassert plus(0) == 2\nassert plus(1) == 3\nassert plus(2) == 4\n[BEGIN]\ndef plus(x):\n"
    )
    assert solved(task, 0, ("def plus(x):\n  return x + 11\n[DONE]\nand so on (", True))
    assert not solved(task, 1, ("def plus(x):\n  return x + 11\n", True))
    # the sanitized file is an array, with other keys
    rows = [{"prompt": entry["text"], "test_imports": ["import math"], **entry} for entry in MBPP]
    for entry in rows:
        del entry["text"], entry["test_setup_code"]
    (tmp_path / "sanitized-mbpp.json").write_text(json.dumps(rows))
    other = task_named("mbpp", Source(tmp_path / "sanitized-mbpp.json", shots=0, run_code=True))
    assert other.name == "mbpp (0 shots)" and other.read()[0].texts["prompt"].count("[BEGIN]") == 1
    assert solved(other, 0, ("def plus(x):\n  return math.floor(x) + 11", True))


def test_school_problems_with_examples(tmp_path: Path) -> None:
    train, test = lines(tmp_path / "train.jsonl", SCHOOL[:3]), lines(tmp_path / "test.jsonl", SCHOOL[3:])
    task = task_named("gsm8k", Source(test, 2, train))
    prompt = task.read()[0].texts["prompt"]
    assert prompt == (
        "Question: What is 0 + 1?\nAnswer: 0 + 1 = <<0+1=1>>1\n#### 1\n\n"
        "Question: What is 1 + 1?\nAnswer: 1 + 1 = <<1+1=2>>2\n#### 2\n\nQuestion: What is 3 + 1?\nAnswer:"
    )
    read = task.extracts[task.suits(Template.parse(task.template))]
    assert task.name == "gsm8k (2 shots)" and read(" so\n#### 4\n\nQuestion: What is\n#### 9?") == "4"
    with pytest.raises(RecordError, match="holds 3 problems, too few for 4 shots"):
        task_named("gsm8k", Source(test, 4, train))
    with pytest.raises(RecordError, match="among its own examples"):
        task_named("gsm8k", Source(train, 1, train)).read()
    pytest.importorskip("math_verify")
    hard = [{"problem": f"p{n}", "solution": f"s{n} \\boxed{{{n}}}", "answer": str(n)} for n in range(2)]
    task = task_named("math500", Source(lines(tmp_path / "m.jsonl", hard[1:]), 1, lines(tmp_path / "e.jsonl", hard)))
    assert task.read()[0].texts["prompt"] == "Problem:\np0\n\nSolution: s0 \\boxed{0}\n\nProblem:\np1\n\nSolution:"
    assert solved(task, 0, (" it is \\boxed{1}.\n\nProblem:\nx\n\nSolution: \\boxed{2}", True))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("\\boxed{100 - 30 + 7}", True),
        ("so\n<answer>7+(100-30)</answer>", True),
        ("\\boxed{7 + 100 - 30 = 77}", True),
        ("\\boxed{(100 \\div 1) - 30 + 7}", False),
        ("\\boxed{100 - 30}", False),
        ("\\boxed{7 + 7 + 100 - 30}", False),
        ("\\boxed{100 - 30 + 7", True),  # the slot ended
        ("\\boxed{-30 + 100 + 7}", True),
        ("100 30 7 77", False),
        ("", False),
    ],
)
def test_countdown(tmp_path: Path, text: str, right: bool) -> None:
    task = task_named("countdown", Source(lines(tmp_path / "c.jsonl", [{"input": "30,100,7", "output": "77"}])))
    assert task.read()[0].texts == {"numbers": "30, 100, 7", "target": "77"}
    assert solved(task, 0, (text, True)) is right


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda inside: st.tuples(inside, st.sampled_from("+-*/"), inside).map(lambda parts: "(" + " ".join(parts) + ")"),
    max_leaves=6,
)


@given(EXPRESSIONS, st.integers(-50, 50))
def test_an_expression_is_worth_what_python_says(text: str, other: int) -> None:
    exact = re.sub(r"\d+", lambda number: f"Fraction({number[0]})", text)
    try:
        wanted = eval(exact, {"Fraction": Fraction})
    except ZeroDivisionError:
        assert not _reaches(text, f"{','.join(re.findall('[0-9]+', text))}={other}")
        return
    assert _value(text) == wanted
    assert _reaches(text, f"{','.join(re.findall('[0-9]+', text))}={other}") == (wanted == other and len(text) <= 200)


@given(st.text("0123456789+-*/() =a.\n", max_size=40))
def test_any_text_is_an_expression_or_not(text: str) -> None:
    assert _reaches(text, "1,2=3") in (True, False)
    assert not _reaches("(" * 100_000 + "1", "1=1")


def test_sudoku(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("Puzzle,Solution\n3102200002100320,3142243142131324\n0140432014020000,2143432114323214\n")
    task = task_named("sudoku4", Source(path))
    assert [problem.texts["puzzle"] for problem in task.read()] == ["3102200002100320", "0140432014020000"]
    assert solved(task, 0, ("<answer>\n3142 2431\n4213 1324\n</answer>", True))
    assert solved(task, 1, ("2143432114323214", True)) and not solved(task, 0, ("2143432114323214", True))
    for pair in ("3102,3142243142131324", "5102200002100320,3142243142131324", "3102200002100320,"):
        path.write_text(f"Puzzle,Solution\n{pair}\n")
        with pytest.raises(RecordError, match=r"s.csv, line 2: puzzle and solution have 16 digits"):
            task_named("sudoku4", Source(path)).read()


# programs


@pytest.mark.parametrize(
    ("program", "passed"),
    [
        ("import math, re, collections, heapq, typing\nassert math.floor(1.5) == 1", True),
        ("with open('mine', 'w') as file: file.write('x')\nassert open('mine').read() == 'x'", True),
        ("assert False", False),
        ("raise SystemExit(0)", False),
        ("import os\nos._exit(0)", False),
        ("def f(:", False),
        ("x = bytearray(3 << 30)", False),
        ("import socket\nsocket.socket()", False),
        ("import subprocess\nsubprocess.run(['true'])", False),
        ("import os\nos.system('true')", False),
        ("import os\nos.fork()", False),
        ("open('../out', 'w')", False),
        ("import os\nos.open('/tmp/mdsample-out', os.O_CREAT | os.O_WRONLY)", False),
        ("import os\nos.remove('/tmp/nothing')", False),
        ("import os\nassert not os.environ.get('HOME')", True),
        ("input()", False),
        ("x = '\udcff'", True),
    ],
)
def test_a_program_runs_within_limits(program: str, passed: bool) -> None:
    assert passes(program) is passed


def test_a_program_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdsample.tasks.child.SECONDS", 1)
    assert not passes("while True: pass")
    monkeypatch.setattr("mdsample.tasks.child.PATIENCE", 1)
    assert not passes("import time\ntime.sleep(60)")


# refusals, and the command


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_files_that_are_something_else(tmp_path: Path, name: str) -> None:
    for said in ("", "{}\n", "[1]\n", "[", '{"task_id": 11}\n', "\x1f\x8b"):
        (tmp_path / "x").write_text(said, encoding="latin-1")
        with pytest.raises(RecordError):
            task_named(
                name, Source(tmp_path / "x", run_code=name in ("humaneval", "humaneval-infilling", "mbpp"))
            ).read()


def test_what_does_not_go_together_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(lines(tmp_path / "mbpp.jsonl", MBPP))
    bench = ["bench", "--problems", file, "--task"]
    is_refused([*bench, "mbpp"], "judged by running what the model writes", capsys)
    is_refused([*bench, "mbpp", "--run-code", "--shots", "4"], "at most 3 shots; got 4", capsys)
    is_refused([*bench, "gsm8k", "--shots", "4"], "give both", capsys)
    is_refused([*bench, "gsm8k", "--run-code"], "leave it out with gsm8k", capsys)
    is_refused([*bench, "countdown", "--shots", "1"], "leave them out with countdown", capsys)
    is_refused([*bench, "mbpp", "--run-code", "--shots-from", file], "leave it out with mbpp", capsys)
    is_refused(["bench", "--run-code"], "are for published data sets; leave them out", capsys)
    study = '[[tasks]]\nname = "mbpp"\nproblems = "mbpp.jsonl"\n[[models]]\nname = "x"\n[policies]\na = "med"\n'
    (tmp_path / "s.toml").write_text(study)
    is_refused(["study", str(tmp_path / "s.toml")], "line 1, tasks[0]: mbpp is judged by running", capsys)


def test_bench_runs_programs_when_it_may(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(lines(tmp_path / "mbpp.jsonl", MBPP))
    line = ["bench", "--task", "mbpp", "--problems", file, "--run-code", "--shots", "0", "--limit", "1", "--json"]
    assert main([*line, "-p", "top(8)", "-t", "{prompt}{solution:8}\n[DONE]", "--backend", "reference"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["task"], record["accuracy"], record["nfe"]) == ("mbpp (0 shots)", 0.0, 1.0)


def test_a_row_is_read_as_it_was_written() -> None:
    """White space at the beginning of a slot is part of a program."""
    from mdsample.tasks.code import written

    model = mdsample.load("tiny-gsm", "reference")
    made = mdsample.sample(model, "a", template="{prompt}{solution:6}", policy="top(6)")
    tokens = made.tokens[(made.slot == 0)].tolist()
    whole = model.tokenizer.decode(tokens)
    assert written(made) == whole or whole.startswith(written(made))

"""The tasks that papers quote, in the harness: contexts, texts and what is right are those of `bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

harness = pytest.importorskip("lm_eval", reason="the harness is missing: pip install 'mdsample[eval]'")

import mdsample_integrations.lm_eval
from lm_eval.tasks import TaskManager
from mdsample_cli.main import main
from mdsample_integrations.lm_eval import Mdsample

import mdsample
from mdsample.core.template import Template
from mdsample.evaluation.answers import Answers
from mdsample.evaluation.bench import bench
from mdsample.tasks.named import Source, task_named

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the harness's own
    pytest.mark.slow,
]
FOLDER = Path(str(mdsample_integrations.lm_eval.__file__)).parent / "quoted"
SCHOOL = [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(4)]
#: for each task its rows, how it is asked, and a layout of as many tokens as are generated
TASKS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "gsm8k": (SCHOOL[2:], {"shots": 1}, "{prompt}{solution:16}"),
    "math500": (
        [{"problem": f"What is \\frac{{{n}}}{{2}}?", "answer": f"\\frac{{{n}}}{{2}}"} for n in range(1, 3)],
        {},
        "{prompt}{answer:16}",
    ),
    "mbpp": (
        [
            {"task_id": 11 + n, "text": f"add {n}", "code": "x", "test_list": ["assert True", f"assert {n}"]}
            for n in range(2)
        ],
        {"shots": 0},
        "{prompt}{solution:16}",
    ),
    "humaneval": (
        [
            {"task_id": f"h/{n}", "prompt": "x = 1\n", "entry_point": "int", "test": "def check(f): f('1')"}
            for n in range(2)
        ],
        {},
        "{prompt}{solution:16}",
    ),
    "countdown": ([{"input": "1,2,3", "output": "6"}], {}, "Reach {target} with {numbers}:{solution:16}"),
    "sudoku4": ("Puzzle,Solution\n3102200002100320,3142243142131324\n", {}, "{puzzle}:{answer:16}"),
}


#: a tiny model boxes nothing by itself; the first of the two problems is solved
POLICIES = {"math500": r"entropy+top(4)+choices([' \\boxed{\\frac12}'])"}


def wrote(path: Path, rows: Any) -> Path:
    path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", TASKS)
def test_bench_and_the_harness_agree_row_by_row(name: str, tmp_path: Path) -> None:
    if name == "math500":
        pytest.importorskip("math_verify", reason="math-verify is missing: pip install 'mdsample[math]'")
    rows, about, layout = TASKS[name]
    policy = POLICIES.get(name, "entropy+top(4)")
    path, examples = wrote(tmp_path / "problems", rows), wrote(tmp_path / "examples", SCHOOL[:2])
    shots_from = {"shots_from": str(examples)} if name == "gsm8k" else {}
    metadata = {"problems": {name: str(path)}, "layout": layout, **about, **shots_from}
    found = harness.simple_evaluate(
        model=Mdsample(policy=policy),
        tasks=[f"mdsample_{name}"],
        task_manager=TaskManager(include_path=str(FOLDER), include_defaults=False, metadata=metadata),
        gen_kwargs="max_gen_toks=16",
        bootstrap_iters=0,
        log_samples=True,
        confirm_run_unsafe_code=True,
    )
    samples = found["samples"][f"mdsample_{name}"]
    runs = name in ("mbpp", "humaneval")
    source = Source(path, about.get("shots"), examples if shots_from else None, run_code=runs)
    task = task_named(name, source)
    with Answers(tmp_path / "answers.jsonl") as answers:
        (score,) = bench(
            mdsample.load("tiny-gsm"),
            task,
            [mdsample.parse(policy)],
            template=Template.parse(layout),
            answers=answers,
        )
    records = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    kept = {record["id"]: record for record in records}
    assert len(samples) == len(kept) == len(task.read())
    for sample, problem in zip(samples, task.read(), strict=True):
        text, record = sample["resps"][0][0], kept[problem.id]
        assert sample["doc"]["answer"] == problem.answer
        # the harness's text ends at its stop strings
        assert record["text"].startswith(text.strip())
        assert sample["exact_match"] == record["solved"]
    assert found["results"][f"mdsample_{name}"]["exact_match,none"] == score.accuracy.value
    assert score.accuracy.value == 0.5 or name != "math500"


def test_the_command_has_the_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["mdsample"])
    path = wrote(tmp_path / "s.csv", TASKS["sudoku4"][0])
    line = ["lm-eval", "--model_args", "pretrained=tiny-gsm", "--tasks", "mdsample_sudoku4", "--limit", "1"]
    assert main([*line, "--metadata", json.dumps({"problems": str(path)})]) == 0
    assert "mdsample_sudoku4" in capsys.readouterr().out

"""`bench` beside lm-evaluation-harness: the same problems, compared row by row.

    python benchmarks/harness.py --limit 200 --backend torch

answers problems of tiny-gsm twice, by `bench` and by the harness with its own filters and metric, and counts the rows
whose text, passes and verdict are equal. Needs `pip install 'mdsample[eval]'`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from common import command_line

import mdsample
from mdsample.evaluation.answers import Answers
from mdsample.evaluation.bench import bench
from mdsample.evaluation.intervals import share
from mdsample.tasks.catalog import TASKS

TASK = TASKS["tiny-gsm"]
#: a task of the harness, as a person would write it: the answer is the last number
CONFIG: dict[str, Any] = {
    "task": "tiny_gsm",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 100},
    "filter_list": [
        {
            "name": "last",
            "filter": [
                {"function": "regex", "regex_pattern": "(-?[0-9]+)", "group_select": -1},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def by_harness(model: Any, policy: str, limit: int, batch_size: int) -> dict[str, tuple[str, int, bool]]:
    """Text, passes and verdict of each problem, by its question."""
    import lm_eval
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from mdsample_integrations.lm_eval import Mdsample

    rows = [{"question": problem.texts["prompt"], "answer": problem.answer} for problem in TASK.read()[:limit]]
    task = ConfigurableTask(config=CONFIG | {"custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}})
    found = lm_eval.simple_evaluate(
        model=Mdsample(model, policy=policy, template="own", batch_size=batch_size),
        tasks=[task],
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = found["samples"]["tiny_gsm"]
    return {
        sample["doc"]["question"]: (
            sample["resps"][0][0],
            sample["arguments"][0][1]["mdsample"][0]["nfe"],
            bool(sample["exact_match"]),
        )
        for sample in samples
    }


def by_bench(model: Any, policy: str, limit: int, batch_size: int) -> dict[str, tuple[str, int, bool]]:
    """The same, by `bench`."""
    with tempfile.TemporaryDirectory() as folder:
        with Answers(Path(folder) / "answers.jsonl") as answers:
            list(bench(model, TASK, [mdsample.parse(policy)], limit=limit, batch_size=batch_size, answers=answers))
        lines = (Path(folder) / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["id"]: record for record in map(json.loads, lines)}
    problems = TASK.read()[:limit]
    found = [(problem.texts["prompt"], records[problem.id]) for problem in problems]
    return {question: (record["text"], record["nfe"], record["solved"]) for question, record in found}


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--policy", default="med+early-exit")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--batch-size", type=int, default=40)
    options = parser.parse_args()
    model = mdsample.load("tiny-gsm", backend=options.backend)
    ours = by_bench(model, options.policy, options.limit, options.batch_size)
    theirs = by_harness(model, options.policy, options.limit, options.batch_size)
    print(f"{options.policy} on {model.backend}, {options.limit} problems of tiny-gsm")
    for number, name in enumerate(("text", "passes", "verdict")):
        equal = sum(ours[question][number] == theirs[question][number] for question in ours)
        print(f"{name}: {equal} of {len(ours)} rows equal")
    for name, side in (("bench", ours), ("harness", theirs)):
        accuracy = share(sum(solved for _, _, solved in side.values()), len(side))
        print(f"{name}: {100 * accuracy.value:.1f} % [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]")


if __name__ == "__main__":
    main()

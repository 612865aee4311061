"""`bench` beside lm-evaluation-harness: the same problems, compared row by row.

    python benchmarks/harness.py --limit 200 --backend torch
    python benchmarks/harness.py --task math500 --problems FILE --layout 'Problem: {prompt} Solution:{solution:64}'

answers problems twice, by `bench` and by the harness, and counts the rows whose text, passes and verdict are equal. On
tiny-gsm the harness has its own filters and metric; of a published data set it runs the task `mdsample_NAME`, and the
layout has one slot, at its end. Needs `pip install 'mdsample[eval]'`, and math500 `mdsample[math]`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from common import command_line

import mdsample
from mdsample.core.template import Slot, Template
from mdsample.evaluation.answers import Answers
from mdsample.evaluation.bench import bench
from mdsample.evaluation.intervals import share
from mdsample.tasks.catalog import Task
from mdsample.tasks.named import Source, task_named

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


#: text without the white space around it, passes and verdict
Found = tuple[str, int, bool]


def by_harness(model: Any, task: Task, layout: Template | None, options: Any) -> list[Found]:
    """Of each problem, in their order; `layout` where the task is a published one."""
    import lm_eval
    import mdsample_integrations.lm_eval
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

    own = mdsample_integrations.lm_eval.Mdsample
    if layout is None:
        rows = [{"question": problem.texts["prompt"], "answer": problem.answer} for problem in task.read()]
        asked = [ConfigurableTask(config=CONFIG | {"custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}})]
        how: tuple[dict[str, Any], dict[str, Any]] = {"template": "own"}, {}
    else:
        length = next(piece.length for piece in layout.pieces if isinstance(piece, Slot))
        folder = Path(mdsample_integrations.lm_eval.__file__).parent / "quoted"
        metadata = {"problems": options.problems, "layout": str(layout)}
        manager = TaskManager(include_path=str(folder), include_defaults=False, metadata=metadata)
        asked = [f"mdsample_{task.name}"]
        how = {}, {"task_manager": manager, "gen_kwargs": f"max_gen_toks={length}"}
    found = lm_eval.simple_evaluate(
        model=own(model, policy=options.policy, batch_size=options.batch_size, **how[0]),
        tasks=asked,
        limit=options.limit,
        bootstrap_iters=0,
        log_samples=True,
        **how[1],
    )
    (samples,) = found["samples"].values()
    return [
        (sample["resps"][0][0].strip(), sample["arguments"][0][1]["mdsample"][0]["nfe"], bool(sample["exact_match"]))
        for sample in sorted(samples, key=lambda sample: sample["doc_id"])
    ]


def by_bench(model: Any, task: Task, layout: Template | None, options: Any) -> list[Found]:
    """The same, by `bench`."""
    limit, size, policies = options.limit, options.batch_size, [mdsample.parse(options.policy)]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "answers.jsonl"
        with Answers(kept) as answers:
            list(bench(model, task, policies, template=layout, limit=limit, batch_size=size, answers=answers))
        records = {record["id"]: record for record in map(json.loads, kept.read_text(encoding="utf-8").splitlines())}
    found = (records[problem.id] for problem in task.read()[:limit])
    return [(record["text"].strip(), record["nfe"], record["solved"]) for record in found]


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--task", default="tiny-gsm")
    parser.add_argument("--problems", help="the file of a published data set")
    parser.add_argument("--layout", help="the template of a published data set; default: the task's")
    parser.add_argument("--limit", type=int, help="default: all problems")
    parser.add_argument("--policy", default="med+early-exit")
    parser.add_argument("--model", default="tiny-gsm")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--batch-size", type=int, default=40)
    options = parser.parse_args()
    source = None if options.problems is None else Source(Path(options.problems))
    task = task_named(options.task, source)
    layout = None if source is None else Template.parse(options.layout or task.template)
    model = mdsample.load(options.model, backend=options.backend)
    ours = by_bench(model, task, layout, options)
    theirs = by_harness(model, task, layout, options)
    print(f"{options.policy} on {model.backend}, {len(ours)} problems of {task.name}")
    for number, name in enumerate(("text", "passes", "verdict")):
        equal = sum(one[number] == other[number] for one, other in zip(ours, theirs, strict=True))
        print(f"{name}: {equal} of {len(ours)} rows equal")
    for name, side in (("bench", ours), ("harness", theirs)):
        accuracy = share(sum(solved for _, _, solved in side), len(side))
        print(f"{name}: {100 * accuracy.value:.1f} % [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]")


if __name__ == "__main__":
    main()

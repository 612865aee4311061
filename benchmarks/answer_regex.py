"""Does `regex(' -?[0-9]+')` on the slot of the answer change answers and passes? Paired, problem by problem.

    python benchmarks/answer_regex.py --out answers.jsonl           # 1,000 problems, about 20 minutes of a core
    python benchmarks/answer_regex.py --problems 50

`tiny-gsm` under `--policy`. Its windows are blocks of 32 positions and the reasoning has 96, so nothing of the answer
is written before the reasoning is, and what holds the answer can only change the answer's own block. So each reasoning
is written once and answered twice: as the policy goes on by itself, and under the constraint. The first `--check`
problems are run both ways from the beginning as well, and must come to the same tokens in the same passes. `--out`
keeps a line for each problem; the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
from common import command_line, progress

import mdsample
from mdsample.evaluation.intervals import mean, paired_difference, share
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import Prepared, prepare
from mdsample.tasks.catalog import TASKS

TASK = TASKS["tiny-gsm"]
TEMPLATE = mdsample.Template.parse(TASK.template)
ANSWER = TEMPLATE.slots.index("answer")
PATTERN = " -?[0-9]+"


def run(model: Denoiser, policy: Policy, rows: Sequence[Prepared], size: int) -> dict[int | str, mdsample.Row]:
    """Rows by their ids."""
    return {row.id: row for row in fill(mdsample.Sampler(policy), model, TEMPLATE.slots, rows, batch_size=size)}


def unanswered(prepared: Prepared, row: mdsample.Row, mask: int) -> tuple[Prepared, int]:
    """The row with its reasoning and without its answer, and the passes that the reasoning took."""
    inside = row.slot == ANSWER
    steps = {int(inside[commit.position]): set[int]() for commit in row.commits}
    for commit in row.commits:
        steps[int(inside[commit.position])].add(commit.step)
    assert max(steps[0]) < min(steps[1]), "the answer was begun before the reasoning was written"
    return attrs.evolve(prepared, tokens=np.where(inside, mask, row.tokens).tolist(), blank=inside.tolist()), len(
        steps[0]
    )


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--policy", default="med")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--check", type=int, default=8)
    parser.add_argument("--out", type=Path, help="a line of JSON for each problem")
    told = parser.parse_args()
    model = mdsample.load("tiny-gsm", told.backend)
    free = mdsample.parse(told.policy)
    held = free + mdsample.Regex(PATTERN)
    problems = {problem.id: problem for problem in TASK.read()[: told.problems]}
    lines = told.out.read_text().splitlines() if told.out and told.out.exists() else []
    done = {line["id"]: line for line in map(json.loads, lines) if line["policy"] == told.policy}
    asked = [prepare(model, TEMPLATE, id, one.texts) for id, one in problems.items()]
    waiting = [row for row in asked if row.id not in done]
    for first in range(0, len(waiting), 2 * told.batch):
        some = waiting[first : first + 2 * told.batch]
        by_itself = run(model, free, some, told.batch)
        parts = {row.id: unanswered(row, by_itself[row.id], model.tokenizer.mask_id) for row in some}
        under = run(model, held, [row for row, _ in parts.values()], told.batch)
        if not first and told.check:
            for id, row in run(model, held, some[: told.check], told.batch).items():
                assert row.tokens.tolist() == under[id].tokens.tolist() and row.nfe == parts[id][1] + under[id].nfe
        for id, (_, passes) in parts.items():
            line = {
                **{"id": id, "policy": told.policy, "expected": problems[id].answer},
                **{"free": TASK.answer(by_itself[id]), "held": TASK.answer(under[id])},
                **{"free_nfe": by_itself[id].nfe, "held_nfe": passes + under[id].nfe, "reasoning_nfe": passes},
            }
            done[id] = line
            if told.out:
                with told.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        progress(f"{len(done)} of {len(problems)}")
    kept = [done[id] for id in problems if id in done]
    right = {way: [line[way] == line["expected"] for line in kept] for way in ("free", "held")}
    print(f"{len(kept)} problems, {told.policy} on {told.backend}")
    for way, solved in right.items():
        part, passes = share(sum(solved), len(solved)), mean([line[f"{way}_nfe"] for line in kept])
        print(f"{way}: accuracy {part.value:.3f} [{part.low:.3f}, {part.high:.3f}], {passes.value:.2f} passes")
    d = paired_difference(right["held"], right["free"])
    fewer = mean([line["held_nfe"] - line["free_nfe"] for line in kept])
    print(f"held - free: accuracy {d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]")
    print(f"             passes {fewer.value:+.3f} [{fewer.low:+.3f}, {fewer.high:+.3f}]")
    pairs = list(zip(right["free"], right["held"], strict=True))
    print(f"right only free: {pairs.count((True, False))}, only held: {pairs.count((False, True))}")
    print(f"free answers that are no number: {sum(not re.fullmatch(PATTERN[1:], line['free']) for line in kept)}")


if __name__ == "__main__":
    main()

"""Does the answer's slot tell, while a reasoning is being written, whether it will be right? Areas under the curve.

    python benchmarks/along.py [--limit 300] [--policy med] [--json]

Problems of `tiny-gsm`, one run each, the slot `answer` watched in every pass (no pass is made for it). At 0, 25, 50, 75
and 100 % of the reasoning (of its tokens before the first end token) three scores are asked how well they tell runs
that end right from runs that end wrong: *expected*, log p(right answer | reasoning so far), which judges a reasoning
when the answer is known; *certainty*, minus the entropy of the answer's slot, which needs no answer; and the baseline,
the mean log-probability of the tokens written so far. Area under the ROC curve: 0.5 is chance, 1 is perfect; 95 %
bootstrap intervals over problems.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from common import command_line, emit, interval, progress, resamples

import mdsample
from mdsample.core.arrays import Bools, Doubles
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import prepare
from mdsample.sampling.result import Row
from mdsample.scoring.watch import SlotReading, SlotWatcher
from mdsample.tasks.catalog import TASKS

STAGES = (0.0, 0.25, 0.5, 0.75, 1.0)
SCORES = ("expected", "certainty", "token confidence")


def area(scores: Doubles, right: Bools) -> float:
    """The probability that a right one scores above a wrong one; equals count half."""
    good, bad = np.sort(scores[right]), scores[~right]
    below = np.searchsorted(good, bad, "left")
    equal = np.searchsorted(good, bad, "right") - below
    return float((len(good) - below - equal / 2).sum() / (len(good) * len(bad)))


def at_stage(stage: float, row: Row, readings: Sequence[SlotReading], end: int) -> tuple[float, float, float]:
    """The three scores at the first pass by which this share of the reasoning is written."""
    slot = np.flatnonzero(row.slot == 0)
    ends = np.flatnonzero(row.tokens[slot] == end)
    said = set(slot[: ends[0] if len(ends) else len(slot)].tolist())
    steps = [(c.step, np.log(max(c.probability, 1e-30))) for c in row.commits if c.position in said]
    enough = stage * len(said)
    after = next((m for m in readings if sum(step < m.step for step, _ in steps) >= enough), readings[-1])
    logged = -700.0 if after.log_probability is None else max(after.log_probability, -700.0)
    written = [value for step, value in steps if step < after.step]
    return logged, -after.entropy, float(np.mean(written)) if written else 0.0


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--policy", default="med")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    task, model = TASKS["tiny-gsm"], mdsample.load("tiny-gsm")
    template = mdsample.Template.parse(task.template)
    problems = {problem.id: problem for problem in task.read()[: options.limit]}
    rows = [prepare(model, template, problem.id, problem.texts) for problem in problems.values()]
    along = SlotWatcher(model, template, "answer", 0)
    for row in rows:
        along.track(row, problems[row.id].answer)
    sampler = mdsample.Sampler(mdsample.parse(options.policy), seed=0)
    found: dict[int | str, list[tuple[float, float, float]]] = {}
    right: dict[int | str, bool] = {}
    progress(f"{len(rows)} problems by {options.policy} …")
    for row in fill(sampler, along, template.slots, rows):
        readings = along.readings(row.id)
        found[row.id] = [at_stage(stage, row, readings, model.tokenizer.end_id or 0) for stage in STAGES]
        right[row.id] = task.correct(row, problems[row.id])
    names = list(problems)
    table, good = np.array([found[name] for name in names]), np.array([right[name] for name in names])
    picks = resamples(len(names), draws=1000)
    if not options.json:
        print(f"{len(names)} problems, {options.policy}: {100 * good.mean():.1f} % right")
    for which, name in enumerate(SCORES):
        for number, stage in enumerate(STAGES):
            scores = table[:, number, which]
            drawn = [area(scores[p], good[p]) for p in picks if 0 < good[p].sum() < len(p)]
            auc = interval(area(scores, good), drawn)
            record = {
                **{"score": name, "written": stage, "auc": round(auc.value, 3)},
                **{"low": round(auc.low, 3), "high": round(auc.high, 3)},
                **{"problems": len(names), "policy": options.policy},
            }
            text = f"  {name:18} {100 * stage:4.0f} %  {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"
            emit(record, text, options.json)


if __name__ == "__main__":
    main()

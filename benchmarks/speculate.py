"""How many passes follow one another, and how many a row is in, as more steps are guessed; and how long it takes.

    python benchmarks/speculate.py                                  # rounds and NFE on 16 problems of tiny-gsm
    python benchmarks/speculate.py --model tiny-sudoku -p one-by-one
    python benchmarks/speculate.py --shapes 8 8x2 16

Every row is filled alone, so at most depth x width guesses are in a pass; each speculated run is compared with the
plain one, commit by commit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import common
import numpy as np

import mdsample
from mdsample.core.template import Template
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.result import Row
from mdsample.sampling.sampler import Sampler
from mdsample.tasks.catalog import task_for

POLICIES = ("one-by-one", "entropy+top(1)+temperature(1)", "eb", "ar-med", "med+early-exit")
SHAPES = ("4", "8", "16", "8x2", "4x4")


def main() -> None:
    """Prints a table."""
    parser = common.command_line(__doc__)
    parser.add_argument("--model", default="tiny-gsm")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--policy", "-p", action="append", help="may be repeated")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="steps to guess, or KxW")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    model = mdsample.load(asked.model, asked.backend)
    if not asked.json:
        common.print_head(["policy", "guesses", "rounds", "ratio", "95 %", "NFE", "s a row"], text=2)
    for policy in asked.policy or POLICIES:
        measure(model, policy, asked)


def measure(model: Denoiser, policy: str, asked: argparse.Namespace) -> None:
    """The rows of one policy."""
    task = task_for(model)
    assert task is not None
    template = Template.parse(task.template)
    problems = task.read()[: asked.limit]
    canvases = [
        template.canvas(model.tokenizer, [problem.texts], ids=[problem.id], given=[problem.given])
        for problem in problems
    ]
    plain: Sequence[Row] = ()
    for shape in (None, *asked.shapes):
        began = time.perf_counter()
        rows = [Sampler(policy).run(model, canvas, speculate=shape).rows[0] for canvas in canvases]
        seconds = (time.perf_counter() - began) / len(rows)
        plain = plain or rows
        for one, other in zip(plain, rows, strict=True):
            assert [(c.step, c.position, c.token) for c in one.commits] == [
                (c.step, c.position, c.token) for c in other.commits
            ], "a speculated run is the same run"
        before, after = (np.array([row.rounds for row in side], np.float64) for side in (plain, rows))
        drawn = common.resamples(len(rows))
        ratio = common.interval(before.mean() / after.mean(), before[drawn].mean(1) / after[drawn].mean(1))
        nfe = float(np.mean([row.nfe for row in rows]))
        record = {"policy": policy, "guesses": shape or "none", "rounds": after.mean(), "ratio": ratio.value}
        record |= {"ratio_low": ratio.low, "ratio_high": ratio.high, "nfe": nfe, "seconds": seconds}
        cells = [f"`{policy}`", shape or "none", f"{after.mean():.1f}", f"{ratio.value:.2f}"]
        cells += [f"[{ratio.low:.2f}, {ratio.high:.2f}]", f"{nfe:.1f}", f"{seconds:.2f}"]
        common.emit(record, cells, asked.json)


if __name__ == "__main__":
    main()

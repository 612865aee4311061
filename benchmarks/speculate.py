"""How many passes follow one another, and how many a row is in, as more steps are guessed; and how long it takes.

    python benchmarks/speculate.py                                  # rounds and NFE on 16 problems of tiny-gsm
    python benchmarks/speculate.py --model tiny-sudoku -p one-by-one
    python benchmarks/speculate.py --shapes 8 8x2 16
    python benchmarks/speculate.py --time                           # seconds where a pass is bound by reading weights

Every row is filled alone, so at most depth x width guesses are in a pass; each speculated run is compared with the
plain one, commit by commit.

`--time` takes a block-causal trunk with random weights and its exact cache, of which a pass of several rows costs
little more than one. It measures the price of 8 rows against 1, then each policy with and without guesses in turns.
*Share* is the ratio of the seconds over the ratio of the rounds; intervals are 95 % bootstrap intervals over the texts.
Random weights say how long a pass takes, not how often a guess is right: this one's rounds are its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import common
import look
import numpy as np

import mdsample
from mdsample.core.canvas import Canvas
from mdsample.core.template import Template
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.result import Row
from mdsample.sampling.sampler import Sampler
from mdsample.tasks.catalog import task_for

POLICIES = ("one-by-one", "entropy+top(1)+temperature(1)", "eb", "ar-med", "med+early-exit")
SHAPES = ("4", "8", "16", "8x2", "4x4")
#: with `--time`
TIMED = ("left-to-right+top(1)", "entropy+top(1)")
VOCABULARY, PROMPT, BLANKS = 2000, 64, 32


def main() -> None:
    """Prints a table."""
    parser = common.command_line(__doc__)
    parser.add_argument("--model", default="tiny-gsm")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--policy", "-p", action="append", help="may be repeated")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="steps to guess, or KxW")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--time", action="store_true", help="the sides' seconds, on random weights")
    parser.add_argument("--width", type=int, default=1024, help="of the trunk with random weights")
    parser.add_argument("--layers", type=int, default=4, help="of the trunk with random weights")
    parser.add_argument("--block", type=int, default=4, help="tokens in a block of the trunk with random weights")
    parser.add_argument("--threads", type=int, default=1, help="of torch, with --time; others' work stalls more")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.time:
        time_sides(asked)
        return
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
            same_run(one, other)
        before, after = (np.array([row.rounds for row in side], np.float64) for side in (plain, rows))
        drawn = common.resamples(len(rows))
        ratio = common.interval(before.mean() / after.mean(), before[drawn].mean(1) / after[drawn].mean(1))
        nfe = float(np.mean([row.nfe for row in rows]))
        record = {"policy": policy, "guesses": shape or "none", "rounds": after.mean(), "ratio": ratio.value}
        record |= {"ratio_low": ratio.low, "ratio_high": ratio.high, "nfe": nfe, "seconds": seconds}
        cells = [f"`{policy}`", shape or "none", f"{after.mean():.1f}", f"{ratio.value:.2f}"]
        cells += [f"[{ratio.low:.2f}, {ratio.high:.2f}]", f"{nfe:.1f}", f"{seconds:.2f}"]
        common.emit(record, cells, asked.json)


def time_sides(asked: argparse.Namespace) -> None:
    """Prints the price of rows, then a table of rounds and seconds."""
    common.torch.set_num_threads(asked.threads)
    model = look.model(
        VOCABULARY, asked.width, asked.layers, common.torch.device("cpu"), common.torch.float32, block=asked.block
    )
    for rows in (8,):
        price_of_rows(model, rows, asked.block, asked.json)
    if not asked.json:
        print()
        columns = ["policy", "guesses", "rounds, plain", "rounds", "NFE", "s a text, plain", "s a text"]
        common.print_head([*columns, "rounds ratio", "time ratio", "share"], text=2)
    for policy in asked.policy or TIMED:
        for shape in asked.shapes:
            time_policy(model, f"{policy}+blocks({asked.block})", shape, asked.limit, asked.json)


def canvas_of(rows: int, first: int) -> Canvas:
    """Prompts of random tokens and blanks; rows have numbers from `first`."""
    rng = np.random.default_rng(first)
    tokens = [[*rng.integers(0, 1000, PROMPT).tolist(), *[VOCABULARY - 1] * BLANKS] for _ in range(rows)]
    slots = [[-1] * PROMPT + [0] * BLANKS] * rows
    return Canvas.of_rows(tokens, slots, ("text",), VOCABULARY - 1, ids=[f"{first + row}" for row in range(rows)])


def price_of_rows(model: Denoiser, rows: int, block: int, as_json: bool) -> None:
    """Seconds of a step of several rows beside one of 1, in turns, without the first step of a block, which has two."""
    sampler = Sampler(f"left-to-right+top(1)+blocks({block})")
    # text after text, as a cache keeps what its latest pass needs
    sides: tuple[list[float], list[float]] = [], []
    for number in range(2):
        for spent, canvas in zip(sides, (canvas_of(1, number), canvas_of(rows, number)), strict=True):
            plan = sampler.plan(model, canvas)
            state = sampler.start(model, canvas, plan)
            for step in range(BLANKS):
                began = time.perf_counter()
                state, _ = sampler.step(model, state, plan)
                if step % block:
                    spent.append(time.perf_counter() - began)
    one, many = (np.array(spent, np.float64) for spent in sides)
    drawn = common.resamples(len(one))
    ratio = common.interval(
        float(np.median(many) / np.median(one)), np.median(many[drawn], axis=1) / np.median(one[drawn], axis=1)
    )
    record = {"rows": rows, "seconds": float(np.median(many)), "seconds_of_1": float(np.median(one))}
    record |= {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high}
    told = f"{rows} rows: {1e3 * np.median(many):.1f} ms, 1 row: {1e3 * np.median(one):.1f} ms, "
    common.emit(record, told + f"ratio {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]", as_json)


def time_policy(model: Denoiser, policy: str, shape: str, limit: int, as_json: bool) -> None:
    """Rounds and seconds of texts with and without guesses, text by text in turns; the first text does not count."""
    sampler, found = Sampler(policy), list[tuple[float, ...]]()
    for number in range(limit + 1):
        canvas, sides = canvas_of(1, number), list[tuple[Row, float]]()
        for guesses in (None, shape):
            began = time.perf_counter()
            row = sampler.run(model, canvas, speculate=guesses).rows[0]
            sides.append((row, time.perf_counter() - began))
        (plain, before), (guessed, after) = sides
        same_run(plain, guessed)
        if number:
            found.append((plain.rounds, guessed.rounds, before, after, guessed.nfe))
    table = np.array(found, np.float64)
    drawn = table[common.resamples(limit)].mean(1).T
    mean = table.mean(0)
    rounds = common.interval(mean[0] / mean[1], drawn[0] / drawn[1])
    seconds = common.interval(mean[2] / mean[3], drawn[2] / drawn[3])
    share = common.interval(seconds.value / rounds.value, (drawn[2] / drawn[3]) / (drawn[0] / drawn[1]))
    record: dict[str, object] = {"policy": policy, "guesses": shape, "rounds_plain": mean[0], "rounds": mean[1]}
    record |= {"nfe": mean[4], "seconds_plain": mean[2], "seconds": mean[3]}
    cells: list[object] = [f"`{policy}`", shape, f"{mean[0]:.1f}", f"{mean[1]:.1f}", f"{mean[4]:.1f}"]
    cells += [f"{mean[2]:.2f}", f"{mean[3]:.2f}"]
    for name, value in (("rounds_ratio", rounds), ("time_ratio", seconds), ("share", share)):
        record |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        cells.append(f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]")
    common.emit(record, cells, as_json)


def same_run(plain: Row, guessed: Row) -> None:
    """Fails unless both are the same run, commit by commit."""
    one, other = ([(c.step, c.position, c.token) for c in row.commits] for row in (plain, guessed))
    assert one == other, "a speculated run is the same run"


if __name__ == "__main__":
    main()

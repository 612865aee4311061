"""Every rule, order and window on a model, compared at equal forward passes.

    python benchmarks/model_study.py tiny-gsm --limit 200 --answers runs/study.jsonl
    python benchmarks/model_study.py sudoku --limit 200 --answers runs/study.jsonl

runs one `mdsample bench` (printed first; every answer is kept, so it goes on where it was cut off), then compares the
rules: a rule's accuracy at a number of passes is read off the line between its two settings around it (a run that takes
either by a coin reaches it), with 95 % intervals and differences from MED by a bootstrap over problems; so are the
fewest passes at which it is within two points of the first policy, one at a time. With `--write` it also writes
docs/data/study_TASK.jsonl (a score for every setting) and docs/pictures/study_TASK.svg.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import add_write, command_line
from common import resamples as drawn
from matplotlib.figure import Figure  # noqa: TID251
from matplotlib.ticker import LogLocator, NullLocator  # noqa: TID251
from mdsample_cli.show.style import Label, drawing, label_points, legend_below, look, save

import mdsample
from mdsample.policy.complete import as_run

DOCS = Path(__file__).parents[1] / "docs"

#: one by one in several orders and windows
ONE = {
    "tiny-gsm": ("entropy", "whole+entropy", "left-to-right", "random", "margin"),
    "sudoku": ("whole+margin", "whole+entropy", "entropy", "left-to-right"),
}
#: rules by name, each with settings from the most careful on
RULES = {
    "tiny-gsm": {
        "MED": [f"med({x})" for x in (0.05, 0.2, 0.4, 0.8, 1.2, 1.6)],
        "steps": ["entropy+steps(50)", "entropy+steps(25)"],
        "early exit": ["entropy+top(1)+early-exit"],
        "MED, early exit": [f"med+early-exit({x})" for x in (0.02, 0.1, 0.5, 1.5)],
        "MED 0.8, early exit": ["med(0.8)+early-exit"],
        "EB": [f"eb({x})" for x in (0.02, 0.1, 0.5, 1.5)],
        "threshold": [f"fast-dllm({x})" for x in (0.98, 0.85, 0.7, 0.5)],
        "factor": [f"confidence+factor({x})" for x in (0.1, 0.5, 1, 1.5)],
        "Fréchet": [f"confidence+frechet({x})" for x in (0.9, 0.3, 0, -0.5)],
        "cumulative": [f"confidence+cumulative-confidence({x})" for x in (0.95, 0.7, 0.4, 0.2)],
        "error-budget": [f"entropy+error-budget({x})" for x in (0.3, 2, 8, 20)],
        "KLASS": [f"blocks(32)+confidence+stable({x})" for x in ("0.9", "0.7,shift=0.1", "0.5,shift=0.1")],
        "AR-MED": [f"ar-med({x})" for x in (0.2, 0.8, 1.6, 2.4)],
        "AR-MED, early exit": [f"ar-med({x})+early-exit" for x in (0.2, 0.8, 1.6, 2.4)],
        "EB, left to right": [f"whole+left-to-right+entropy-bound({x})" for x in (0.02, 0.1, 0.5, 2, 4)],
        "threshold, left to right": [f"whole+left-to-right+above-confidence({x})" for x in (0.9, 0.5, 0.3)],
        "error-budget, left to right": [f"whole+left-to-right+error-budget({x})" for x in (0.3, 2, 8, 20)],
        "MED, blocks of 8": [f"med({x})+blocks(8)" for x in (0.2, 0.8)],
        "MED, whole": [f"med({x})+whole" for x in (0.2, 0.8)],
    },
    "sudoku": {
        "MED": [f"med({x})+whole" for x in (0.002, 0.01, 0.05, 0.2, 0.5)],
        "steps": [f"whole+margin+steps({n})" for n in (28, 14, 8)],
        "EB": [f"eb({x})+whole" for x in (0.002, 0.01, 0.05, 0.2)],
        "threshold": [f"fast-dllm({x})+whole" for x in (0.999, 0.99, 0.95, 0.8)],
        "factor": [f"whole+confidence+factor({x})" for x in (0.005, 0.03, 0.1, 0.4, 1.0)],
        "Fréchet": [f"whole+confidence+frechet({x})" for x in (0.995, 0.95, 0.8, 0.5)],
        "cumulative": [f"whole+confidence+cumulative-confidence({x})" for x in (0.998, 0.98, 0.9, 0.6)],
        "error-budget": [f"whole+entropy+error-budget({x})" for x in (0.02, 0.1, 0.5, 2)],
        "KLASS": [f"whole+confidence+stable({x})" for x in ("0.995", "0.95", "0.8,shift=0.05")],
        "MED, blocks of 32": ["med(0.05)", "med(0.2)"],
    },
}
TASKS = {"tiny-gsm": "tiny-gsm", "sudoku": "sudoku", "sudoku-hard": "sudoku", "sudoku6": "sudoku"}


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--answers", type=Path, required=True, help="file that keeps every answer")
    parser.add_argument("--model", help="a folder; default: the task's own model")
    parser.add_argument(
        "--at", type=float, nargs="*", default=(20, 25, 30, 40, 50), help="forward passes to compare at"
    )
    add_write(parser, "docs/data/study_TASK.jsonl and the picture")
    options = parser.parse_args()
    one = [f"{order}+top(1)" for order in ONE[TASKS[options.task]]]
    rules = RULES[TASKS[options.task]]
    policies = [*one, *dict.fromkeys(text for texts in rules.values() for text in texts)]
    options.answers.parent.mkdir(parents=True, exist_ok=True)
    words = ["bench", "--task", options.task, "--limit", str(options.limit)]
    words += [word for text in policies for word in ("-p", text)]
    words += ["--model", options.model] if options.model else []
    words += ["--backend", "torch", "--dtype", "bfloat16", "--batch-size", "40", "--json"]
    words += ["--output", str(options.answers)]
    print("mdsample", shlex.join(words), flush=True)
    done = subprocess.run([sys.executable, "-m", "mdsample_cli", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"mdsample bench ended with {done.returncode}")
    scores = [json.loads(line) for line in done.stdout.splitlines()]
    told = [{"text": text, **score} for text, score in zip(policies, scores, strict=True)]
    if options.write:
        kept = DOCS / "data" / f"study_{options.task}.jsonl"
        kept.write_text("".join(json.dumps(score, ensure_ascii=False) + "\n" for score in told))
        redraw(options.task, DOCS / "pictures" / f"study_{options.task}.svg")
    show(policies, scores)
    answers = Answers(options.answers, scores[0])
    compare(rules, answers, options.at)
    fewest(one[0], rules, answers)


def panels(rules: dict[str, list[str]]) -> dict[str, list[str]]:
    """The pictures' rules: the most certain first, and from left to right where there are any."""
    text = {rule: texts[0] for rule, texts in rules.items() if len(texts) > 1}
    onward = [rule for rule in text if "ar-med" in text[rule] or "left-to-right" in text[rule]]
    some = {"most certain first": [rule for rule in text if rule not in onward]}
    return some | ({"left to right": ["MED", *onward]} if onward else {})


def redraw(task: str, path: Path) -> None:
    """The picture from the scores that were written."""
    lines = (DOCS / "data" / f"study_{task}.jsonl").read_text(encoding="utf-8").splitlines()
    one = [f"{order}+top(1)" for order in ONE[TASKS[task]]]
    draw(one, RULES[TASKS[task]], [json.loads(line) for line in lines], path)


def draw(one: list[str], rules: dict[str, list[str]], told: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against forward passes: a curve for each rule, stars for one at a time."""
    score = {line["text"]: (line["nfe"], 100 * line["accuracy"]) for line in told}
    some = panels(rules)
    with drawing("study"):
        figure: Any = Figure(figsize=(9.0, 4.6 * len(some)), layout="constrained")
        grid = np.ravel(figure.subplots(len(some), sharex=True, sharey=True))
        for axes, (title, names) in zip(grid, some.items(), strict=True):
            for number, rule in enumerate(names):
                axes.plot(*np.array(sorted(score[text] for text in rules[rule])).T, label=rule, **look(number))
            for text in one:
                axes.plot(*([value] for value in score[text]), "*", color="0.35", ms=8)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(LogLocator(2, (1.0, 1.5)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set(title=title, xlabel="forward passes a row", ylabel="accuracy, %")
            legend_below(figure, axes=axes)
        figure.suptitle(f"{told[0]['task']}, {told[0]['limit']} problems", x=0.01, ha="left")
        for axes in grid:
            some = sorted(one, key=lambda text: -score[text][1])
            label_points(axes, [Label(*score[text], text, "0.25") for text in some])
        save(figure, path)


def show(policies: list[str], scores: list[dict[str, Any]]) -> None:
    print("\n| policy | accuracy, % | passes | error bound, nats |\n| --- | --- | --- | --- |")
    for text, score in zip(policies, scores, strict=True):
        accuracy, low, high = (100 * score[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
        spread = score["nfe_high"] - score["nfe"]
        print(
            f"| `{text}` | {accuracy:.1f} [{low:.1f}, {high:.1f}] | {score['nfe']:.1f} ± {spread:.1f} "
            f"| {score['error_bound']:.2f} |"
        )


class Answers:
    """Whether each problem was solved, and its forward passes, by policy: `[problems]` each."""

    def __init__(self, path: Path, like: dict[str, Any]) -> None:
        """The answers of the run that `like` is a score of."""
        self._found: dict[str, dict[int, tuple[bool, int]]] = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            same = all(record[name] == like[name] for name in ("task", "model", "backend", "template", "seed"))
            if same and record["id"] < like["limit"]:
                self._found.setdefault(record["policy"], {})[record["id"]] = (record["solved"], record["nfe"])

    def of(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        rows = self._found[as_run(mdsample.parse(text), None)]
        solved, nfe = np.array([rows[name] for name in sorted(rows)], float).T
        return solved, nfe


def resamples(count: int) -> list[np.ndarray]:
    """All problems as they are, then 2,000 bootstrap draws of them, the same ones at every call."""
    return [np.arange(count), *drawn(count)]


def frontier(table: list[tuple[np.ndarray, np.ndarray]], pick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean passes, rising, and accuracies of a rule's settings on some problems."""
    x, y = np.array(sorted((nfe[pick].mean(), solved[pick].mean()) for solved, nfe in table)).T
    return x, y


def compare(rules: dict[str, list[str]], answers: Answers, points: list[float]) -> None:
    """Rules at equal NFE: accuracy, and the difference from MED."""
    tables = {rule: [answers.of(text) for text in texts] for rule, texts in rules.items() if len(texts) > 1}
    picks = resamples(len(tables["MED"][0][0]))

    def reached(rule: str, pick: np.ndarray) -> np.ndarray:
        x, y = frontier(tables[rule], pick)
        return np.where((np.array(points) < x[0]) | (np.array(points) > x[-1]), np.nan, np.interp(points, x, y))

    found = {rule: np.array([reached(rule, pick) for pick in picks]) for rule in tables}
    print("\n| rule | " + " | ".join(f"{point:g} passes" for point in points) + " |")
    print("| --- |" + " --- |" * len(points))
    for rule, values in found.items():
        cells = list[str]()
        for k in range(len(points)):
            gap = values[:, k] - found["MED"][:, k]
            if np.isnan(values[0, k]):
                cells.append("")
            elif rule == "MED" or np.isnan(gap[0]):
                low, high = np.nanquantile(values[:, k], [0.025, 0.975])
                cells.append(f"{100 * values[0, k]:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
            else:
                low, high = np.nanquantile(gap, [0.025, 0.975])
                cells.append(f"{100 * values[0, k]:.1f} ({100 * gap[0]:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}])")
        print(f"| {rule} | " + " | ".join(cells) + " |")


def fewest(reference: str, rules: dict[str, list[str]], answers: Answers) -> None:
    """The fewest passes at which a rule loses at most two points against `reference`."""
    grid = np.linspace(1, 128, 1271)
    wanted = answers.of(reference)[0]
    picks = resamples(len(wanted))
    print(f"\n| rule | passes within two points of `{reference}` |\n| --- | --- |")
    for rule, texts in rules.items():
        table, found = [answers.of(text) for text in texts], list[float]()
        for pick in picks:
            x, y = frontier(table, pick)
            inside = (grid >= x[0]) & (grid <= x[-1]) | (np.abs(grid - x[0]) < 0.05)
            good = inside & (np.interp(grid, x, y) >= wanted[pick].mean() - 0.02)
            found.append(float(grid[good][0]) if good.any() else np.inf)
        low, high = np.quantile(found, [0.025, 0.975], method="nearest")
        told = [f"{value:.1f}" if np.isfinite(value) else "never" for value in (found[0], low, high)]
        print(f"| {rule} | {told[0]} [{told[1]}, {told[2]}] |")


if __name__ == "__main__":
    main()

"""Training on posterior traces against training on gold ones (arXiv 2510.19990, table 4), at the scale of `tiny-gsm`.

    python benchmarks/training.py BASE --out runs/t4 [--problems 2000] [--seeds 3] [--limit 300]
    python benchmarks/training.py tiny-gsm --steps 8 --out runs/t4-8 --problems 1000 --examples 4000 --limit 200 \\
        --policy ar-med --learning-rate 3e-4

`BASE` is a folder with a weaker tiny-gsm; or, with `--steps`, tiny-gsm itself on problems of more steps than the 3 to 7
that it was trained on. Fresh problems of the generator, none of them held out, are trained on with the generator's own
solutions (*gold*), with the base's own reasonings given question and answer by `--policy`, one each, of which those are
kept that make the answer likely all along: log p(answer | reasoning so far) of at least -1.5 in the mean of five stages
(*posterior*), or with both. Every model is trained on equally many examples, so fewer of them are seen more often.
Every step is a command of `mdsample`, printed before it runs; the script goes on where it was cut off. Accuracy on
held-out problems; 95 % intervals by a bootstrap over problems and seeds, differences paired on problems.
"""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from along import area
from common import command_line, interval, resamples
from tokenizers import Tokenizer

from mdsample.models.find import embedded_folder
from mdsample.tasks.catalog import TASKS
from recipes.tiny_gsm.data import draw_problem
from recipes.tiny_gsm.problems import Problem, correct_steps, sample_problem, write_reasoning
from recipes.tiny_gsm.tokenizer import TEMPLATE

#: of the problems to train on; held-out ones have another
SEED = 4
#: the reasoning slot with `--steps`
LONG = 144
ARMS = {"gold": ("gold.jsonl",), "posterior": ("posterior.jsonl",), "both": ("gold.jsonl", "posterior.jsonl")}
PAPER = {"nothing": 51.2, "gold": 64.6, "posterior": 66.1, "both": 67.3}


def mdsample(*words: str | Path) -> None:
    said = [str(word) for word in words]
    print("mdsample", shlex.join(said), flush=True)
    done = subprocess.run([sys.executable, "-m", "mdsample_cli", *said], stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"mdsample {said[0]} ended with {done.returncode}")


def draw_problems(count: int, steps: int | None = None) -> list[tuple[Problem, str]]:
    """Problems, none of them held out, and a solution of each; of `steps` steps, or of as many as tiny-gsm's."""
    tokenizer = Tokenizer.from_file(str(embedded_folder("tiny-gsm") / "tokenizer.json"))
    seen = {problem.texts["prompt"] for problem in TASKS["tiny-gsm"].read()}
    rng, found = random.Random(SEED), list[tuple[Problem, str]]()
    while len(found) < count:
        if steps is None:
            problem, reasoning = draw_problem(rng, tokenizer)
        else:
            problem = sample_problem(rng, steps)
            reasoning = write_reasoning(problem, rng)
            if len(tokenizer.encode(reasoning).ids) >= LONG:
                continue
        if problem.question not in seen:
            seen.add(problem.question)
            found.append((problem, reasoning.strip()))
    return found


def write_problems(path: Path, problems: list[tuple[Problem, str]]) -> None:
    rows = [
        {"id": number, "prompt": problem.question, "reasoning": reasoning, "answer": problem.answer}
        for number, (problem, reasoning) in enumerate(problems)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def judge(path: Path, problems: list[tuple[Problem, str]]) -> int:
    """Prints how many traces are correct, step by step, of all and of those that were kept; returns how many were."""
    traces = [(record["id"], *record["traces"]) for record in map(json.loads, path.read_text().splitlines())]
    right = [(correct_steps(problems[i][0], trace["slots"]["reasoning"]), trace["kept"]) for i, trace in traces]
    kept = [correct for correct, kept in right if kept]
    scores = np.array([trace["scores"] for _, trace in traces])
    for name, score in (("mean", scores.mean(1)), ("last", scores[:, -1])):
        sound = np.array([correct for correct, _ in right])
        drawn = [area(score[pick], sound[pick]) for pick in resamples(len(sound), draws=1000)]
        auc = interval(area(score, sound), drawn)
        print(f"the {name} score tells correct ones: area {auc.value:.2f} [{auc.low:.2f}, {auc.high:.2f}]")
    print(
        f"{sum(c for c, _ in right)} of {len(right)} posterior traces are correct, {sum(kept)} of {len(kept)} kept ones"
    )
    return len(kept)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument("--policy", default="med")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=300, help="held-out problems")
    parser.add_argument("--steps", type=int, help="of a problem, 8 say; default: as in tiny-gsm, 3 to 7")
    parser.add_argument("--examples", type=int, default=8000, help="that a model is trained on, repeated ones counted")
    parser.add_argument("--learning-rate", default="1e-3")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    gold, posterior, answers = out / "gold.jsonl", out / "posterior.jsonl", out / "answers.jsonl"
    if options.steps is None:
        problems, template = draw_problems(options.problems), TEMPLATE
        task = ["--task", "tiny-gsm"]
    else:
        drawn = draw_problems(options.problems + options.limit, options.steps)
        problems, test, template = drawn[options.limit :], out / "test.jsonl", TEMPLATE.replace(":96", f":{LONG}")
        write_problems(test, drawn[: options.limit])
        task = ["--task", test, "--template", template]
    if not gold.exists():
        write_problems(gold, problems)
    torch = ("--backend", "torch", "--dtype", "bfloat16", "--batch-size", "32")
    mdsample(
        "traces", "--model", options.base, "--input", gold, "--answer-as", " {}", "-n", "1",
        "--min-score", "-1.5", "-p", options.policy, "--template", template, "--output", posterior, *torch,
    )  # fmt: skip
    kept = judge(posterior, problems)
    count = {gold: len(problems), posterior: kept}
    models = {"nothing": [options.base]}
    for seed in range(options.seeds):
        for arm, files in ARMS.items():
            folder = out / f"{arm}-{seed}"
            models.setdefault(arm, []).append(folder)
            if (folder / "report.json").exists():
                continue
            data = [word for file in files for word in ("--data", out / file)]
            epochs = options.examples / sum(count[out / file] for file in files)
            mdsample(
                "finetune", options.base, *data, "--out", folder, "--write-as", "reasoning= {}",
                "--write-as", "answer= {}", "--epochs", f"{epochs:.3f}", "--batch-size", "32",
                "--learning-rate", options.learning_rate, "--seed", str(seed), "--bfloat16", "--template", template,
            )  # fmt: skip
    every = [folder for folders in models.values() for folder in folders]
    named = [word for folder in every for word in ("--model", folder)]
    mdsample(
        "bench", *task, "--limit", str(options.limit), "-p", "med+early-exit", *named,
        "--output", answers, *torch,
    )  # fmt: skip
    show(models, [json.loads(line) for line in answers.read_text().splitlines()])


def show(models: dict[str, list[Path]], records: list[dict[str, object]]) -> None:
    right = {(str(record["model"]), record["id"]): bool(record["solved"]) for record in records}
    ids = sorted({name for _, name in right}, key=str)
    found = {
        arm: np.array([[right[folder.name, name] for name in ids] for folder in folders], float)
        for arm, folders in models.items()
    }
    rng = np.random.default_rng(0)
    picks = [(rng.integers(0, 1 << 30, 16), rng.integers(0, len(ids), len(ids))) for _ in range(4000)]

    def means(table: np.ndarray) -> np.ndarray:
        return np.array([table[np.ix_(seeds[: len(table)] % len(table), some)].mean() for seeds, some in picks])

    base, again = means(found["gold"]), {arm: means(table) for arm, table in found.items()}
    print(f"{len(ids)} held-out problems, med+early-exit; accuracy, %, and difference from gold")
    for arm, table in found.items():
        right = interval(100 * table.mean(), 100 * again[arm])
        gap = interval(100 * (table.mean() - found["gold"].mean()), 100 * (again[arm] - base))
        each = ", ".join(f"{100 * row.mean():.1f}" for row in table)
        against = f"{gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"
        accuracy = f"{right.value:5.1f} [{right.low:.1f}, {right.high:.1f}]"
        print(f"  {arm:10} {accuracy}  {against:20} {each}; paper {PAPER[arm]}")


if __name__ == "__main__":
    main()

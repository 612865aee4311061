"""`kill -9` at random moments of `run --output`, `traces --output` and `bench --output`, then the same command again.

`python benchmarks/kill.py [--trials 50]`: each trial starts the command, kills it at a moment drawn uniformly from the
time that it takes, runs it again to its end and compares: every row exactly once, and equal to an uninterrupted run but
for wall-clock times and the last bits of error bounds (sums round with the batch that a row was in).
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import command_line, progress

from mdsample.tasks.catalog import TASKS

LAYOUT = "Question: {prompt}\nReasoning:{reasoning:16}\nAnswer:{answer:4}"
PROBLEMS = 12
ROUNDED = ("error_bound", "tv_bound", "scores", "tokens_per_forward")


def commands(problems: Path) -> dict[str, list[str]]:
    shared = ["--backend", "reference", "--batch-size", "4", "--template", LAYOUT]
    return {
        "run": ["run", "--input", str(problems), "-p", "med", *shared],
        "traces": ["traces", "--input", str(problems), "-n", "2", "--answer-as", " {}", *shared],
        "bench": ["bench", "--limit", str(PROBLEMS), "-p", "steps(10)", "-p", "med", *shared],
    }


def start(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    said = [sys.executable, "-m", "mdsample_cli", *command, "--output", str(output)]
    return subprocess.Popen(said, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(command: list[str], output: Path) -> None:
    process = start(command, output)
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said.decode()}")


def near(one: Any, other: Any, name: str = "") -> bool:
    """Equal, but for wall-clock times and how sums of floats round."""
    if name in ROUNDED and isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 2e-3
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[k], other[k], k) for k in one if k != "seconds")
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(near(a, b, name) for a, b in zip(one, other, strict=True))
    return one == other


def rows(output: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in output.read_bytes().splitlines()]
    return sorted(found, key=lambda row: (row["policy"], row["id"]))


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        problems = Path(folder) / "problems.jsonl"
        some = TASKS["tiny-gsm"].read()[:PROBLEMS]
        problems.write_text("".join(json.dumps({"id": p.id, **p.texts, "answer": p.answer}) + "\n" for p in some))
        for name, command in commands(problems).items():
            whole = Path(folder) / f"{name}.jsonl"
            progress(f"{name}: an uninterrupted run, then {options.trials} kills …")
            began = time.perf_counter()
            finish(command, whole)
            duration, wanted = time.perf_counter() - began, rows(whole)
            interrupted = same = partly = 0
            for trial in range(options.trials):
                output = Path(folder) / f"{name}-{trial}.jsonl"
                process = start(command, output)
                time.sleep(rng.uniform(0, duration))
                interrupted += process.poll() is None
                process.send_signal(signal.SIGKILL)
                process.communicate()
                written = output.read_bytes().count(b"\n") if output.exists() else 0
                partly += 0 < written < len(wanted)
                finish(command, output)
                same += near(rows(output), wanted)
            print(
                f"{name}: {len(wanted)} rows, {duration:.1f} s; {options.trials} kills, {interrupted} while it ran, "
                f"{partly} with some rows written; {same} of {options.trials} files equal afterwards",
                flush=True,
            )
            if same != options.trials:
                raise SystemExit(1)


if __name__ == "__main__":
    main()

"""`kill -9` at random moments of commands that write files, beside a second writer, then the same command again.

`python benchmarks/kill.py [--trials 200] [--seed 0]`: a trial starts a command, half of them a second one with the same
output at some moment, kills both at moments drawn uniformly from the time that the command takes or writes, runs it
again to its end and compares with an uninterrupted run: every row exactly once and equal (but for wall-clock times and
the last bits of error bounds, since sums round with the batch that a row was in), a trace whole or not there, folders
equal file by file, nothing else there but hidden `.mdsample-….tmp`, and other files as they were. Of twenty trials
nine are of `run` with --output and --trace, six of `bench`, two each of `traces` and `convert`, one of `finetune`.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import attrs
from common import command_line, progress

from mdsample.errors import TraceError
from mdsample.sampling.trace import Trace
from mdsample.tasks.catalog import TASKS

LAYOUT = "Question: {prompt}\nReasoning:{reasoning:16}\nAnswer:{answer:4}"
PROBLEMS = 8
ROUNDED = ("error_bound", "tv_bound", "scores", "tokens_per_forward")
#: of a report; how long it took, and where
TIMES = ("seconds", "folder")
#: what lies in every folder beforehand; names that a careless writer would take for its own
OTHERS = {
    **dict.fromkeys(("precious.txt", "out.part", "out.tmp", "trace.part", ".mdsample-precious"), b"precious\n"),
    "kept/out": b'{"id": 0}\n',
}
#: what a second writer is told, and one who comes when all is done
REFUSALS = (b"is being written by", b"exists, and nothing is overwritten", b"is a finished training")
TURNS = ("run", "bench", "run", "traces", "run", "convert", "bench", "run", "bench", "run") * 2


@attrs.frozen
class Command:
    """What is killed."""

    name: str
    arguments: tuple[str, ...]
    #: what its results say, read so that equal results are equal values
    results: Callable[[Path], Any]
    #: the names that it may make
    made: tuple[str, ...] = ("out",)


@attrs.define
class Seen:
    """What happened to one command."""

    kills: int = 0
    while_it_ran: int = 0
    partly: int = 0
    refused: int = 0
    litter: int = 0
    faults: list[str] = attrs.field(factory=list[str])
    rows: int = 0


def near(one: Any, other: Any, name: str = "") -> bool:
    """Equal, but for wall-clock times and how sums of floats round."""
    if name in ROUNDED and isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 2e-3
    match one, other:
        case {}, {}:
            a, b = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
            return a.keys() == b.keys() and all(near(a[k], b[k], k) for k in a if k not in TIMES)
        case [*_], [*_]:
            return len(one) == len(other) and all(near(x, y, name) for x, y in zip(one, other, strict=True))
        case _:
            return one == other


def rows(folder: Path) -> list[dict[str, Any]]:
    """The records, sorted; each line must be whole."""
    found = [json.loads(line) for line in (folder / "out").read_bytes().splitlines()]
    return sorted(found, key=lambda row: (row["policy"], row["id"]))


def tree(folder: Path) -> dict[str, Any]:
    """A folder's files: JSON as values, all else as bytes; checkpoints of a training are not its result."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "new").rglob("*")):
        name = str(path.relative_to(folder / "new"))
        if path.is_file() and not name.startswith("checkpoints"):
            data = path.read_bytes()
            ending = path.suffix
            found[name] = (
                [json.loads(line) for line in data.splitlines()]
                if ending == ".jsonl"
                else json.loads(data)
                if ending == ".json"
                else data
            )
    return found


def commands(problems: Path, examples: Path) -> dict[str, Command]:
    shared = ("--backend", "reference", "--batch-size", "4", "--template", LAYOUT)
    source = ("--input", str(problems))
    made = {
        "run": Command("run", (*source, "-p", "med", *shared, "-o", "out", "--trace", "trace"), rows, ("out", "trace")),
        "traces": Command("traces", (*source, "-n", "2", "--answer-as", " {}", *shared, "-o", "out"), rows),
        "bench": Command(
            "bench", ("--limit", str(PROBLEMS), "-p", "steps(10)", "-p", "med", *shared, "-o", "out"), rows
        ),
        "convert": Command("convert", ("tiny-gsm", "new", "--group-size", "32", "--bits", "8"), tree, ("new",)),
    }
    if all(find_spec(name) for name in ("torch", "transformers", "accelerate", "peft")):
        settings = ("--epochs", "4", "--batch-size", "4", "--save-every", "1", "--device", "cpu", "--template", LAYOUT)
        arguments = ("tiny-gsm", "--data", str(examples), "-o", "new", *settings)
        made["finetune"] = Command("finetune", arguments, tree, ("new",))
    return made


def folder_of(made: Path, name: str) -> Path:
    """A folder with files of others."""
    folder = made / name
    for other, data in OTHERS.items():
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(data)
    return folder


def start(command: Command, folder: Path) -> subprocess.Popen[bytes]:
    said = [sys.executable, "-m", "mdsample_cli", command.name, *command.arguments]
    return subprocess.Popen(said, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(command: Command, folder: Path) -> str:
    """Runs it to its end; what it says if it fails."""
    process = start(command, folder)
    _, said = process.communicate()
    return f"ended with {process.returncode}: {said.decode()[-500:]}" if process.returncode else ""


def whole(command: Command, folder: Path) -> tuple[float, float]:
    """An uninterrupted run: seconds until it writes, seconds that it takes."""
    began, first = time.perf_counter(), None
    process = start(command, folder)
    while process.poll() is None:
        if first is None and any((folder / name).exists() for name in ("out", "out.lock", "new", "new.lock")):
            first = time.perf_counter() - began
        time.sleep(0.005)
    _, said = process.communicate()
    took = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{command.name} ended with {process.returncode}: {said.decode()}")
    return took / 2 if first is None else first, took


def left_wrong(command: Command, folder: Path, wanted: Any, seen: Seen) -> str:
    """What is wrong in the folder after all; empty if nothing is."""
    for name, data in OTHERS.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != data:
            return f"{name} was touched"
    beside = {path.name for path in folder.iterdir()} - {name.partition("/")[0] for name in OTHERS}
    litter = {name for name in beside if name.startswith(".mdsample-") and name.endswith(".tmp")}
    seen.litter += len(litter)
    if strange := beside - litter - set(command.made):
        return f"left behind: {', '.join(sorted(strange))}"
    if (folder / "trace").exists():
        try:
            Trace.load(folder / "trace")
        except TraceError as fault:
            return f"the trace is not whole: {fault}"
    return "" if near(command.results(folder), wanted) else "the results differ"


def trial(command: Command, folder: Path, first: float, took: float, rng: random.Random, seen: Seen) -> str:
    """One kill, or two; the command again; what went wrong."""
    writers = [start(command, folder)]
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, took / 2))
        writers.append(start(command, folder))
    for writer in writers:
        time.sleep(rng.uniform(first, took) if rng.random() < 0.7 else rng.uniform(0, took))
        seen.kills += 1
        seen.while_it_ran += writer.poll() is None
        writer.send_signal(signal.SIGKILL)
    for writer in writers:
        _, said = writer.communicate()
        refused = any(why in said for why in REFUSALS)
        seen.refused += refused
        if writer.returncode not in (0, -signal.SIGKILL) and not refused:
            return f"a writer ended with {writer.returncode}: {said.decode()[-500:]}"
    out = folder / command.made[0]
    if out.is_file():
        seen.partly += 0 < out.read_bytes().count(b"\n") < seen.rows
    else:
        seen.partly += (folder / "new.part").is_dir() or (out.is_dir() and not (out / "report.json").exists())
    said = finish(command, folder)
    # what was made whole is not made twice
    return "" if any(why.decode() in said for why in REFUSALS[1:]) else said


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one command")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as made:
        problems, examples = Path(made) / "problems.jsonl", Path(made) / "examples.jsonl"
        some = TASKS["tiny-gsm"].read()[:PROBLEMS]
        problems.write_text("".join(json.dumps({"id": p.id, **p.texts, "answer": p.answer}) + "\n" for p in some))
        examples.write_text(
            "".join(json.dumps({**p.texts, "reasoning": " 1", "answer": f" {p.answer}"}) + "\n" for p in some[:4])
        )
        there = commands(problems, examples)
        turns = [*TURNS[:-1], "finetune"] if options.only is None else [options.only]
        turns = [name for name in turns if name in there]
        known: dict[str, tuple[float, float, Any]] = {}
        seen = {name: Seen() for name in turns}
        for number in range(options.trials):
            name = turns[number % len(turns)]
            command = there[name]
            if name not in known:
                folder = folder_of(Path(made), f"{name}-whole")
                first, took = whole(command, folder)
                known[name] = first, took, command.results(folder)
                seen[name].rows = len(known[name][2])
                progress(f"{name}: {took:.1f} s uninterrupted, writes after {first:.1f} s")
            first, took, wanted = known[name]
            folder = folder_of(Path(made), f"{name}-{number}")
            fault = trial(command, folder, first, took, rng, seen[name])
            if fault := fault or left_wrong(command, folder, wanted, seen[name]):
                seen[name].faults.append(fault)
                progress(f"trial {number}, {name}: {fault}")
        for name, found in seen.items():
            print(
                f"{name}: {turns_of(turns, name, options.trials)} trials, {found.kills} kills, {found.while_it_ran} "
                f"while it ran, {found.partly} with a part written, {found.refused} second writers refused, "
                f"{found.litter} hidden files left; {len(found.faults)} wrong",
                flush=True,
            )
        if any(found.faults for found in seen.values()):
            raise SystemExit(1)


def turns_of(turns: list[str], name: str, trials: int) -> int:
    """How many trials a command had."""
    return sum(turns[number % len(turns)] == name for number in range(trials))


if __name__ == "__main__":
    main()

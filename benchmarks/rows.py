"""A large file through `run --input` with a stub model: memory, the bar's time left, and how soon a killed job resumes.

    python benchmarks/rows.py [--rows 100000] [--kill-at 0.5] [--batch-size 256] [--json]

The stub knows eight tokens and answers at once, so what is measured is all that is not the model: reading, the loop,
writing. The command runs in a process of its own whose stderr is a terminal. Memory is what the process holds of its
own (RssAnon) at a tenth of the rows and at the end; at `kill-at` of the rows the process is killed, and the same
command again is timed from its start to the first line that it adds.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import attrs
import numpy as np
from common import command_line, emit, progress

from mdsample.backend.reference.prediction import NumpyPrediction, guided
from mdsample.models.denoiser import About, Denoiser, Query
from mdsample.testing.toys import Symbols

LAYOUT = "{prompt}{answer:4}"
#: the bar, with the time that is left
BAR = re.compile(rb"(\d+)/(\d+)[^\r\n]*?(\d+:\d\d:\d\d)[^\r\n]*?(\d+:\d\d:\d\d|-:--:--)")


class Stub(Denoiser):
    """Every token is as likely as any other."""

    def __init__(self) -> None:
        super().__init__(About("stub", "stub", Symbols(6), 8, LAYOUT, 4096))

    def predict(self, query: Query) -> NumpyPrediction:
        scores = [np.zeros((int(query.wanted.sum()), 8))]
        return NumpyPrediction(guided(scores, query.guide), query.wanted, query.restriction, query.guide)


@attrs.define
class Run:
    """One process."""

    process: subprocess.Popen[bytes]
    began: float
    said: bytearray = attrs.field(factory=bytearray)

    def memory(self) -> int:
        """Bytes of its own; 0 when it is gone."""
        try:
            found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        except OSError:
            return 0
        return 1024 * int(found[1]) if found else 0

    def cpu(self) -> float:
        """Seconds of a core that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(folder: Path, batch_size: int) -> Run:
    """`mdsample run` on the stub, on a terminal."""
    ours, theirs = pty.openpty()
    line = [sys.executable, __file__, "--child", str(folder), "--batch-size", str(batch_size)]
    run = Run(subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=theirs), time.perf_counter())
    os.close(theirs)

    def listen() -> None:
        while True:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:
                return
            run.said += data

    threading.Thread(target=listen, daemon=True).start()
    return run


def lines(path: Path) -> int:
    """Whole lines of a file."""
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))


def watch(run: Run, out: Path, until: int) -> list[tuple[int, int]]:
    """Rows written and memory, until so many rows are there or the process is done."""
    seen: list[tuple[int, int]] = []
    while run.process.poll() is None:
        now = lines(out), run.memory()
        seen += [now] if now[1] else []
        if now[0] >= until:
            break
        time.sleep(0.5)
    return seen


def child(folder: Path, batch_size: int) -> int:
    """The command itself, with the stub in the place of a model."""
    from mdsample_cli.main import main as command
    from mdsample_cli.options import ModelOptions

    ModelOptions.load = lambda self: Stub()  # type: ignore[method-assign]
    line = ["run", "--input", str(folder / "in.jsonl"), "-t", LAYOUT, "-p", "entropy+top(4)"]
    return command([*line, "--batch-size", str(batch_size), "-o", str(folder / "out.jsonl")])


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kill-at", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--child", type=Path, help="used by itself")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.child:
        sys.exit(child(options.child, options.batch_size))
    with tempfile.TemporaryDirectory() as made:
        folder, rows = Path(made), options.rows
        with open(folder / "in.jsonl", "w") as file:
            for number in range(rows):
                prompt = "".join("abcdef"[number // 6**k % 6] for k in range(60))
                file.write(json.dumps({"id": number, "prompt": prompt, "source": f"row {number}"}) + "\n")
        out = folder / "out.jsonl"
        progress(f"{rows:,} rows, {(folder / 'in.jsonl').stat().st_size / 1e6:.1f} MB")
        first = start(folder, options.batch_size)
        seen = watch(first, out, int(rows * options.kill_at))
        took = time.perf_counter() - first.began
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        there = lines(out)
        progress(f"killed at {there:,} rows after {took:.1f} s")
        second = start(folder, options.batch_size)
        while lines(out) <= there and second.process.poll() is None:
            time.sleep(0.02)
        resumed, resumed_cpu = time.perf_counter() - second.began, second.cpu()
        progress(f"resumed after {resumed:.1f} s, {resumed_cpu:.1f} s of a core")
        after = watch(second, out, rows + 1)
        second.process.wait()
        with open(out, "rb") as file:
            ids = [json.loads(line)["id"] for line in file]
        bars = [match.groups() for match in BAR.finditer(bytes(first.said))]
        left = [bar for bar in bars if bar[3] != b"-:--:--"]
        tenth = next((memory for done, memory in after if done >= there + (rows - there) // 10), after[0][1])
        early = next((memory for done, memory in seen if done >= rows // 10), seen[0][1])
        record = {
            "rows": rows,
            "whole": sorted(ids) == list(range(rows)),
            "rows_per_second": there / took,
            "memory_tenth": early,
            "memory_killed": seen[-1][1],
            "memory_resumed_tenth": tenth,
            "memory_end": after[-1][1],
            "output": out.stat().st_size,
            "resumed": resumed,
            "resumed_cpu": resumed_cpu,
            "resumed_over": there,
            "bars_with_time_left": len(left),
            "bar": left[-1][0].decode() + "/" + left[-1][1].decode() + ", left " + left[-1][3].decode() if left else "",
        }
    mib = {name: record[name] / 2**20 for name in record if name.startswith("memory")}
    text = (
        f"{rows:,} rows, each once: {record['whole']}; {record['rows_per_second']:.0f} rows/s\n"
        f"memory: {mib['memory_tenth']:.0f} MiB at a tenth, {mib['memory_killed']:.0f} MiB at {there:,} rows; resumed, "
        f"{mib['memory_resumed_tenth']:.0f} MiB then {mib['memory_end']:.0f} MiB; the file has "
        f"{record['output'] / 2**20:.0f} MiB\n"
        f"resumed over {there:,} rows in {resumed:.1f} s, {resumed_cpu:.1f} s of a core; the bar showed the time left "
        f"{len(left)} times (last: {record['bar']})"
    )
    emit(record, text, options.json)
    if not record["whole"] or not left:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

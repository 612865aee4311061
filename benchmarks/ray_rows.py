"""Rows through a Ray cluster of two machines while actors, a machine and the driver die, beside one process.

    python benchmarks/ray_rows.py [--rows 2000] [--deaths 10] [--seed 0] [--json]

A cluster of two nodes on this machine, an actor of 0.75 CPUs for each place. First without faults: seconds until the
crew is there, until the first record, and of the job, beside one process. Then with them: actors end themselves
at random passes, a node is removed and the driver is killed at random moments and started again by the same call. Every
row must be there once and equal, to the byte, what one process writes. The model is a toy of eight tokens.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import command_line, emit, progress

from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.core.template import Template
from mdsample.jobs.crew import records
from mdsample.jobs.job import Job
from mdsample.jobs.records import Output, Request
from mdsample.models.denoiser import Denoiser, Query
from mdsample.policy.parsing import parse
from mdsample.sampling.sampler import Sampler
from mdsample.testing.toys import ScriptedDenoiser, Symbols


class Mortal(ScriptedDenoiser):
    """A toy that ends its process at a random pass, until that has happened a certain number of times."""

    def __init__(self, folder: str, deaths: int) -> None:
        super().__init__(Symbols(6))
        self._folder, self._deaths, self._dice = Path(folder), deaths, random.Random(os.getpid())

    def predict(self, query: Query) -> NumpyPrediction:
        if self._deaths and self._dice.random() < 0.01 and len(list(self._folder.iterdir())) < self._deaths:
            (self._folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(query)


def requests(rows: int) -> list[Request]:
    return [Request(n, {"prompt": "".join("abcdef"[n // 6**k % 6] for k in range(5))}) for n in range(rows)]


def job_on(model: Denoiser) -> Job:
    policy = Sampler(parse("random+top(2)+temperature(1)"), seed=3)
    return Job(model, Template.parse("{prompt}{answer:16}"), policy, batch_size=8)


def drive(
    address: str, rows: int, out: Path, load: Callable[[], Denoiser], on_record: Callable[[int], None] | None = None
) -> tuple[float, float, float]:
    """A driver; seconds until the crew is there, until the first record after that, and of all records."""
    from mdsample_integrations.ray import actors

    began = time.perf_counter()
    with actors(address, load, cpus=0.75, tell=progress) as crew:
        ready = time.perf_counter()
        first = ready
        job = job_on(crew.model)
        with Output(out, job.fingerprint) as file:
            for number, record in enumerate(records(crew, job, file.left(requests(rows))), 1):
                first = time.perf_counter() if number == 1 else first
                file.write(record)
                if on_record is not None:
                    on_record(number)
        return ready - began, first - ready, time.perf_counter() - ready


def lines(path: Path) -> list[bytes]:
    return sorted(path.read_bytes().splitlines()) if path.exists() else []


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--deaths", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", nargs=3, metavar=("ADDRESS", "OUT", "FOLDER"), help="used by itself")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.drive:
        address, out, folder = options.drive
        drive(address, options.rows, Path(out), partial(Mortal, folder, options.deaths))
        return
    import ray
    from ray.cluster_utils import Cluster

    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as made:
        one, plain, faulty, graves = (Path(made, name) for name in ("one", "plain", "faulty", "graves"))
        graves.mkdir()
        began, spent = time.perf_counter(), time.process_time()
        job = job_on(Mortal(str(graves), 0))
        with Output(one, job.fingerprint) as file:
            for record in job.records(requests(options.rows)):
                file.write(record)
        alone, alone_cpu = time.perf_counter() - began, time.process_time() - spent
        progress(f"one process: {alone:.1f} s, {alone_cpu:.1f} s of a core")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        node = cluster.add_node(num_cpus=2)
        crew, first, took = drive(cluster.address, options.rows, plain, partial(Mortal, str(graves), 0))
        ray.shutdown()
        progress(f"Ray: crew {crew:.1f} s, first record {first:.1f} s, all {took:.1f} s")
        line = [sys.executable, __file__, "--rows", str(options.rows), "--deaths", str(options.deaths)]
        line += ["--drive", cluster.address, str(faulty), str(graves)]
        ends = sorted(dice.sample(range(options.rows // 10, options.rows), 2))
        for number, end in enumerate([*ends, None]):
            driver = subprocess.Popen(line)
            while driver.poll() is None and (end is None or len(lines(faulty)) < end):
                if node is not None and number == 1 and len(lines(faulty)) > ends[0]:
                    cluster.remove_node(node, allow_graceful=False)
                    node = None
                    progress(f"a machine removed at {len(lines(faulty))} rows")
                time.sleep(0.02)
            if end is not None:
                driver.kill()
                progress(f"driver killed at {len(lines(faulty))} rows")
            driver.wait()
        cluster.shutdown()
        record = {
            "rows": options.rows,
            "equal": lines(plain) == lines(one),
            "equal_after_faults": lines(faulty) == lines(one),
            "actors_killed": len(list(graves.iterdir())),
            "machine_removed": node is None,
            "drivers_killed": len(ends),
            "one_process": alone,
            "one_process_cpu": alone_cpu,
            "crew": crew,
            "first_record": first,
            "ray": took,
        }
    text = (
        f"{options.rows:,} rows; one process {alone:.1f} s; Ray: {crew:.1f} s until the crew is there, {first:.1f} s "
        f"to the first record, {took:.1f} s in all; equal: {record['equal']}\n{record['actors_killed']} actors killed, "
        f"{'a' if record['machine_removed'] else 'no'} machine removed, {len(ends)} drivers killed; every row once and "
        f"equal: {record['equal_after_faults']}"
    )
    emit(record, text, options.json)
    if not (record["equal"] and record["equal_after_faults"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

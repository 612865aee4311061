"""`mdsample serve` under load: what it adds to a text's time, what it keeps of the throughput, and what it loses.

`python benchmarks/serve.py [latency] [throughput] [load] [memory] [--seconds 120] [--requests 10000] [--json]`: by
default all four, each with a server of its own on tiny-gsm. Say OPENBLAS_NUM_THREADS=1 where there are few cores.

latency: one client and `mdsample.sample` take turns on the same prompts; the difference of the medians, and of the
processor's time for a text, which is what is left of it on a machine that has nothing else to do.
throughput: 16 clients, and the job that `mdsample run --batch-size 16` runs on the same prompts, in turns; the ratio.
load: 64 clients that ask for rows of mixed policies, templates and seeds as fast as they are answered; every answer is
compared with the record of `mdsample run` for that row (but for the last bits of bounds, since sums round with the
batch that a row was in). What is no answer and no 429 is an error.
memory: many requests of two blanks by 16 clients; resident memory of the server after the first tenth, and at the end.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import bootstrap, command_line, emit, interval, progress, resamples

import mdsample
from mdsample.core.template import Template
from mdsample.evaluation.intervals import Interval
from mdsample.jobs.job import Job
from mdsample.jobs.records import Request
from mdsample.sampling.sampler import Sampler

#: of a record, what rounds with the batch
ROUNDED = ("error_bound", "tv_bound")
SHORT = "Question: {prompt}\nReasoning:{reasoning:16}\nAnswer:{answer:4}"
SMALL = "Question: {prompt}\nAnswer:{answer:4}"
TEMPLATES = (SHORT, "{prompt}{text:12}", "Question: {prompt}\nReasoning:{reasoning:24}\nAnswer:{answer:4}")
POLICIES = (
    "med",
    "top(2)+temperature(1)",
    "eb(0.5)",
    "random+steps(6)+temperature(1)",
    "klass+temperature(0.7)",
    "remdm(steps=12)",
    "one-by-one",
)


def prompt(number: int) -> str:
    """A problem."""
    return f"Ann has {number % 90 + 3} coins. Ben gives her {number % 7 + 2} more. How many coins does Ann have?"


@contextmanager
def server(*more: str) -> Iterator[tuple[httpx.Client, int]]:
    """A client of a new server, and the server's process id."""
    line = [sys.executable, "-m", "mdsample_cli", "serve", "--port", "0", *more]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        url = process.stderr.readline().strip()
        try:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            with httpx.Client(base_url=url, timeout=120, limits=limits) as client:
                yield client, process.pid
        finally:
            process.terminate()
            process.wait(60)


def median_difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """Of the medians, with its interval; the sides were measured in turns."""
    index = resamples(len(first))
    drawn = np.median(first[index], axis=1) - np.median(second[index], axis=1)
    return interval(float(np.median(first) - np.median(second)), drawn)


def latency(model: Any, repeats: int, as_json: bool) -> None:
    """One client."""
    with server() as (client, process):
        times: dict[str, list[float]] = {"serve": [], "sample": []}
        spent, used = 0.0, np.zeros(3)
        for number in range(repeats + 3):
            body = {"prompt": prompt(number), "template": SMALL, "policy": "med", "seed": 1}
            if number == 3:
                spent = processor_seconds(process)
            began, own = time.perf_counter(), time.process_time()
            answer = client.post("/v1/fill", json=body).json()
            between, asked = time.perf_counter(), time.process_time()
            row = mdsample.sample(model, prompt(number), template=SMALL, policy="med", seed=1)
            ended, sampled_by = time.perf_counter(), time.process_time()
            assert answer["text"] == row.text
            if number >= 3:
                used += (asked - own, sampled_by - asked, 1)
                times["serve"].append(between - began)
                times["sample"].append(ended - between)
        server_used = processor_seconds(process) - spent
    processor = 1e3 * (server_used + used[0] - used[1]) / used[2]
    served, sampled = (1e3 * np.array(times[name]) for name in ("serve", "sample"))
    added, alone = median_difference(served, sampled), bootstrap(sampled, np.median)
    record: dict[str, Any] = {
        "what": "latency",
        "added_ms": numbers(added),
        "sample_ms": numbers(alone),
        "rows": repeats,
    }
    record["processor_ms"] = processor
    said = f"latency: {told(added, '.1f')} ms added to a median of {told(alone, '.1f')} ms, {repeats} rows"
    emit(record, f"{said}; {processor:.1f} ms of them the processor's", as_json)


def processor_seconds(process: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def numbers(found: Interval) -> list[float]:
    """An interval as numbers."""
    return [found.value, found.low, found.high]


def told(found: Interval, form: str) -> str:
    """An interval for people."""
    value, low, high = (format(number, form) for number in numbers(found))
    return f"{value} [{low}, {high}]"


def throughput(model: Any, rows: int, repeats: int, as_json: bool) -> None:
    """Sixteen clients."""
    template = Template.parse(model.template)
    job = Job(model, template, Sampler("med+early-exit", seed=0), batch_size=16)
    requests = [Request(number, {"prompt": prompt(number)}) for number in range(rows)]
    ratios: list[float] = []
    with server() as (client, _), ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> None:
            body = {"prompt": prompt(number), "template": str(template), "policy": "med+early-exit"}
            client.post("/v1/fill", json=body).raise_for_status()

        for turn in range(repeats + 1):
            began = time.perf_counter()
            list(pool.map(ask, range(rows)))
            between = time.perf_counter()
            assert len(list(job.answers(requests))) == rows
            ended = time.perf_counter()
            if turn:
                ratios.append((ended - between) / (between - began))
            progress(
                f"throughput: serve {rows / (between - began):.1f}, run {rows / (ended - between):.1f} rows a second"
            )
    found = bootstrap(np.array(ratios))
    record = {"what": "throughput", "of_run": numbers(found), "rows": rows, "repeats": repeats}
    emit(record, f"throughput: {told(found, '.2f')} of run, {repeats} rounds of {rows} rows", as_json)


def essence(record: dict[str, Any]) -> dict[str, Any]:
    """Of a record, what must be equal."""
    return {key: value for key, value in record.items() if key not in ROUNDED}


def load(model: Any, seconds: float, clients: int, as_json: bool) -> None:
    """Many clients at once."""
    asked: list[dict[str, Any]] = []
    expected: list[dict[str, Any]] = []
    for number, (policy, template) in enumerate(itertools.product(POLICIES, TEMPLATES)):
        job = Job(model, Template.parse(template), Sampler(policy, seed=number))
        answers = list(job.answers([Request(0, {"prompt": prompt(number)})]))
        asked.append({"prompt": prompt(number), "template": template, "policy": policy, "seed": number})
        expected.append(essence(job.record(answers[0])))
    seen: Counter[str] = Counter()
    lock, until = threading.Lock(), time.perf_counter() + seconds

    def ask(client: httpx.Client, which: Iterator[int]) -> None:
        while time.perf_counter() < until:
            number = next(which) % len(asked)
            try:
                answer = client.post("/v1/fill", json=asked[number])
                kind = {200: "answered", 429: "429"}.get(answer.status_code, f"status {answer.status_code}")
                if kind == "answered" and essence(answer.json()) != expected[number]:
                    kind = "different"
                if kind == "429":
                    time.sleep(float(answer.headers["retry-after"]))
            except httpx.HTTPError as fault:
                kind = f"lost: {type(fault).__name__}"
            with lock:
                seen[kind] += 1

    with server("--queue", str(clients * 3 // 4)) as (client, _), ThreadPoolExecutor(clients) as pool:
        for number in range(clients):
            pool.submit(ask, client, itertools.count(number * 5))
        pool.shutdown()
        text = client.get("/metrics").text
    rows = metric(text, "mdsample_rows_per_pass_sum") / metric(text, "mdsample_rows_per_pass_count")
    record = {"what": "load", "clients": clients, "seconds": seconds, "seen": seen, "rows_per_pass": rows}
    said = f"load: {dict(seen)} in {seconds:g} s by {clients} clients; {rows:.1f} rows a pass"
    emit(record, said, as_json)


def metric(text: str, name: str) -> float:
    """A number that `/metrics` tells."""
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def resident(process: int) -> float:
    """Memory of a process, MiB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def memory(requests: int, as_json: bool) -> None:
    """Many small requests."""
    with server() as (client, process), ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> None:
            body = {"prompt": f"{number}", "max_tokens": 2, "policy": POLICIES[number % len(POLICIES)], "seed": number}
            path = "/v1/completions"
            if number % 3 == 0:
                body["stream"] = True
            client.post(path, json=body).raise_for_status()

        list(pool.map(ask, range(requests // 10)))
        first = resident(process)
        list(pool.map(ask, range(requests // 10, requests)))
        last = resident(process)
    record = {"what": "memory", "requests": requests, "first_mib": first, "last_mib": last}
    said = f"memory: {first:.0f} MiB after {requests // 10:,} requests, {last:.0f} MiB after {requests:,}"
    emit(record, said, as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """What is asked for."""
    parser = command_line(__doc__)
    parser.add_argument("what", nargs="*", choices=["latency", "throughput", "load", "memory", []], default=[])
    parser.add_argument("--seconds", type=float, default=120, help="of load")
    parser.add_argument("--clients", type=int, default=64, help="of load")
    parser.add_argument("--requests", type=int, default=10_000, help="of memory")
    parser.add_argument("--rows", type=int, default=64, help="of a round of throughput; four times as many of latency")
    parser.add_argument("--repeats", type=int, default=6, help="rounds of throughput")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    model = mdsample.load("tiny-gsm")
    jobs: dict[str, Callable[[], None]] = {
        "latency": lambda: latency(model, 4 * given.rows, given.json),
        "throughput": lambda: throughput(model, given.rows, given.repeats, given.json),
        "load": lambda: load(model, given.seconds, given.clients, given.json),
        "memory": lambda: memory(given.requests, given.json),
    }
    for name, job in jobs.items():
        if not given.what or name in given.what:
            job()


if __name__ == "__main__":
    main()

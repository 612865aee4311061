"""Many threads on one model: does every run give what it gives alone? Also for Python without its lock.

    python benchmarks/threads.py

The model is a toy, so that it needs no tokenizer: on builds of Python without the global lock (3.13t and later) the
library `tokenizers` may not be there.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import mdsample
from mdsample.testing.toys import ScriptedDenoiser, Symbols

POLICIES = (
    *("med", "eb+temperature(1)", "klass", "remdm", "p2(steps=8)", "fast-dllm+early-exit", "one-by-one"),
    "ar-med(0.8)+temperature(0.7)",
)


def texts(model: ScriptedDenoiser, job: tuple[str, int]) -> list[tuple[list[int], int]]:
    """Tokens and forward passes of six rows under a policy and a seed."""
    policy, seed = job
    canvas = mdsample.Template.parse("ab{reasoning:12}c{answer:4}").canvas(model.tokenizer, [{}] * 6)
    rows = mdsample.Sampler(policy, seed=seed).run(model, canvas).rows
    return [(row.tokens.tolist(), row.nfe) for row in rows]


def main() -> None:
    """Runs every job alone, then all of them in threads, several times."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--threads", type=int, default=8)
    options.add_argument("--turns", type=int, default=5)
    told = options.parse_args()
    locked = not sysconfig.get_config_var("Py_GIL_DISABLED") or sys._is_gil_enabled()  # pyright: ignore
    one = partial(texts, ScriptedDenoiser(Symbols(6)))
    jobs = [(policy, seed) for policy in POLICIES for seed in range(6)]
    alone, wrong = [one(job) for job in jobs], 0
    for _ in range(told.turns):
        with ThreadPoolExecutor(told.threads) as pool:
            wrong += sum(found != expected for found, expected in zip(pool.map(one, jobs), alone, strict=True))
    lock = "with" if locked else "without"
    print(f"Python {sys.version.split()[0]} {lock} its lock: {told.turns * len(jobs)} runs in {told.threads} threads")
    print(f"{wrong} differ from the run alone")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()

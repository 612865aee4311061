"""Do fewer forward passes become less time? Problems through a fixed number of places, with refills and without.

    python benchmarks/early_exit.py [--problems 512] [--places 32] [--parts 4] [--backend reference] [--json]

*Engine* is `mdsample.sampling.engine.fill`: a row that is done leaves, the next one enters. *Static* is a batch as most
scripts run it: all rows stay in the forward pass until the last of them is done, then the next batch begins. The
*speed-up* is the engine's time with `entropy+top(1)` over the time at hand, the *NFE ratio* the same of forward passes
per row; *kept* is the first over the second: the share of the saved passes that became saved time. The problems are
split into parts; every part runs all ways one after the other, and the interval is the 95 % bootstrap interval over
parts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import numpy as np
from common import bootstrap, command_line, emit, print_head, progress

import mdsample
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import Prepared, prepare
from mdsample.tasks.catalog import TASKS

POLICIES = ("entropy+top(1)", "med", "med+early-exit")


class Static(Denoiser):
    """A model that always computes the whole batch: rows that are done are padded with copies of the first."""

    def __init__(self, inner: Denoiser, places: int) -> None:
        super().__init__(inner.about)
        self.inner, self.places = inner, places

    def predict(self, query: Query) -> Prediction:
        rows = np.zeros(self.places, np.intp)
        rows[: len(query.tokens)] = np.arange(len(query.tokens))
        restriction = attrs.evolve(query.restriction, index=query.restriction.index[rows])
        arrays = {name: getattr(query, name)[rows] for name in ("tokens", "valid", "wanted", "fixed")}
        return Cut(self.inner.predict(attrs.evolve(query, **arrays, restriction=restriction)), len(query.tokens))


class Cut:
    """The look at the rows that were asked for."""

    def __init__(self, inner: Prediction, rows: int) -> None:
        self.marginals = inner.marginals.take(slice(0, rows), slice(None))
        self.draw = inner.draw


def engine(model: Denoiser, policy: str, slots: tuple[str, ...], rows: Sequence[Prepared], places: int) -> list[int]:
    """Forward passes of every row."""
    sampler = mdsample.Sampler(mdsample.parse(policy))
    return [row.nfe for row in fill(sampler, model, slots, rows, batch_size=places)]


def static(model: Denoiser, policy: str, slots: tuple[str, ...], rows: Sequence[Prepared], places: int) -> list[int]:
    """The same, batch by batch."""
    ordered = sorted(rows, key=lambda row: -len(row.tokens))
    batches = [ordered[first : first + places] for first in range(0, len(ordered), places)]
    return [n for batch in batches for n in engine(Static(model, len(batch)), policy, slots, batch, places)]


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--problems", type=int, default=512)
    parser.add_argument("--places", type=int, default=32)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--model", default="tiny-gsm")
    parser.add_argument("--backend", default="reference")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = mdsample.load(options.model, options.backend)
    task = TASKS["tiny-gsm"]
    template = mdsample.Template.parse(task.template)
    problems = task.read()[: options.problems]
    rows = [prepare(model, template, problem.id, problem.texts) for problem in problems]
    parts = [rows[i :: options.parts] for i in range(options.parts)]
    ways = [(policy, way) for policy in POLICIES for way in (engine, static) if (policy, way) != (POLICIES[0], static)]
    seconds, passes = np.zeros((len(ways), len(parts))), np.zeros((len(ways), len(parts)))
    for p, part in enumerate(parts):
        for w, (policy, way) in enumerate(ways):
            progress(f"part {p + 1} of {len(parts)}, {policy}, {way.__name__} …")
            began = time.perf_counter()
            passes[w, p] = np.mean(way(model, policy, template.slots, part, options.places))
            seconds[w, p] = time.perf_counter() - began
    if not options.json:
        print(f"{len(rows)} problems, {options.places} places, {model.name} on {model.backend}, {len(parts)} parts\n")
        print_head(("policy", "batches", "passes a row", "NFE ratio", "seconds", "speed-up", "kept", "95 %"), text=2)
    for w, (policy, way) in enumerate(ways):
        faster, fewer = seconds[0] / seconds[w], passes[0] / passes[w]
        kept = bootstrap(faster / fewer)
        row = {
            **{"policy": policy, "batches": way.__name__, "nfe": round(float(passes[w].mean()), 1)},
            **{"nfe_ratio": round(float(fewer.mean()), 2), "seconds": round(float(seconds[w].sum()), 1)},
            **{"speed_up": round(float(faster.mean()), 2), "kept": round(kept.value, 3)},
            **{"low": round(kept.low, 3), "high": round(kept.high, 3)},
        }
        cells = [row[k] for k in ("policy", "batches", "nfe", "nfe_ratio", "seconds", "speed_up", "kept")]
        emit(row, [*cells, f"[{kept.low:.3f}, {kept.high:.3f}]"], options.json)


if __name__ == "__main__":
    main()

"""Slots of unknown length: how often is the right length found, by the text's log-probability or by its mean?

    python benchmarks/lengths.py                 # 70 problems of tiny-gsm, about 8 minutes on a CPU
    python benchmarks/lengths.py --problems 5

Finished reasonings with right answers get a hole of 1 to 5 tokens each, twice, and the hole may have 1 to 6. Nothing
but the text says how long it was, so the right length need not be the best one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import attrs
import numpy as np
from common import command_line, progress

import mdsample
from mdsample.core.arrays import Doubles
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import Prepared
from mdsample.tasks.catalog import task_for

LONGEST = 6
#: draws of the bootstrap
DRAWS = 2000


def holes(row: mdsample.Row, rng: np.random.Generator) -> Iterator[tuple[int, Prepared]]:
    """How long a hole is, and the row with a hole of each length."""
    tokens, mask = row.tokens.tolist(), row.tokenizer.mask_id
    first = row.slot.tolist().index(0)
    end = next(place for place in range(first, len(tokens)) if tokens[place] in row.tokenizer.ends)
    for number in range(2):
        size = int(rng.integers(1, LONGEST))
        if end - first - size < 4:
            continue
        at = int(rng.integers(first + 2, end - size))
        before, after = tokens[:at], tokens[at + size :]
        rows = [
            Prepared(
                f"{row.id}#{number}",
                [*before, *[mask] * n, *after],
                [*[-1] * at, *[0] * n, *[-1] * len(after)],
                [*[False] * at, *[True] * n, *[False] * len(after)],
                lengths={"hole": n},
            )
            for n in range(1, LONGEST + 1)
        ]
        yield size, attrs.evolve(rows[0], others=tuple(rows[1:]))


def main() -> None:
    """Fills holes, and counts."""
    options = command_line(__doc__)
    options.add_argument("--problems", type=int, default=70)
    options.add_argument("--policy", default="one-by-one")
    options.add_argument("--json", action="store_true")
    told = options.parse_args()
    model = mdsample.load("tiny-gsm", "reference")
    task = task_for(model)
    assert task is not None
    problems = task.read()[100 : 100 + told.problems]
    rows = mdsample.sample(model, [problem.texts for problem in problems], policy="med")
    right = [row for row, problem in zip(rows, problems, strict=True) if row.slots["answer"] == problem.answer]
    rng = np.random.default_rng(0)
    asked = [hole for row in right for hole in holes(row, rng)]
    progress(f"{len(right)} of {len(problems)} answers are right; {len(asked)} holes")
    size = {row.id: length for length, row in asked}
    found: dict[str, list[bool]] = {"log-probability": [], "its mean over tokens": [], "the shortest": []}
    for row in fill(mdsample.Sampler(told.policy), model, ("hole",), [row for _, row in asked]):
        scores = np.array([one.score for one in row.tried])
        lengths = np.array([one.lengths["hole"] for one in row.tried])
        for name, by in zip(found, (scores, scores / lengths, -lengths), strict=True):
            found[name].append(bool(lengths[by.argmax()] == size[row.id]))
    draw = np.random.default_rng(1).integers(0, len(asked), (DRAWS, len(asked)))
    for name, hits in found.items():
        share: Doubles = np.array(hits, np.float64)
        low, high = np.percentile(share[draw].mean(1), [2.5, 97.5]).tolist()
        line = {"score": name, "holes": len(asked), "right": float(share.mean()), "low": low, "high": high}
        print(json.dumps(line) if told.json else f"{name:24s} {share.mean():.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()

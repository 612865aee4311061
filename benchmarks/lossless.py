"""Whether a run with guessed steps is the run without them: random policies and every preset, event by event.

    python benchmarks/lossless.py                                   # 500 random policies, all three backends
    python benchmarks/lossless.py --count 50 --backends torch

Each policy is run at temperature 0 and at temperature 1 on every backend, on three rows of unequal length, with and
without guesses: chains and trees, on a model that sees whole rows, on models in blocks, and on these with the exact
cache. Constraints and slots that hold a language are among the policies. Compared are the tokens, the steps, every
event, what each row cost without its guesses, outcomes and bounds (`mdsample.testing.promises`).
Models are tiny and have random weights; the policies are the same in every run of this script.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import common
from hypothesis import HealthCheck, Phase, given, settings

import mdsample
from mdsample import testing
from mdsample.core.canvas import Canvas
from mdsample.errors import MdsampleError
from mdsample.models.cache import Exact
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.complete import complete
from mdsample.policy.presets import PRESETS
from mdsample.testing.promises import speculation_changes_nothing

TEMPLATE = mdsample.Template.parse("Q {prompt} R{reasoning:6:blind} A{answer:3}")
TEXTS = [{"prompt": "Ann has 12 coins"}, {"prompt": "the cat"}, {"prompt": ""}]
#: families of models, and whether with the exact cache
MODELS = (("llada", False), ("sdar", True), ("fast_dllm", True), ("sdar", False), ("llada2_moe", True))
SHAPES = ("1", "4", "3x2", "2x4")
DRAWS = (mdsample.Greedy(), mdsample.Temperature(1.0))


def main() -> None:
    """Prints how many runs were the same, by backend; fails at the first that was not."""
    parser = common.command_line(__doc__)
    parser.add_argument("--count", type=int, default=500, help="random policies, every preset besides")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many, and the presets")
    parser.add_argument("--backends", nargs="+", default=["reference", "torch", "mlx"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    if not asked.json:
        common.print_head(["backend", "policies", "runs", "saved rounds", "with a language", "refused", "s"], text=1)
    presets = [] if asked.skip else [mdsample.parse(name) for name in sorted(PRESETS)]
    policies = [*random_policies(asked.count)[asked.skip :], *presets]
    with tempfile.TemporaryDirectory() as place:
        for backend in asked.backends:
            compare(backend, list(models(Path(place), backend)), policies, asked)


def random_policies(count: int) -> list[Policy]:
    """The first `count` different ones that Hypothesis makes."""
    found: dict[Policy, None] = {}

    def take(policy: Policy) -> None:
        found[policy] = None

    calm = settings(
        max_examples=2 * count + 10,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    calm(given(testing.policies(("reasoning", "answer"), vocab=290, texts=("at", "12", "the")))(take))()
    return list(found)[:count]


def models(place: Path, backend: str) -> Iterator[Denoiser]:
    """Tiny ones with random weights."""
    from checkpoints import write_checkpoint, write_family  # pyright: ignore  # tests/helpers

    for family, cached in MODELS:
        folder = place / family
        if not folder.exists():
            write_checkpoint(folder) if family == "llada" else write_family(folder, family)
        try:
            yield mdsample.load(folder, backend, device="cpu", dtype="float32", cache=Exact() if cached else None)
        except MdsampleError:
            continue  # the reference keeps nothing


def compare(backend: str, opened: list[Denoiser], policies: list[Policy], asked: argparse.Namespace) -> None:
    """The row of one backend."""

    counts, began = Counter[str](), time.perf_counter()
    for number, policy in enumerate(policies):
        model = opened[number % len(opened)]
        canvas = TEMPLATE.canvas(model.tokenizer, TEXTS)
        shape = SHAPES[number % len(SHAPES)]
        for draw in DRAWS:
            one(fitting(policy.replace(draw), model), model, canvas, number, shape, counts)
    seconds = time.perf_counter() - began
    record = {"backend": backend, "policies": len(policies), **counts, "seconds": seconds}
    told = [counts[name] for name in ("runs", "saved", "language", "refused")]
    common.emit(record, [backend, len(policies), *told, f"{seconds:.0f}"], asked.json)


def fitting(policy: Policy, model: Denoiser) -> Policy:
    """The policy, with the model's own blocks where its window does not fit a model in blocks."""
    block = model.block
    return policy.without("window") if block is not None and complete(policy).window.misfit(block) else policy


def one(policy: Policy, model: Denoiser, canvas: Canvas, seed: int, shape: str, counts: Counter[str]) -> None:
    """Runs one policy both ways."""
    try:
        plan = mdsample.Sampler(policy, seed=seed).plan(model, canvas)
    except MdsampleError:
        counts["refused"] += 1
        return
    try:
        rows = speculation_changes_nothing(policy, model, canvas, seed, shape, None if seed % 2 else 2).rows
    except AssertionError as fault:
        raise SystemExit(
            f"{model.name} on {model.backend}, speculate={shape}, seed {seed}: {policy}\n{fault}"
        ) from fault
    counts["runs"] += 1
    counts["saved"] += any(row.rounds < row.steps for row in rows)
    counts["language"] += bool(plan.restriction.spans)


if __name__ == "__main__":
    main()

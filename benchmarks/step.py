"""Cost of one policy step, from window to commit, beside the reference model's forward pass on the same rows.

    python benchmarks/step.py [--batch 8] [--length 256] [--json]

The policy step is timed on a model that answers at once with statistics made beforehand, so everything measured is
the loop's own: views, window, ranking, selection, stop rules, events, the next state. One thread.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import statistics
import time

import attrs
import numpy as np

import mdsample
from mdsample.arrays import Doubles, Floats, Ints
from mdsample.cache import Rows
from mdsample.canvas import Canvas
from mdsample.denoiser import Ask, Denoiser, Restriction, Tokenizer
from mdsample.draw import Draw
from mdsample.guide import NoGuide
from mdsample.marginals import Marginals
from mdsample.state import State

POLICIES = ("med", "med+early-exit", "eb+whole", "fast-dllm", "llada", "one-by-one", "dream(40)+ended")


@attrs.frozen(eq=False)
class Instant:
    """A look that was made beforehand."""

    marginals: Marginals

    def draw(
        self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw, restriction: Restriction | None
    ) -> tuple[Ints, Floats]:
        return self.marginals.token[rows, positions], np.exp(self.marginals.log_probability[rows, positions])


@attrs.frozen(eq=False)
class InstantDenoiser:
    """Answers every look at once."""

    tokenizer: Tokenizer
    vocab_size: int
    marginals: Marginals
    name: str = "instant"
    backend: str = "none"
    template: str = ""
    max_length: int = 1 << 20
    cache: None = None

    def look(self, ask: Ask) -> Instant:
        return Instant(self.marginals.take(slice(0, len(ask.tokens)), slice(None)))


def canvas(model: Denoiser, batch: int, length: int) -> Canvas:
    """Rows with a quarter of fixed text, a reasoning slot and an answer slot of 8."""
    slots = [-1] * (length // 4) + [0] * (length - length // 4 - 8) + [1] * 8
    rows = [[5 if s < 0 else model.tokenizer.mask_id for s in slots]] * batch
    return Canvas.of_rows(rows, [slots] * batch, ("reasoning", "answer"), model.tokenizer.mask_id)


def policy_steps(policy: str, model: Denoiser, batch: int, length: int) -> list[float]:
    """Milliseconds of each step while all rows are active, over a few runs."""
    sampler = mdsample.Sampler(mdsample.parse(policy))
    page = canvas(model, batch, length)
    rng = np.random.default_rng(0)
    spent: list[float] = []
    for _ in range(6):
        top = rng.uniform(-1.5, -1e-4, (batch, length)).astype(np.float32)
        seen = Marginals(np.full((batch, length), 7, np.int32), top, top - 1, (-2 * top).astype(np.float32))
        instant = InstantDenoiser(model.tokenizer, model.vocab_size, seen)
        plan = sampler.plan(instant, page)
        state = sampler.start(instant, page, plan)
        for _ in range(40):
            if not state.active.all():
                break
            began = time.perf_counter()
            state, _ = sampler.step(instant, state, plan)
            spent.append(1e3 * (time.perf_counter() - began))
    return spent


def forward(model: Denoiser, batch: int, length: int) -> list[float]:
    """Milliseconds of the reference model's look at all blanks of the same canvas."""
    page = canvas(model, batch, length)
    state = State.begin(page)
    shape = page.tokens.shape
    allowed = (np.arange(model.vocab_size) != model.tokenizer.mask_id)[None]
    restriction = Restriction(allowed, np.zeros(shape, np.int32), np.full(shape, -1, np.int32))
    rows = Rows([(0, row) for row in range(batch)], state.step)
    ask = Ask(state.tokens, page.valid, page.blank, page.valid & ~page.blank, restriction, NoGuide(), rows)
    spent: list[float] = []
    for _ in range(6):
        began = time.perf_counter()
        model.look(ask)
        spent.append(1e3 * (time.perf_counter() - began))
    return spent[1:]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = mdsample.load("tiny-gsm")
    whole = statistics.median(forward(model, options.batch, options.length))
    if not options.json:
        print(f"B={options.batch}, L={options.length}, one thread; forward pass of tiny-gsm: {whole:.1f} ms")
    for policy in POLICIES:
        spent = policy_steps(policy, model, options.batch, options.length)
        row = {
            "policy": policy,
            "step_ms": round(statistics.median(spent), 3),
            "best_ms": round(min(spent), 3),
            "p90_ms": round(statistics.quantiles(spent, n=10)[-1], 3),
            "steps": len(spent),
            "share_of_forward": round(statistics.median(spent) / whole, 4),
        }
        if options.json:
            print(json.dumps({**row, "forward_ms": round(whole, 1), "batch": options.batch, "length": options.length}))
        else:
            print(
                f"  {policy:18} {row['step_ms']:6.3f} ms a step (best {row['best_ms']:.3f}, 90 % {row['p90_ms']:.3f}), "
                f"{100 * row['share_of_forward']:.2f} % of a forward pass"
            )


if __name__ == "__main__":
    main()

"""Cost of one policy step, from window to commit, beside the reference model's forward pass on the same rows.

    python benchmarks/step.py [--batch 8] [--length 256] [--json]
    python benchmarks/step.py --backends [--batch 4] [--length 256] [--json]

The policy step is timed on a model that answers at once with statistics made beforehand, so everything measured is
the loop's own: views, window, ranking, selection, stop rules, events, the next state. One thread.

`--backends`: whole steps of every installed backend on the CPU, in a process each, on the same random trunk with a real
vocabulary, blocks of 32. *Floor* is trunk and head on the rows that must be computed, alone; the *sampler's share* is
what a step takes beyond it; *peak* is by how much the process grew in these steps, beside the size of `[B, L, V]`
float32, which must never be there (the script fails if it could have been).
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
from common import command_line, emit, timed

import mdsample
from mdsample.core.arrays import Doubles, Floats, Ints
from mdsample.core.canvas import Canvas
from mdsample.core.marginals import Marginals
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.models.families.trunk import Trunk
from mdsample.policy.draw import Draw
from mdsample.policy.guide import NoGuide
from mdsample.sampling.state import State
from mdsample.testing import Symbols

POLICIES = ("med", "med+early-exit", "eb+whole", "fast-dllm", "llada", "one-by-one", "dream(40)+ended")


@attrs.frozen(eq=False)
class Instant:
    """A look that was made beforehand."""

    marginals: Marginals

    def draw(self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw) -> tuple[Ints, Floats]:
        return self.marginals.token[rows, positions], np.exp(self.marginals.log_probability[rows, positions])


class InstantDenoiser(Denoiser):
    """Answers every query at once, in the place of `inner`."""

    def __init__(self, inner: Denoiser, marginals: Marginals) -> None:
        super().__init__(inner.about)
        self.marginals = marginals

    def predict(self, query: Query) -> Instant:
        return Instant(self.marginals.take(slice(0, len(query.tokens)), slice(None)))


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
        instant = InstantDenoiser(model, seen)
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
    restriction = Restriction(allowed, np.zeros(shape, np.int32))
    rows = Rows([(0, row) for row in range(batch)], state.step)
    query = Query(state.tokens, page.valid, page.blank, page.valid & ~page.blank, restriction, NoGuide(), rows)
    return (1e3 * timed({"": lambda: model.predict(query)}, 5)[""]).tolist()


#: of the trunk for `--backends`: the vocabulary is LLaDA's, the rest is small, or MLX on Linux would take minutes
VOCABULARY, WIDTH, LAYERS = 126_464, 128, 2


def random_model(backend: str) -> tuple[Denoiser, Callable[[Query], None]]:
    """A model with random weights, and its floor: trunk and head on the rows that are looked at."""
    sizes = {"d_model": WIDTH, "layers": LAYERS, "heads": 2, "kv_heads": 2, "head_dim": 64, "mlp_size": 4 * WIDTH}
    rest = {"rotary_dim": 64, "rope_theta": 10000.0, "norm_eps": 1e-5, "tied": False, "max_length": 4096}
    ends = {"mask_id": VOCABULARY - 1, "end_id": VOCABULARY - 2, "start_id": None}
    spec = Trunk(family="random", vocab_size=VOCABULARY, layouts=(), **sizes, **rest, **ends)
    rng = np.random.default_rng(0)
    arrays = {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else rng.standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5)
        for name, shape in spec.shapes.items()
    }
    tokenizer = Symbols(VOCABULARY - 2)
    if backend == "reference":
        from mdsample.backend.reference.backend import ReferenceDenoiser
        from mdsample.backend.reference.trunk import NumpyTrunk

        reference = NumpyTrunk(spec, arrays)

        def numpy_floor(query: Query) -> None:
            reference.logits(query.tokens, query.valid, query.wanted)

        return ReferenceDenoiser("random", reference, tokenizer, ""), numpy_floor
    if backend == "torch":
        import torch  # noqa: TID251
        from mdsample_torch.denoiser import TorchDenoiser
        from mdsample_torch.trunk import TorchTrunk
        from mdsample_torch.weights import from_arrays

        torch.set_num_threads(1)
        trunk = TorchTrunk(spec, from_arrays(spec, arrays, torch.device("cpu"), torch.float32))

        @torch.inference_mode()
        def torch_floor(query: Query) -> None:
            hidden = trunk.hidden(query.tokens, query.valid, query.wanted)
            trunk.logits(hidden, torch.empty((len(hidden), trunk.width)))

        return TorchDenoiser("random", trunk, tokenizer, ""), torch_floor
    import mlx.core as mx  # noqa: TID251
    from mdsample_mlx import weights
    from mdsample_mlx.backend import MlxDenoiser
    from mdsample_mlx.trunk import MlxTrunk

    other = MlxTrunk(spec, weights.from_arrays(spec, arrays, "float32"))

    def mlx_floor(query: Query) -> None:
        mx.eval(other.logits(other.hidden(query.tokens, query.valid, query.wanted)))

    return MlxDenoiser("random", other, tokenizer, "", mx.Device(mx.cpu)), mlx_floor


class Overheard(Denoiser):
    """A model that remembers what it was asked last."""

    def __init__(self, inner: Denoiser, asks: list[Query]) -> None:
        super().__init__(inner.about)
        self.inner, self.asks = inner, asks

    def predict(self, query: Query) -> Prediction:
        self.asks[:] = [query]
        return self.inner.predict(query)


def peak() -> int:
    """Bytes that this process has held at most since `/proc/self/clear_refs` was told to forget."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def whole_steps(backend: str, batch: int, length: int, repeats: int = 7) -> dict[str, object]:
    """Milliseconds of a step and of its floor, and how much memory both took."""
    model, floor = random_model(backend)
    heard = Overheard(model, [])
    page = canvas(model, batch, length)
    sampler = mdsample.Sampler(mdsample.parse("llada+blocks(32)"))
    state = sampler.start(heard, page)
    sampler.step(heard, state)
    floor(heard.asks[0])
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    sides = {"step": lambda: sampler.step(heard, state), "floor": lambda: floor(heard.asks[0])}
    step, bare = (1e3 * float(np.median(spent)) for spent in timed(sides, repeats).values())
    return {
        "backend": backend,
        "batch": batch,
        "length": length,
        "step_ms": round(step, 1),
        "floor_ms": round(bare, 1),
        "share": round(1 - bare / step, 3),
        "peak_mib": round((peak() - before) / 2**20, 1),
        "all_logits_mib": round(4 * batch * length * VOCABULARY / 2**20, 1),
    }


def backends(batch: int, length: int, as_json: bool) -> None:
    """A table of whole steps, each backend in a process of its own."""
    if not as_json:
        print(f"B={batch}, L={length}, blocks of 32, V={VOCABULARY:,}, d={WIDTH}, {LAYERS} layers, float32, one thread")
    for name in ("reference", "torch", "mlx"):
        told = [sys.executable, __file__, "--one", name, "--batch", str(batch), "--length", str(length)]
        row = json.loads(subprocess.run(told, check=True, capture_output=True, text=True).stdout)
        text = (
            f"  {name:10} {row['step_ms']:8.1f} ms a step, floor {row['floor_ms']:8.1f}, sampler's share "
            f"{100 * row['share']:5.1f} %, peak {row['peak_mib']:6.1f} MiB ([B, L, V]: {row['all_logits_mib']} MiB)"
        )
        emit(row, text, as_json)
        if row["peak_mib"] >= row["all_logits_mib"]:
            raise SystemExit(f"{name}: logits of all positions may have been there at once")


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--backends", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(whole_steps(options.one, options.batch, options.length)))
        return
    if options.backends:
        backends(options.batch, options.length, options.json)
        return
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
        text = (
            f"  {policy:18} {row['step_ms']:6.3f} ms a step (best {row['best_ms']:.3f}, 90 % {row['p90_ms']:.3f}), "
            f"{100 * row['share_of_forward']:.2f} % of a forward pass"
        )
        context = {"forward_ms": round(whole, 1), "batch": options.batch, "length": options.length}
        emit({**row, **context}, text, options.json)


if __name__ == "__main__":
    main()

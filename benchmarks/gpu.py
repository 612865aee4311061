"""Milliseconds a step of LLaDA-8B's published configuration on a GPU, against the floor and the published loop.

    python benchmarks/gpu.py [--device cuda] [--dtype bfloat16] [--repeats 10] [--tiny] [--json]

Weights are random: nothing is downloaded, and time does not depend on them. Rows are half prompt and half blanks; a
step commits one token in blocks of 32 (LLaDA's schedule with a step per blank). *Full* computes every position,
*cached* is `--cache dual` between two refreshes. The *floor* is operations over the rate of a large matrix product, or
bytes over the bandwidth of a large copy, whichever takes longer, both measured in the same run; *of the floor* is floor
over step. The *sampler's share* is what a step takes beyond trunk and head on the rows that must be computed.
*Published* is LLaDA's step as `benchmarks/look.py` states it, on the same trunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from common import add_torch_options, command_line, device_name, emit, print_head, timed, torch, waiter
from llada import least, published
from look import llada_step

import mdsample
from mdsample.core.canvas import Canvas
from mdsample.models.cache import Cache, Dual
from mdsample.models.families.trunk import Trunk
from mdsample.testing import Symbols

if TYPE_CHECKING:
    from mdsample_torch.trunk import TorchTrunk

BLOCK = 32
SHAPES = ((1, 512), (8, 512), (32, 1024))


def trunk(spec: Trunk, device: torch.device, dtype: torch.dtype, compile: bool) -> TorchTrunk:
    """Random weights, made where they stay."""
    from mdsample_torch.trunk import TorchTrunk
    from mdsample_torch.weights import _empty

    weights, _ = _empty(spec, device, dtype)
    torch.manual_seed(0)
    for tensor in weights.values():
        if tensor.ndim == 1:
            tensor.fill_(1)
        else:
            tensor.normal_(0, tensor.shape[-1] ** -0.5)
    return TorchTrunk(spec, weights, compile)


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds."""
    return float(np.median(timed({"": work}, repeats, waiter(device))[""]))


def rates(device: torch.device, dtype: torch.dtype, tiny: bool) -> tuple[float, float]:
    """Operations a second of a large matrix product, bytes a second of a large copy (read and written)."""
    side, size = (512, 1 << 20) if tiny else (8192, 1 << 31)
    a = torch.randn(side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    goal = torch.empty_like(source)
    return (
        2 * side**3 / seconds(lambda: torch.mm(a, a, out=out), device, 10),
        2 * size / seconds(lambda: goal.copy_(source), device, 10),
    )


def measure(model: TorchTrunk, batch: int, length: int, cache: Cache | None, repeats: int) -> dict[str, float]:
    """Seconds of ours, of trunk and head alone, and of the published step."""
    spec, device = model.spec, model.device
    from mdsample_torch.denoiser import TorchDenoiser

    denoiser = TorchDenoiser("random", model, Symbols(spec.vocab_size - 2), "", cache)
    blanks = length // 2
    rng = np.random.default_rng(1)
    fixed = rng.integers(0, 1000, (batch, length - blanks)).tolist()
    canvas = Canvas.of_rows(
        [[*row, *[spec.mask_id] * blanks] for row in fixed],
        [[-1] * (length - blanks) + [0] * blanks] * batch,
        ("text",),
        spec.mask_id,
    )
    sampler = mdsample.Sampler(mdsample.Confidence() + mdsample.Top(1) + mdsample.Blocks(BLOCK))
    plan = sampler.plan(denoiser, canvas)
    state = sampler.start(denoiser, canvas, plan)
    wanted = np.zeros((batch, length), np.bool_)
    wanted[:, length - blanks : length - blanks + BLOCK] = True
    out = torch.empty((batch * BLOCK, model.width), device=device)
    tokens = torch.tensor(canvas.tokens.astype(np.int64), device=device)

    def step() -> None:
        nonlocal state
        state, _ = sampler.step(denoiser, state, plan)

    def core() -> None:
        model.logits(model.hidden(canvas.tokens, canvas.valid, wanted), out)

    with torch.inference_mode():
        for _ in range(3):  # the first one of a block computes everything; a shape is recorded when it comes again
            step()
        found = {"step": seconds(step, device, min(repeats, BLOCK - 4))}
        if cache is None:
            end = length - blanks + BLOCK
            found["core"] = seconds(core, device, repeats)
            found["published"] = seconds(
                lambda: llada_step(model, tokens, 0.0, end, spec.mask_id, 1), device, max(2, repeats // 3)
            )
    return found


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--compile", action="store_true", help="compiled layers, and on CUDA recorded passes")
    parser.add_argument("--repeats", type=int, default=10)
    add_torch_options(parser, device="cuda", dtype="bfloat16")
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; --device cpu --tiny shows that the script works")
    name = device_name(device)
    flops, bandwidth = rates(device, dtype, options.tiny)
    model = trunk(published(options.tiny), device, dtype, options.compile)
    if not options.json:
        rate = f"{flops / 1e12:.1f} TFLOP/s, {bandwidth / 1e9:.0f} GB/s"
        print(f"{name}, torch {torch.__version__}, {options.dtype}: {rate}")
        print()
        print_head(
            ("B", "L", "pass", "step, ms", "floor, ms", "of the floor", "sampler's share", "published, ms", "ratio"),
            text=0,
        )
    for batch, length in ((1, 64), (2, 64)) if options.tiny else SHAPES:
        for kind, cache in (("full", None), ("cached", Dual())):
            found = measure(model, batch, length, cache, options.repeats)
            computed = length if cache is None else BLOCK
            operations, size = least(model.spec, batch, length, computed, BLOCK, dtype.itemsize)
            floor = max(operations / flops, size / bandwidth)
            row = {
                "batch": batch,
                "length": length,
                "pass": kind,
                "step_ms": 1e3 * found["step"],
                "floor_ms": 1e3 * floor,
            }
            row["of_floor"] = floor / found["step"]
            if cache is None:
                row["sampler_share"] = 1 - found["core"] / found["step"]
                row["published_ms"] = 1e3 * found["published"]
                row["ratio"] = found["published"] / found["step"]
            cells = [f"{batch}", f"{length}", kind, f"{row['step_ms']:.2f}", f"{row['floor_ms']:.2f}"]
            cells.append(f"{row['of_floor']:.2f}")
            if cache is None:
                cells += [f"{100 * row['sampler_share']:.1f} %", f"{row['published_ms']:.2f}", f"{row['ratio']:.2f}"]
            else:
                cells += ["", "", ""]
            emit({"device": name, **row}, cells, options.json)


if __name__ == "__main__":
    main()

"""What a slot that holds a language adds to a step, at a real vocabulary: with and without it in turns, in one run.

    python benchmarks/language.py [--tokenizer tokenizer.json] [--threads 2] [--repeats 9] [--cpu] [--tiny] [--json]

The trunk is that of `benchmarks/look.py` (random weights), the slot has 64 blanks, all of them on offer, and the most
certain one is filled. *Host* is the dynamic program alone (`mdsample.constraints.program.weights`). Medians; the
interval of the ratio is a 95 % bootstrap interval over repeats that alternate the sides. `--cpu` counts the
processor's time of this thread instead of the clock's, for machines that do other work; with it take one thread.
Without `--tokenizer` one is trained, as `benchmarks/constraints.py` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from common import add_torch_options, bootstrap, command_line, emit, print_head, timed, torch, waiter
from constraints import EXPRESSIONS, tokenizer_of
from look import model

import mdsample
from mdsample.constraints.compile import from_expression
from mdsample.constraints.program import weights
from mdsample.core.canvas import Canvas
from mdsample.models.denoiser import Denoiser

BLANKS = 64
#: all of these can fill 64 tokens
LANGUAGES = ("an integer", "arithmetic", "an answer's tail", "boxed", "JSON of three fields", "anything")


def measure(
    denoiser: Denoiser, name: str, length: int, repeats: int, device: object, clock: Callable[[], float]
) -> dict[str, object]:
    """One row of the table."""
    mask, rng = denoiser.tokenizer.mask_id, np.random.default_rng(1)
    row = [*rng.integers(0, 1000, length - BLANKS).tolist(), *[mask] * BLANKS]
    canvas = Canvas.of_rows([row], [[-1] * (length - BLANKS) + [0] * BLANKS], ("text",), mask)
    pattern = EXPRESSIONS[name]
    free = mdsample.Confidence() + mdsample.Top(1) + mdsample.Whole()
    steps = {}
    for side, policy in {"free": free, "held": free + mdsample.Regex(pattern, slot="text")}.items():
        sampler = mdsample.Sampler(policy)
        plan = sampler.plan(denoiser, canvas)
        state = sampler.start(denoiser, canvas, plan)
        steps[side] = lambda sampler=sampler, state=state, plan=plan: sampler.step(denoiser, state, plan)
    language = from_expression(pattern, denoiser.tokenizer, pad=True)
    mass, nothing = rng.normal(size=(1, BLANKS, language.symbols)), np.full((1, BLANKS), -1, np.int32)
    steps["host"] = lambda: weights(language, nothing, mass)
    took = timed(steps, repeats, waiter(device), clock)
    ratio = bootstrap(took["held"] / took["free"], np.median)
    return {
        **{"language": name, "states": language.states, "classes": language.symbols},
        "transitions": len(language.source),
        **{f"{side}_ms": round(1e3 * float(np.median(values)), 2) for side, values in took.items()},
        **{"ratio": round(ratio.value, 3), "low": round(ratio.low, 3), "high": round(ratio.high, 3)},
    }


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--tokenizer", help="a tokenizer.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--cpu", action="store_true", help="processor time of this thread")
    add_torch_options(parser, device="cpu", dtype="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size, d, layers, length = (2000, 64, 2, 128) if options.tiny else (126_464, 512, 4, 256)
    device = torch.device(options.device)
    tokenizer = tokenizer_of(options.tokenizer, size)
    denoiser = model(tokenizer.size, d, layers, device, getattr(torch, options.dtype), tokenizer)
    if not options.json:
        shape = f"V={tokenizer.size}, d={d}, {layers} layers, L={length}, {BLANKS} blanks"
        what = "processor time" if options.cpu else "wall time"
        print(f"{shape}, {options.threads} threads, {options.dtype} on {device}, {what}\n")
        columns = ("language", "states", "classes", "transitions", "free, ms", "held, ms", "ratio", "95 %", "host, ms")
        print_head(columns)
    clock = time.thread_time if options.cpu else time.perf_counter
    for name in LANGUAGES:
        row = measure(denoiser, name, length, options.repeats, device, clock)
        cells = [row[key] for key in ("language", "states", "classes", "transitions", "free_ms", "held_ms", "ratio")]
        emit(row, [*cells, f"[{row['low']}, {row['high']}]", row["host_ms"]], options.json)


if __name__ == "__main__":
    main()

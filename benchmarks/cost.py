"""Predicted seconds of a forward pass beside measured ones on this CPU, and predictions for a stated GPU.

    OPENBLAS_NUM_THREADS=1 python benchmarks/cost.py [--repeats 9] [--bandwidth 4800] [--tflops 989] [--tiny] [--json]

Measured are trunk and head of a dense trunk with random weights, float32, on one thread; the machine's rates are those
of `mdsample.backend.probe` in the same run, so NumPy needs one thread too. Medians; intervals are 95 % bootstrap
intervals of the median. Predictions for the GPU take LLaDA-8B's published sizes in bfloat16, the rates stated, and
rounds and NFE of `tiny-gsm` from docs/performance.md ("Guessed steps"): nothing of them is measured on a GPU.
"""

from __future__ import annotations

import attrs
import common
import numpy as np
from llada import published
from look import model

from mdsample.backend.probe import probe
from mdsample.models.cost import Machine, Pace, Texts, pass_cost, text_seconds

#: rows and tokens of each
SHAPES = ((1, 4), (1, 16), (1, 64), (8, 4), (8, 16), (8, 64))
#: as measured on tiny-gsm, with 8 guesses and without
PACES = (
    Pace("one by one", 100, 100),
    Pace("one by one, 8 guesses", 17.3, 142.7),
    Pace("eb", 44.7, 44.7),
    Pace("eb, 8 guesses", 20.0, 164.0),
    Pace("ar-med", 28.0, 28.0),
    Pace("ar-med, 8 guesses", 11.7, 95.0),
)


def measured(machine: Machine, tiny: bool, repeats: int, as_json: bool) -> None:
    """A table of passes that ran here."""
    device, dtype = common.torch.device("cpu"), common.torch.float32
    trunk = model(2000, *((64, 2) if tiny else (1024, 4)), device, dtype).trunk
    if not as_json:
        common.print_head(("rows", "tokens", "predicted, ms", "bound by", "measured, ms", "95 %", "ratio"), text=0)
    for rows, length in SHAPES:
        tokens, everything = np.ones((rows, length), np.int32), np.ones((rows, length), np.bool_)
        out = common.torch.empty((rows * length, trunk.width))

        def work(tokens: np.ndarray = tokens, yes: np.ndarray = everything, out: object = out) -> None:
            trunk.logits(trunk.hidden(tokens, yes, yes), out)  # pyright: ignore[reportArgumentType]

        with common.torch.inference_mode():
            took = common.bootstrap(common.timed({"": work}, repeats)[""], np.median)
        cost = pass_cost(trunk.spec, rows, length, length, length, 4)
        seconds, bound = cost.seconds(machine), "reading"
        if cost.multiplying(machine) > cost.reading(machine):
            bound = "multiplying"
        record = {"rows": rows, "tokens": length, "predicted": seconds, "bound": bound, **attrs.asdict(took)}
        cells = [rows, length, f"{1e3 * seconds:.1f}", bound, f"{1e3 * took.value:.1f}"]
        cells += [f"[{1e3 * took.low:.1f}, {1e3 * took.high:.1f}]", f"{took.value / seconds:.2f}"]
        common.emit(record, cells, as_json)


def predicted(machine: Machine, as_json: bool) -> None:
    """A table of texts on the machine that is stated."""
    full = published(False)
    if not as_json:
        print()
        common.print_head(("policy", "rounds", "NFE", "cache", "block", "texts", "predicted, s"), text=1)
    for pace in PACES:
        for cache, block in (("none", 32), ("exact", 32)):
            for batch in (1, 16):
                texts = Texts(batch=batch, length=256, blanks=100, window=block)
                seconds = text_seconds(full, machine, texts, pace, cache, 2)
                record = {**attrs.asdict(pace), "cache": cache, "block": block, "batch": batch, "predicted": seconds}
                cells = [pace.name, pace.rounds, pace.nfe, cache, block, batch, f"{seconds:.3f}"]
                common.emit(record, cells, as_json)


def main() -> None:
    """Command line."""
    parser = common.command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--bandwidth", type=float, default=4800.0, help="of the GPU, GB/s; default: an H200's")
    parser.add_argument("--tflops", type=float, default=989.0, help="of the GPU; default: an H200's peak, published")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    common.torch.set_num_threads(1)
    here = probe()
    if not options.json:
        print(f"this CPU: {here.bandwidth / 1e9:.1f} GB/s, {here.rate / 1e9:.1f} GFLOP/s\n")
    measured(here, options.tiny, options.repeats, options.json)
    predicted(Machine(1e9 * options.bandwidth, 1e12 * options.tflops), options.json)


if __name__ == "__main__":
    main()

"""What compiling the layers gives: a forward pass as it is beside the compiled one, on the same weights, in one run.

    python benchmarks/compile.py [--threads 2] [--repeats 15] [--device cpu] [--dtype float32] [--tiny] [--json]

Random weights, d = 512, 8 layers, 128 of the positions wanted, the head left out. *First* is what the first compiled
pass takes: compiling one layer for this shape. Medians; the interval is a 95 % bootstrap interval of the median ratio
over repeats that alternate the sides.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import add_torch_options, bootstrap, command_line, emit, print_head, seconds, timed, torch, waiter
from look import model


def measure(batch: int, length: int, options: argparse.Namespace) -> dict[str, object]:
    """One row of the table."""
    from mdsample_torch.trunk import TorchTrunk

    size, d, layers = (2000, 64, 2) if options.tiny else (8192, 512, 8)
    device = torch.device(options.device)
    plain = model(size, d, layers, device, getattr(torch, options.dtype)).trunk
    assert isinstance(plain, TorchTrunk)
    tensors = {"embed": plain._embed, "norm": plain._norm, "head": plain._head}
    tensors |= {f"layers.{i}.{name}": x for i, layer in enumerate(plain._layers) for name, x in layer.items()}
    compiled = TorchTrunk(plain.spec, tensors, compile=True)
    tokens = np.random.default_rng(0).integers(0, 1000, (batch, length)).astype(np.int32)
    valid = np.ones(tokens.shape, np.bool_)
    wanted = np.arange(length) >= length - min(128, length // 2)
    wanted = np.broadcast_to(wanted, tokens.shape)
    with torch.inference_mode():
        sides = {
            "plain": lambda: plain.hidden(tokens, valid, wanted),
            "compiled": lambda: compiled.hidden(tokens, valid, wanted),
        }
        first = seconds(sides["compiled"], waiter(device))
        spent = timed(sides, options.repeats, waiter(device))
    ratio = bootstrap(spent["plain"] / spent["compiled"], np.median)
    return {
        **{"batch": batch, "length": length, "first_s": round(first, 1)},
        **{f"{name}_ms": round(1e3 * float(np.median(values)), 2) for name, values in spent.items()},
        **{"ratio": round(ratio.value, 2), "low": round(ratio.low, 2), "high": round(ratio.high, 2)},
    }


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    add_torch_options(parser, device="cpu", dtype="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.json:
        print(f"{options.threads} threads, {options.dtype} on {options.device}\n")
        print_head(("B", "L", "as it is, ms", "compiled, ms", "ratio", "95 %", "first, s"), text=0)
    for batch, length in ((1, 32), (1, 256), (8, 256)):
        row = measure(batch, length, options)
        cells = [row[key] for key in ("batch", "length", "plain_ms", "compiled_ms", "ratio")]
        emit(row, [*cells, f"[{row['low']}, {row['high']}]", row["first_s"]], options.json)


if __name__ == "__main__":
    main()

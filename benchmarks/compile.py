"""What compiling the layers gives: a forward pass as it is beside the compiled one, on the same weights, in one run.

    python benchmarks/compile.py [--threads 2] [--repeats 15] [--device cpu] [--dtype float32] [--tiny] [--json]

Random weights, d = 512, 8 layers, 128 of the positions wanted, the head left out. *First* is what the first compiled
pass takes: compiling one layer for this shape. Medians; the interval is a 95 % bootstrap interval of the median ratio
over repeats that alternate the sides.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch  # noqa: TID251
from mdsample_torch.trunk import TorchTrunk
from prediction import interval, model, timed


def measure(batch: int, length: int, options: argparse.Namespace) -> dict[str, object]:
    """One row of the table."""
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
        works = {
            "plain": lambda: plain.hidden(tokens, valid, wanted),
            "compiled": lambda: compiled.hidden(tokens, valid, wanted),
        }
        first = timed(works["compiled"], device)
        for work in works.values():
            work()
        spent = {name: np.array([0.0] * options.repeats) for name in works}
        for i in range(options.repeats):
            for name, work in works.items():
                spent[name][i] = timed(work, device)
    ratio = spent["plain"] / spent["compiled"]
    low, high = interval(ratio)
    return {
        **{"batch": batch, "length": length, "first_s": round(first, 1)},
        **{f"{name}_ms": round(1e3 * float(np.median(values)), 2) for name, values in spent.items()},
        **{"ratio": round(float(np.median(ratio)), 2), "low": round(low, 2), "high": round(high, 2)},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.json:
        print(f"{options.threads} threads, {options.dtype} on {options.device}\n")
        print("| B | L | as it is, ms | compiled, ms | ratio | 95 % | first, s |")
        print("| ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    for batch, length in ((1, 32), (1, 256), (8, 256)):
        row = measure(batch, length, options)
        if options.json:
            print(json.dumps(row), flush=True)
            continue
        cells = [row[key] for key in ("batch", "length", "plain_ms", "compiled_ms", "ratio")]
        print("| " + " | ".join(map(str, cells)) + f" | [{row['low']}, {row['high']}] | {row['first_s']} |", flush=True)


if __name__ == "__main__":
    main()

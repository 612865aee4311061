"""How near the backends come to implementations that nobody here wrote: the same weights in float32, on the CPU.

    python benchmarks/logits.py [--json]

Tiny random models of transformers, saved as each family is published, with the attention mask and the shift that the
family has. Rows of 1 to 28 tokens in one batch, padded. What is printed is the largest difference of a log-probability,
nats, over all tokens of all places; of DiffusionGemma, over three passes, two of them conditioned on the one before.
The models and their differences are those of `tests/backend/test_trunk.py` and `test_gemma.py`.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import command_line, emit, print_head

from mdsample.core.arrays import Doubles, Floats


def log_probabilities(logits: Floats) -> Doubles:
    """Of `logits [N, V]`, in float64."""
    exact = logits.astype(np.float64)
    exact -= exact.max(1, keepdims=True)
    return exact - np.log(np.exp(exact).sum(1, keepdims=True))


def main() -> None:
    """Compares and prints."""
    parser = command_line(__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    import gemma
    from oracles import CASES, found, made

    from backends import Mlx, Torch

    logging.getLogger("transformers").setLevel(logging.ERROR)
    backends = ["reference", *(name for name in ("torch", "mlx") if importlib.util.find_spec(name) is not None)]
    if not as_json:
        print_head(["case", "`model_type`", "against", *backends], text=3)
    for case, (kind, theirs, *_) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            spec, expected = made(case, Path(folder))
            exact = log_probabilities(expected)
            worst = [
                float(np.abs(log_probabilities(found(name, spec, Path(folder))) - exact).max()) for name in backends
            ]
        record = {"case": case, "family": kind, "against": theirs, **dict(zip(backends, worst, strict=True))}
        emit(record, [case, f"`{kind}`", theirs, *(f"{x:.1e}" for x in worst)], as_json)
    with tempfile.TemporaryDirectory() as place:
        folder = gemma.write(Path(place) / "tiny", gemma.oracle())
        # the reference refuses the family
        sides = {name: side() for name, side in (("torch", Torch), ("mlx", Mlx)) if name in backends}
        far = {
            name: max(
                float(np.abs(log_probabilities(ours) - log_probabilities(theirs)).max())
                for theirs, ours in gemma.passes(side, folder)
            )
            for name, side in sides.items()
        }
    record = {"case": "diffusion-gemma", "family": "diffusion_gemma", "against": "DiffusionGemma", **far}
    numbers = [f"{far[name]:.1e}" if name in far else "refused" for name in backends]
    emit(record, ["diffusion-gemma", "`diffusion_gemma`", "DiffusionGemma", *numbers], as_json)


if __name__ == "__main__":
    main()

"""What a step of a self-conditioned model holds in memory: soft embeddings in place of the logits before.

    python benchmarks/self_conditioning.py [--rows 4] [--vocabulary 262144]

A tiny random DiffusionGemma trunk with all of the vocabulary and blocks of 256, on torch, CPU, float32. Three steps of
`diffusion-gemma`; what every operation makes is counted in the last, on the device and on the host: the largest tensor
that has a column for each token beside the embedding, and the most bytes of tensors alive at once above what was alive
when the step began. Beside it what keeping the logits before would take, in float32 and in bfloat16.
"""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: TID251
from common import command_line
from mdsample_torch.denoiser import TorchDenoiser
from mdsample_torch.trunk import TorchTrunk
from mdsample_torch.weights import from_arrays
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: TID251

from mdsample.core.canvas import Canvas
from mdsample.models.families.diffusion_gemma import PUBLISHED, read
from mdsample.policy.parsing import parse
from mdsample.sampling.sampler import Sampler


class Alive(TorchDispatchMode):
    """Counts storages that operations make, and lets go of them when they are gone."""

    def __init__(self, width: int, embedding: torch.Tensor) -> None:
        super().__init__()
        self.width, self.now, self.peak, self.largest = width, 0, 0, 0
        # views of the embedding are part of the model
        self._known: set[int] = {embedding.untyped_storage().data_ptr()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if (
                isinstance(x, torch.Tensor)
                and x.ndim == 2
                and x.shape[1] == self.width
                and func.__name__ != "t.default"
            ):
                self.largest = max(self.largest, x.numel())
            if isinstance(x, torch.Tensor):
                self._count(x.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        key, size = storage.data_ptr(), storage.nbytes()
        if key in self._known or not size:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def main() -> None:
    """Runs three steps and prints."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=262144)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    from mdsample.testing import Symbols

    published = PUBLISHED["google/diffusiongemma-26B-A4B-it"]
    text: Any = published["text_config"]
    small: dict[str, Any] = {
        **{"hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 6},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "num_global_key_value_heads": 1, "head_dim": 16},
        **{"global_head_dim": 32, "num_experts": 4, "top_k_experts": 2, "vocab_size": given.vocabulary},
        **{"max_position_embeddings": 1024, "layer_types": text["layer_types"][:6]},
    }
    spec = read({**published, "text_config": {**text, **small}})
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) * np.float32(0.2) for name, shape in spec.shapes.items()}
    trunk = TorchTrunk(spec, from_arrays(spec, arrays, torch.device("cpu"), torch.float32))
    del arrays
    tokenizer = Symbols(given.vocabulary - 2)
    model = TorchDenoiser("random", trunk, tokenizer, "")
    size, prompt = 256, [5, 6, 7]
    canvas = Canvas.of_rows(
        [[*prompt, *[tokenizer.mask_id] * size]] * given.rows,
        [[-1] * len(prompt) + [0] * size] * given.rows,
        ("text",),
        tokenizer.mask_id,
        list(range(given.rows)),
    )
    sampler = Sampler(parse("diffusion-gemma"))
    plan, state = sampler.plan(model, canvas), sampler.start(model, canvas)
    for _ in range(2):
        state, _ = sampler.step(model, state, plan)
    with Alive(trunk.width, trunk._embed) as counted:
        sampler.step(model, state, plan)
    logits = given.rows * size * given.vocabulary
    print(f"logits of a step: {logits:,} numbers, {logits * 4 / 2**20:,.0f} MiB in float32")
    print(f"largest tensor with a column for each token: {counted.largest:,} numbers, 1/{logits / counted.largest:.1f}")
    print(f"peak of a step above the model: {counted.peak / 2**20:,.1f} MiB")
    # a step that keeps the logits before holds them beside these and their softmax
    for name, item in (("float32", 4), ("bfloat16", 2)):
        print(f"keeping the logits before, {name}: {logits * item / 2**20:,.0f} MiB for them alone")
    soft = given.rows * size * spec.d_model
    print(f"what is kept of a step: {soft:,} numbers ({spec.d_model} a place)")


if __name__ == "__main__":
    main()

"""Time of one step at a real vocabulary: ours beside the published loops, on the same random weights, in one run.

    python benchmarks/look.py [--threads 2] [--repeats 7] [--batch 1 8] [--tiny] [--json]

*LLaDA's step* (arXiv 2502.09992) and *Fast-dLLM's threshold step* (arXiv 2505.22618, without its cache) are our own
plain statements of what is published: trunk and head over every position, `[B, L, V]` logits, float64 Gumbel noise over
all of them when the temperature is above 0, a float64 softmax over all of them, then the choice of positions. *Ours* is
`Sampler.step` on the Torch backend with the policy that says the same. All use one trunk of ours, so the ratio is about
everything else. *Floor* is the trunk and the head on the rows that must be computed, ours, alone; the *sampler's share*
is what a step of ours takes beyond it. Medians; intervals are 95 % bootstrap intervals of the median ratio over repeats
that alternate the sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from common import add_torch_options, bootstrap, command_line, emit, print_head, timed, torch, waiter

import mdsample
from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer
from mdsample.models.cache import Exact
from mdsample.models.families.trunk import Trunk
from mdsample.testing import Symbols

if TYPE_CHECKING:
    from mdsample_torch.denoiser import TorchDenoiser
    from mdsample_torch.trunk import TorchTrunk
    from torch import Tensor  # noqa: TID251

BLANKS, BLOCK = 128, 32


def model(
    size: int,
    d: int,
    layers: int,
    device: torch.device,
    dtype: torch.dtype,
    tokenizer: Tokenizer | None = None,
    block: int | None = None,
) -> TorchDenoiser:
    """A dense trunk with random weights; `tokenizer` of so many tokens; with a `block`, block-causal with its cache."""
    from mdsample_torch.denoiser import TorchDenoiser
    from mdsample_torch.trunk import TorchTrunk
    from mdsample_torch.weights import from_arrays

    spec = Trunk(
        **{
            "family": "random",
            "vocab_size": size,
            "d_model": d,
            "layers": layers,
            "heads": d // 64,
            "kv_heads": d // 64,
        },
        **{"head_dim": 64, "rotary_dim": 64, "mlp_size": 4 * d, "rope_theta": 10000.0, "norm_eps": 1e-5, "tied": False},
        **{"mask_id": size - 1, "end_id": size - 2, "start_id": None, "max_length": 4096, "layouts": ()},
        block=block,
    )
    rng = np.random.default_rng(0)
    arrays = {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else rng.standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5 * (3 if name == "head" else 1))
        for name, shape in spec.shapes.items()
    }
    weights = from_arrays(spec, arrays, device, dtype)
    cache = None if block is None else Exact()
    return TorchDenoiser("random", TorchTrunk(spec, weights), tokenizer or Symbols(size - 2), "", cache)


def everywhere(trunk: TorchTrunk, tokens: Tensor) -> Tensor:
    """Logits `[B, L, V]`, in the type of the weights."""
    yes = np.ones(tuple(tokens.shape), np.bool_)
    hidden = trunk.hidden(tokens.cpu().numpy().astype(np.int32), yes, yes)
    return (hidden @ trunk._head.t()).view(*tokens.shape, -1)


def noisy(logits: Tensor, temperature: float) -> Tensor:
    """Scores whose argmax is a draw from softmax(logits / temperature): exp(l) / (−ln U)^T."""
    if temperature == 0:
        return logits
    logits = logits.to(torch.float64)
    noise = torch.rand_like(logits, dtype=torch.float64)
    return logits.exp() / (-torch.log(noise)) ** temperature


def candidates(trunk: TorchTrunk, tokens: Tensor, temperature: float, end: int, mask: int) -> tuple[Tensor, Tensor]:
    """What both published steps share: a token for every position, and the confidence in it, −inf where none goes."""
    logits = everywhere(trunk, tokens)
    found = noisy(logits, temperature).argmax(-1)
    law = torch.softmax(logits.to(torch.float64), -1)
    confidence = law.gather(-1, found[..., None])[..., 0]
    blank = tokens == mask
    confidence[:, end:] = -torch.inf  # later blocks wait
    confidence = torch.where(blank, confidence, -torch.inf)
    return torch.where(blank, found, tokens), confidence


def llada_step(trunk: TorchTrunk, tokens: Tensor, temperature: float, end: int, mask: int, count: int) -> Tensor:
    """LLaDA's low-confidence remasking: the `count` most confident blanks of each row, row by row."""
    found, confidence = candidates(trunk, tokens, temperature, end, mask)
    chosen = torch.zeros_like(found, dtype=torch.bool)
    for row in range(len(tokens)):
        _, index = torch.topk(confidence[row], k=count)
        chosen[row, index] = True
    return torch.where(chosen, found, tokens)


def fast_dllm_step(trunk: TorchTrunk, tokens: Tensor, temperature: float, end: int, mask: int) -> Tensor:
    """Fast-dLLM's threshold: every blank with a confidence of 0.9, at least the most confident one of each row."""
    found, confidence = candidates(trunk, tokens, temperature, end, mask)
    chosen = confidence >= 0.9
    chosen |= confidence == confidence.amax(1, keepdim=True)
    return torch.where(chosen & (tokens == mask), found, tokens)


def measure(
    denoiser: TorchDenoiser, name: str, batch: int, length: int, temperature: float, window: int | None, repeats: int
) -> dict[str, object]:
    """One row of the table."""
    from mdsample_torch.prediction import CHUNK_BYTES

    trunk, device, mask = denoiser.trunk, denoiser.trunk.device, denoiser.tokenizer.mask_id
    blanks = min(BLANKS, length // 2)
    first = length - blanks
    end = length if window is None else first + min(window, blanks)
    slots = [-1] * first + [0] * blanks
    rng = np.random.default_rng(1)
    rows = [[*rng.integers(0, 1000, first).tolist(), *[mask] * blanks] for _ in range(batch)]
    canvas = Canvas.of_rows(rows, [slots] * batch, ("text",), mask)
    # LLaDA's schedule with a step per blank; Fast-dLLM's threshold
    part = mdsample.Top(1) if name == "llada" else mdsample.AboveConfidence(0.9)
    policy = mdsample.Confidence() + part + (mdsample.Whole() if window is None else mdsample.Blocks(window))
    policy = policy + mdsample.Temperature(temperature) if temperature else policy
    sampler = mdsample.Sampler(policy)
    plan = sampler.plan(denoiser, canvas)
    state = sampler.start(denoiser, canvas, plan)
    tokens = torch.tensor(rows, device=device)
    wanted = np.zeros((batch, length), np.bool_)
    wanted[:, first:end] = True
    chunk = max(1, CHUNK_BYTES // (4 * trunk.width))
    out = torch.empty((min(chunk, int(wanted.sum())), trunk.width), device=device)

    def published() -> Tensor:
        if name == "llada":
            return llada_step(trunk, tokens, temperature, end, mask, 1)
        return fast_dllm_step(trunk, tokens, temperature, end, mask)

    def floor() -> None:
        hidden = trunk.hidden(canvas.tokens, canvas.valid, wanted)
        for part in torch.split(hidden, chunk):
            trunk.logits(part, out[: len(part)])

    with torch.inference_mode():
        sides = {"ours": lambda: sampler.step(denoiser, state, plan), "published": published, "floor": floor}
        took = timed(sides, repeats, waiter(device))
    ratio = bootstrap(took["published"] / took["ours"], np.median)
    share = 1 - took["floor"] / took["ours"]
    return {
        **{"step": name, "window": "whole" if window is None else window, "batch": batch, "temperature": temperature},
        **{f"{side}_ms": round(1e3 * float(np.median(values)), 2) for side, values in took.items()},
        **{"ratio": round(ratio.value, 2), "low": round(ratio.low, 2), "high": round(ratio.high, 2)},
        "sampler_share": round(float(np.median(share)), 3),
    }


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="rows in a step")
    add_torch_options(parser, device="cpu", dtype="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size, d, layers, length = (2000, 64, 2, 64) if options.tiny else (126_464, 512, 4, 256)
    device = torch.device(options.device)
    denoiser = model(size, d, layers, device, getattr(torch, options.dtype))
    if not options.json:
        print(f"V={size}, d={d}, {layers} layers, L={length}, {options.threads} threads, {options.dtype} on {device}\n")
        print_head(
            ("step", "window", "B", "T", "published, ms", "ours, ms", "ratio", "95 %", "floor, ms", "sampler's share")
        )
    for batch in options.batch:
        for name in ("llada", "fast-dllm"):
            for window in (BLOCK, None):
                for temperature in (0.0, 1.0):
                    row = measure(denoiser, name, batch, length, temperature, window, options.repeats)
                    cells = [row[key] for key in ("step", "window", "batch", "temperature", "published_ms", "ours_ms")]
                    cells += [row["ratio"], f"[{row['low']}, {row['high']}]", row["floor_ms"]]
                    cells.append(f"{100 * float(str(row['sampler_share'])):.1f} %")
                    emit(row, cells, options.json)


if __name__ == "__main__":
    main()

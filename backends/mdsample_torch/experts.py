"""The mixture of experts: who goes where, and one product per expert over the tokens that go there."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mdsample.models.families.trunk import Experts

#: the nonlinearity of a gate; its result is new
Activation = Callable[[Tensor], Tensor]


def gated(x: Tensor, gate_up: Tensor, down: Tensor, gate_by: Activation = F.silu) -> Tensor:
    """A gated middle: `x [T, d]`, `gate_up [2 · size, d]`, `down [d, size]` to `[T, d]`."""
    gate, up = F.linear(x, gate_up).chunk(2, -1)
    return F.linear(gate_by(gate).mul_(up), down)


def route(x: Tensor, router: Tensor, correction: Tensor | None, experts: Experts) -> tuple[Tensor, Tensor]:
    """Which experts every token of `x [T, d]` goes through and with what weight: ids and float32, `[T, chosen]`.

    Scores and choice in float32 (`router [E, d]`, `correction [E]`); the lowest id among equals.
    """
    logits = F.linear(x.float(), router)
    scores = logits.softmax(-1) if experts.score == "softmax" else logits.sigmoid()
    ranked = scores if correction is None else scores + correction
    if experts.chosen_groups < experts.groups:
        grouped = ranked.view(len(x), experts.groups, -1)
        rank = grouped.topk(min(2, grouped.shape[2])).values.sum(-1)
        best = rank.sort(dim=1, descending=True, stable=True).indices[:, : experts.chosen_groups]
        out = torch.ones_like(rank, dtype=torch.bool).scatter_(1, best, False)
        ranked = grouped.masked_fill(out[:, :, None], -torch.inf).view_as(ranked)
    chosen = ranked.sort(dim=1, descending=True, stable=True).indices[:, : experts.chosen]
    weights = scores.gather(1, chosen)
    if experts.normalized:
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-20)
    return chosen, weights * experts.scale


def mix(
    x: Tensor, chosen: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, gate_by: Activation = F.silu
) -> Tensor:
    """The weighted sum of the chosen experts' outputs, `[T, d]`.

    `x [T, d]`; `chosen`, `weights [T, k]`; `gate_up [E, 2 · size, d]`, `down [E, d, size]`. Tokens are sorted
    by expert, so that each expert takes one product.
    """
    tokens, k = chosen.shape
    order = chosen.flatten().sort(stable=True).indices
    counts = _count(chosen.flatten(), len(gate_up))
    product = _all_at_once if _grouped(x, down) else _one_by_one
    parts = product(x[order // k], counts, gate_up, down, gate_by)
    # back in each token's own order, so that the sum does not depend on who else goes where
    back = torch.empty_like(parts)
    back[order] = parts
    return (back.view(tokens, k, -1) * weights[:, :, None]).sum(1).to(x.dtype)


def _count(ids: Tensor, experts: int) -> Tensor:
    # bincount asks the device for the largest id, which waits for it
    return torch.zeros(experts, dtype=torch.int64, device=ids.device).scatter_add_(0, ids, torch.ones_like(ids))


def _grouped(x: Tensor, down: Tensor) -> bool:
    # torch's grouped product wants bfloat16 and rows of a multiple of 16 bytes; it came with torch 2.10
    aligned = down.shape[1] % 8 == 0 and down.shape[2] % 8 == 0
    return x.is_cuda and x.dtype == torch.bfloat16 and aligned and hasattr(F, "grouped_mm")


def _all_at_once(x: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor, gate_by: Activation) -> Tensor:
    """`x [T, d]` sorted by expert, `counts [E]`; the host never waits for the counts."""
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(x, gate_up.transpose(1, 2), offs=ends).chunk(2, -1)
    return F.grouped_mm(gate_by(gate).mul_(up), down.transpose(1, 2), offs=ends)


def _one_by_one(x: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor, gate_by: Activation) -> Tensor:
    """The same, expert by expert."""
    out, start = torch.empty_like(x), 0
    numbers: list[int] = counts.tolist()  # pyright: ignore
    for expert, count in enumerate(numbers):
        if count:
            out[start : start + count] = gated(x[start : start + count], gate_up[expert], down[expert], gate_by)
        start += count
    return out

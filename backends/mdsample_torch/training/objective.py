"""The masked-diffusion objective on the slots of a template.

For each row a level t is drawn from (0, 1) and every position of its slots is masked with probability t; the loss is
Σ cross-entropy / (t · slot positions), averaged over rows (LLaDA, arXiv 2502.09992, algorithm 2): a bound on −log p of
the slots, in nats a token. What a text leaves of its slot is trained as end tokens. Levels are stratified over a batch,
which makes the loss less noisy and changes no expectation.

With a block-causal trunk one block of a row is masked at a time, with clean blocks before it, as these are trained.
The balancing loss that some mixtures of experts are trained with is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mdsample.jobs.examples import Example
from mdsample.models.families.trunk import Trunk

#: the least level of masking; below it a row would teach nothing, with an enormous weight
LEAST = 1e-3


def collate(rows: Sequence[Example]) -> dict[str, Tensor]:
    """`tokens`, `slot` and `valid`, `[B, L]`, padded at the end."""
    length = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    slot = torch.full((len(rows), length), -1)
    valid = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        slot[i, : len(row.slot)] = torch.tensor(row.slot)
        valid[i, : len(row.tokens)] = True
    return {"tokens": tokens, "slot": slot, "valid": valid}


def corrupt(slot: Tensor, block: int | None) -> tuple[Tensor, Tensor]:
    """Which positions are masked, `[B, L]` bool, and what the cross-entropy of one of a row's weighs, `[B]`.

    `slot [B, L]`: −1 outside of slots. The weighted sum of a row is an unbiased estimate of the bound, a token.
    """
    rows = len(slot)
    level = (torch.randperm(rows) + torch.rand(rows)) / rows
    level = (LEAST + (1 - LEAST) * level).to(slot.device)
    trained = slot >= 0
    weight = 1 / (level * trained.sum(1).clamp(min=1))
    if block is not None:
        number = torch.arange(slot.shape[1], device=slot.device) // block
        by_block = F.one_hot(number).T.bool()[None] & trained[:, None]  # [B, blocks, L]
        candidates = by_block.any(2)
        chosen = torch.multinomial(candidates.float(), 1).squeeze(1)
        trained = trained & (number == chosen[:, None])
        weight = weight * candidates.sum(1)
    hidden = trained & (torch.rand(slot.shape, device=slot.device) < level[:, None])
    return hidden, weight


def loss_and_logits(
    model: Callable[[Tensor, Tensor, Tensor], Tensor], batch: Mapping[str, Tensor], trunk: Trunk
) -> tuple[Tensor, Tensor]:
    """The loss of a batch as `collate` makes it, nats a token, a scalar; the logits of its masked positions `[N, V]`.

    `model` takes tokens, validity and the places whose logits are wanted, all `[B, L]`.
    """
    tokens, slot, valid = batch["tokens"], batch["slot"], batch["valid"]
    hidden, weight = corrupt(slot, trunk.block)
    logits = model(tokens.masked_fill(hidden, trunk.mask_id), valid, hidden)
    row = hidden.nonzero(as_tuple=True)[0]
    loss = (F.cross_entropy(logits.float(), tokens[hidden], reduction="none") * weight[row]).sum() / len(tokens)
    return loss, logits

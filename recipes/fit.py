"""The training loop that the embedded models share: Muon for matrices, averaged weights, checkpoints, a log.

The loss is the mean cross-entropy over the positions that are asked for. LLaDA's 1/t weight has the same optimum under
masks and learns far more slowly at these budgets. A self-conditioned trunk is shown its own prediction in every other
step, as a first pass without gradients makes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from mdsample.core.files import mode
from recipes.llada import Transformer, config

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """How long to train, and how."""

    #: folder of checkpoint, log and finished model; training resumes from `out/checkpoint.pt`
    out: Path
    steps: int
    #: learning rate
    peak: float
    #: steps between checkpoints
    every: int = 200


@dataclass(frozen=True)
class Rows:
    """What the trunk learns from in one step, `[B, L]`."""

    clean: Tensor
    #: the tokens as the trunk sees them: noise in some places
    shown: Tensor
    #: where it is to say what the clean token is
    asked: Tensor


def masked(clean: Tensor, hidden: Tensor, mask_id: int) -> Rows:
    """Rows with a mask wherever `hidden`, which is all that is asked for."""
    return Rows(clean, clean.masked_fill(hidden, mask_id), hidden)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over 100 steps, then constant, then a linear fall to zero over the last 35 %."""
    fall = int(0.65 * steps)
    return peak * min(1.0, step / 100, max(0.0, (steps - step) / (steps - fall)))


def inner(name: str) -> bool:
    """Whether a parameter stands between embedding and head."""
    return name.startswith(("blocks.", "conditioning."))


def fit(
    plan: Plan,
    model: Transformer,
    batches: Callable[[int], Iterator[Rows]],
    export: Callable[[Weights], None],
    start: Path | None = None,
) -> None:
    """Trains `model` and hands the averaged weights to `export` at every checkpoint.

    `batches(step)` begins the stream at a step; `start` names exported weights to begin with, of a trunk that is not
    self-conditioned too.
    """
    for block in model.blocks:
        block.compile(dynamic=True)  # fuses what stands between the matmuls: 1.35 times faster on two cores
    average = {k: v.clone() for k, v in model.state_dict().items()}
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and inner(n)]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and inner(n))]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=0.0, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    step, spent = 0, 0.0
    if start is not None:
        begun = {k.removeprefix("model.transformer."): v for k, v in load_file(start).items()}
        model.load_state_dict(model.state_dict() | begun)
        average = {k: v.clone() for k, v in model.state_dict().items()}
    checkpoint = plan.out / "checkpoint.pt"
    if mode(checkpoint):
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average = saved["average"]
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, spent = saved["step"], saved["spent"]

    stream = batches(step)
    began, losses = time.time(), list[float]()
    while step < plan.steps:
        rows = next(stream)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step + 1, plan.steps, plan.peak)
        signal = None
        with torch.autocast(rows.clean.device.type, torch.bfloat16):
            if model.conditioning is not None and step % 2:
                with torch.no_grad():
                    signal = model.soft(rows.shown, rows.asked, model(rows.shown, rows.asked))
            logits = model(rows.shown, rows.asked, signal)
        loss = F.cross_entropy(logits.float(), rows.clean[rows.asked])
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        keep = min(0.998, 1 - 10 / (step + 10))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        losses.append(loss.item())
        if step % 50 == 0:
            record = {"step": step, "loss": round(float(np.mean(losses[-50:])), 4)}
            record["seconds"] = round(spent + time.time() - began)
            with (plan.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            print(record, flush=True)
        if step % plan.every == 0 or step == plan.steps:
            state = {
                "model": model.state_dict(),
                "average": average,
                "optimizers": [o.state_dict() for o in optimizers],
                "step": step,
                "spent": spent + time.time() - began,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            export(average)


def write_model(
    folder: Path, model: Transformer, weights: Weights, tokenizer: Tokenizer, special: tuple[str, str, str], card: str
) -> None:
    """Writes a model folder in LLaDA's layout; `special` are the texts of start, end and mask."""
    folder.mkdir(exist_ok=True)
    tensors = {f"model.transformer.{k}": v.to(torch.bfloat16).contiguous() for k, v in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    start, end, mask = (tokenizer.token_to_id(token) for token in special)
    (folder / "config.json").write_text(json.dumps(config(model.size, start, end, mask), indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "mdsample.toml").write_text(card)

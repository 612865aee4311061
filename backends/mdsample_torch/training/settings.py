"""Settings and report of a training."""

from __future__ import annotations

from pathlib import Path

import attrs

from mdsample.policy.settings import integer, real


@attrs.frozen(kw_only=True)
class Settings:
    """How to train."""

    name = "finetune"
    #: rank of the low-rank adapters on every matrix of attention and dense middle; `None`: all weights are trained
    lora: int | None = integer(default=None, at_least=1, optional=True)
    epochs: float = real(default=3.0, above=0)
    #: rows in a step, on each device
    batch_size: int = integer(default=16, at_least=1)
    #: steps whose gradients are added up
    accumulate: int = integer(default=1, at_least=1)
    #: AdamW's highest rate; it rises over the first 5 % of the steps, then falls to 0 as a cosine
    learning_rate: float = real(default=1e-4, above=0)
    #: whether products are computed in bfloat16, and the frozen weights under adapters kept in it
    bfloat16: bool = False
    #: whether activations are computed twice instead of being kept
    save_memory: bool = False
    #: steps between checkpoints
    save_every: int = integer(default=200, at_least=1)
    seed: int = 0


@attrs.frozen
class Report:
    """What came out."""

    folder: Path
    steps: int
    #: mean loss over the first and the last tenth of the steps, nats a token
    first_loss: float
    last_loss: float
    #: weights that were trained, and all
    trained: int
    parameters: int
    seconds: float

    def record(self) -> dict[str, object]:
        """A flat JSON object."""
        return {**attrs.asdict(self), "folder": str(self.folder)}

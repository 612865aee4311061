"""What self-conditioning adds to embeddings in Torch; see `mdsample.backend.conditioning`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mdsample.backend.conditioning import Signals
from mdsample_torch.experts import Activation, gated


def added(
    x: Tensor, joined: Signals[Tensor], tensors: Mapping[str, Tensor], eps: float, gate_by: Activation = F.silu
) -> Tensor:
    """What is added to the embeddings `x [T, d]`; `tensors`, `eps`: of the trunk, for the middle and its norm."""
    signal = torch.zeros_like(x)
    signal[joined.certain] = x[joined.certain]
    for kept, tokens, places in joined.recalled:
        signal[tokens] = kept.soft[places]
    h = F.rms_norm(signal, signal.shape[-1:], tensors["conditioning_norm"], eps)
    return gated(h, tensors["conditioning.gate_up"], tensors["conditioning.down"], gate_by)

"""What self-conditioning adds to embeddings in MLX; see `mdsample.backend.conditioning`."""

from __future__ import annotations

import mlx.core as mx

from mdsample.backend.conditioning import Signals
from mdsample_mlx.experts import Activation, gated, silu
from mdsample_mlx.weights import Weights


def added(x: mx.array, joined: Signals[mx.array], weights: Weights, eps: float, gate_by: Activation = silu) -> mx.array:
    """What is added to the embeddings `x [T, d]`; `weights`, `eps`: of the trunk, for the middle and its norm."""
    signal = mx.zeros_like(x)
    if len(joined.certain):
        signal[joined.certain] = x[joined.certain]
    for kept, tokens, places in joined.recalled:
        signal[tokens] = kept.soft[places]
    h = mx.fast.rms_norm(signal, weights.vectors["conditioning_norm"], eps)
    return gated(h, *(weights.matrices[f"conditioning.{part}"] for part in ("gate", "up", "down")), gate_by=gate_by)

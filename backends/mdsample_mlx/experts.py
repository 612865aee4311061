"""The mixture of experts: who goes where, and one product per expert over the tokens that go there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mlx.core as mx

from mdsample.models.families.trunk import Experts
from mdsample_mlx.matrix import Matrix

#: the nonlinearity of a gate
Activation = Callable[[mx.array], mx.array]


def silu(x: mx.array) -> mx.array:
    """x · sigmoid(x)."""
    return x * mx.sigmoid(x)


def gated(x: mx.array, gate: Matrix, up: Matrix, down: Matrix, gate_by: Activation = silu) -> mx.array:
    """A gated middle: `x [T, d]` to `[T, d]`."""
    return down(gate_by(gate(x)) * up(x))


def route(x: mx.array, router: Matrix, correction: mx.array | None, experts: Experts) -> tuple[mx.array, mx.array]:
    """Which experts every token of `x [T, d]` goes through and with what weight: ids and float32, `[T, chosen]`.

    Scores and choice in float32; the lowest id among equals.
    """
    logits = router(x.astype(mx.float32))
    scores = mx.softmax(logits, axis=-1) if experts.score == "softmax" else mx.sigmoid(logits)
    ranked = scores if correction is None else scores + correction
    if experts.chosen_groups < experts.groups:
        grouped = mx.reshape(ranked, (len(x), experts.groups, -1))
        rank = mx.sort(grouped, axis=-1)[:, :, -2:].sum(-1)
        best = _best(rank, experts.chosen_groups)
        open_ = (mx.arange(experts.groups)[None, :, None] == best[:, None, :]).any(-1)
        ranked = mx.where(open_[:, :, None], grouped, -mx.inf).flatten(1)
    chosen = _best(ranked, experts.chosen)
    weights = mx.take_along_axis(scores, chosen, axis=1)
    if experts.normalized:
        weights = weights / mx.maximum(weights.sum(1, keepdims=True), 1e-20)
    return chosen, weights * experts.scale


def mix(
    x: mx.array, chosen: mx.array, weights: mx.array, layer: Mapping[str, Matrix], gate_by: Activation = silu
) -> mx.array:
    """The weighted sum of the chosen experts' outputs, `[T, d]`.

    `x [T, d]`; `chosen`, `weights [T, k]`; `layer`: the experts' gate and up, or both in one, and down. Tokens are
    sorted by expert, so that each expert takes one product.
    """
    tokens, k = chosen.shape
    flat = chosen.flatten()
    order = mx.argsort(flat).astype(mx.int32)
    ids, inputs = flat[order], x[order // k][:, None]
    if "experts.gate_up" in layer:
        gate, up = mx.split(layer["experts.gate_up"].chosen(inputs, ids), 2, axis=-1)
    else:
        gate, up = (layer[f"experts.{part}"].chosen(inputs, ids) for part in ("gate", "up"))
    parts = layer["experts.down"].chosen(gate_by(gate) * up, ids)[:, 0]
    # back in each token's own order, so that the sum does not depend on who else goes where
    back = mx.argsort(order).astype(mx.int32)
    return (mx.unflatten(parts[back], 0, (tokens, k)) * weights[:, :, None]).sum(1).astype(x.dtype)


def _best(scores: mx.array, count: int) -> mx.array:
    """The `count` highest of each row, highest first, int32."""
    return mx.argsort(-scores, axis=1)[:, :count].astype(mx.int32)

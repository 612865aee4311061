"""The layers of Gemma 4 in MLX, and what a block's tokens are joined by; see `mdsample.models.families.gemma`."""

from __future__ import annotations

from typing import final

import mlx.core as mx

from mdsample.backend.conditioning import Signals
from mdsample.backend.places import PackedBatch
from mdsample.core.arrays import arange64
from mdsample.models.families.trunk import Trunk
from mdsample_mlx.attention import attend, pad_queries, placed, rotate
from mdsample_mlx.conditioning import added
from mdsample_mlx.device import upload
from mdsample_mlx.experts import gated, mix, route
from mdsample_mlx.kv_cache import Buffers
from mdsample_mlx.weights import Weights


@final
class GemmaLayers:
    """The layers of a trunk with `gemma`, from embedding to last norm."""

    def __init__(self, spec: Trunk, weights: Weights) -> None:
        """`weights`: as `mdsample_mlx.weights` makes them."""
        assert spec.gemma is not None and spec.experts is not None
        self._spec, self._gemma, self._experts = spec, spec.gemma, spec.experts
        self._weights, self._matrices, self._vectors = weights, weights.matrices, weights.vectors
        positions = arange64(spec.max_length)
        turns = {True: spec.turns(positions), False: self._gemma.turns(positions)}
        self._turns = {short: tuple(map(upload, turn)) for short, turn in turns.items()}
        self._type = self._vectors["norm"].dtype
        # as published, rounded to the type of the embedding
        self._enlarged = mx.array(spec.d_model**0.5, self._type)

    def soft(self, probabilities: mx.array) -> mx.array:
        """The mean embedding `[n, d]` of tokens with these probabilities, `[n, width]` float32."""
        return self._matrices["embed"].mean(probabilities.astype(self._type)).astype(self._type) * self._enlarged

    def run(self, at: PackedBatch[mx.array], joined: Signals[mx.array], stores: Buffers | None) -> mx.array:
        """States `[N, d]` after the last norm; `stores` are replaced, as by `MlxTrunk`'s own layers."""
        x = self._matrices["embed"].take(at.tokens).astype(self._type) * self._enlarged
        inside = mx.zeros((len(x), 1), mx.bool_)
        inside[joined.inside] = True
        x = mx.where(inside, self._joined(x, joined), x)
        for number in range(self._spec.layers):
            x, kept = self._layer(number, x, inside, at, None if stores is None else stores[number])
            if stores is not None:
                stores[number] = kept
        return self._norm(x, self._vectors["norm"])

    def _joined(self, x: mx.array, joined: Signals[mx.array]) -> mx.array:
        """Embeddings `x [T, d]` and what each is joined by."""
        return self._norm(x + added(x, joined, self._weights, self._spec.norm_eps, gelu))

    def _layer(
        self,
        number: int,
        x: mx.array,
        inside: mx.array,
        at: PackedBatch[mx.array],
        store: tuple[mx.array, mx.array] | None,
    ) -> tuple[mx.array, tuple[mx.array, mx.array]]:
        """One layer over `x [T, d]`, the last one of `[N, d]` states that are asked for; and all keys and values."""
        short, (kv, size) = self._gemma.near[number], self._spec.heads_of(number)
        asking = at.last if number == self._spec.layers - 1 else at.every
        cos, sin = (turn[at.positions] for turn in self._turns[short])
        start = f"layers.{number}."

        def heads(part: str, h: mx.array, count: int) -> mx.array:
            return mx.unflatten(self._matrices[start + part](h), 1, (count, size))

        h = self._norm(x, self._vectors[f"{start}attention_norm"])
        keys = heads("k", h, kv)
        # layers that see everything have one matrix for both
        values = self._norm(heads("v", h, kv) if short else keys)
        keys = rotate(self._norm(keys, self._vectors[f"{start}k_norm"]), cos, sin)
        keys, values = kept = placed(keys, values, at.shape, at.cells, store)
        if asking.select is not None:
            x, h, cos, sin = x[asking.select], h[asking.select], cos[asking.select], sin[asking.select]
            inside = inside[asking.select]
        q = rotate(self._norm(heads("q", h, self._spec.heads), self._vectors[f"{start}q_norm"]), cos, sin)
        mask = asking.near if short else asking.mask
        mixed = attend(pad_queries(q, asking), keys, values, mask, scale=1.0).flatten(0, 1)
        out = self._matrices[f"{start}o"](mixed if asking.unpad_index is None else mixed[asking.unpad_index])
        x = x + self._norm(out, self._vectors[f"{start}attention_out_norm"])
        x = x + self._norm(self._middle(start, x), self._vectors[f"{start}mlp_out_norm"])
        scalars = (self._vectors[f"{start}{name}"] for name in ("scalar", "context_scalar"))
        return x * mx.where(inside, *scalars), kept

    def _middle(self, start: str, x: mx.array) -> mx.array:
        """The dense middle and the experts of `x [T, d]`, side by side."""
        vectors = {name.removeprefix(start): vector for name, vector in self._vectors.items() if name.startswith(start)}
        matrices = {name.removeprefix(start): m for name, m in self._matrices.items() if name.startswith(start)}
        h = self._norm(x, vectors["mlp_norm"])
        dense = gated(h, matrices["gate"], matrices["up"], matrices["down"], gate_by=gelu)
        routed = self._norm(x) * vectors["router_scale"] * self._spec.d_model**-0.5
        chosen, weights = route(routed, matrices["router"], None, self._experts)
        weights = weights * vectors["expert_scale"][chosen]
        out = mix(self._norm(x, vectors["experts_norm"]), chosen, weights, matrices, gate_by=gelu)
        return self._norm(dense, vectors["dense_out_norm"]) + self._norm(out, vectors["experts_out_norm"])

    def _norm(self, x: mx.array, weight: mx.array | None = None) -> mx.array:
        return mx.fast.rms_norm(x, weight, self._spec.norm_eps)


def gelu(x: mx.array) -> mx.array:
    """GELU by tanh."""
    return 0.5 * x * (1 + mx.tanh((2 / mx.pi) ** 0.5 * (x + 0.044715 * x * x * x)))

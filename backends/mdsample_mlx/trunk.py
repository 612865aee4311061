"""The forward pass of a `Trunk` in MLX: dense and with experts, full and block-causal.

Only what Apple's GPUs can do is used; no float64. Norms, rotary embeddings and routers compute in float32, matrices in
their own type. Arrays are lazy: nothing is computed before a result is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mdsample.backend.conditioning import Signals, signals
from mdsample.backend.places import PackedBatch, QueryLayout, bucketed, packed
from mdsample.backend.refusals import refuse_ask
from mdsample.backend.views import Views, hidden_positions, views
from mdsample.core.arrays import Bools, Ints, arange64
from mdsample.core.rows import Rows
from mdsample.models.cache import Cache
from mdsample.models.denoiser import Memory
from mdsample.models.families.trunk import Trunk
from mdsample_mlx.attention import attend, pad_queries, placed, rotate
from mdsample_mlx.conditioning import added
from mdsample_mlx.device import upload, upload_indices
from mdsample_mlx.experts import gated, mix, route
from mdsample_mlx.gemma import GemmaLayers
from mdsample_mlx.kv_cache import Buffers, KVCache
from mdsample_mlx.weights import Weights

T = TypeVar("T")
#: `MlxTrunk._backbone`
_Pass = Callable[..., tuple[mx.array, mx.array, mx.array, Buffers]]


@final
class MlxTrunk:
    """A trunk with its weights."""

    def __init__(self, spec: Trunk, weights: Weights, compile: bool = False) -> None:
        """`weights`: as `mdsample_mlx.weights` makes them.

        `compile`: passes are traced once for each of a few shapes and fused where they can be; all but the last layer,
        whose queries are other in every look.
        """
        self.spec, self._weights = spec, weights
        self._pack = bucketed if compile else packed
        self._pass: _Pass = mx.compile(self._backbone) if compile else self._backbone
        matrices, vectors = weights.matrices, weights.vectors
        self._embed, self._norm = matrices["embed"], vectors["norm"]
        self._head = self._embed if spec.tied else matrices["head"]
        self._gemma = None if spec.gemma is None else GemmaLayers(spec, weights)
        self._matrices = [_of_layer(matrices, number) for number in range(spec.layers)]
        self._vectors = [_of_layer(vectors, number) for number in range(spec.layers)]
        self._cos, self._sin = (upload(turn) for turn in spec.turns(arange64(spec.max_length)))

    @property
    def dtype(self) -> mx.Dtype:
        """Type of its hidden states."""
        return self._norm.dtype

    @property
    def width(self) -> int:
        """Columns of `logits`: the vocabulary, padded to a multiple of `weights.BLOCK`."""
        return self._head.rows

    def kv_cache(self, cache: Cache) -> KVCache:
        """Room for what is kept from pass to pass; `CacheError` if the cache does not suit the trunk."""
        return KVCache(cache, self.spec)

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits of `hidden [n, d]`, float32 `[n, width]`; what is beyond the vocabulary is 0."""
        logits = self._head(hidden).astype(mx.float32)
        if self.spec.gemma is None:
            return logits
        return mx.tanh(logits / self.spec.gemma.softcap) * self.spec.gemma.softcap

    def soft(self, probabilities: mx.array) -> mx.array:
        """Soft embeddings `[n, d]` of tokens with these `probabilities [n, width]`; only if it is self-conditioned."""
        if self._gemma is not None:
            return self._gemma.soft(probabilities)
        return self._embed.mean(probabilities.astype(self.dtype)).astype(self.dtype)

    def hidden(
        self,
        tokens: Ints,
        valid: Bools,
        wanted: Bools,
        cache: KVCache | None = None,
        rows: Rows | None = None,
        opened: Bools | None = None,
        memory: Sequence[Memory | None] = (),
    ) -> mx.array:
        """Hidden states `[N, d]` after the last norm, of the N places where `wanted [B, L]`, row by row; lazy.

        `tokens [B, L]` int32, `valid [B, L]` false in padding, `opened` as for `views`, `memory` as in `Query`. With a
        `cache`, which needs to know the `rows`, only what it lacks is computed. Raises `ValueError` if a place in
        padding is wanted, a row is longer than the model's `max_length`, or a token id does not exist: MLX itself would
        read whatever lies there.
        """
        refuse_ask(self.spec, tokens, valid, wanted)
        seen = views(self.spec, tokens, valid, wanted, opened)
        if not len(seen.row):
            return mx.zeros((0, self.spec.d_model), self.dtype)
        opened = wanted if opened is None else opened
        if cache is None or rows is None:
            joined = self._signals(seen, seen.valid, opened, memory)
            return self._run(_moved(self._pack(self.spec, seen, seen.valid)), None, joined)
        asked = np.zeros_like(seen.wanted)
        asked[hidden_positions(self.spec, seen)] = True
        plan = cache.plan(rows, seen, asked)
        at = _moved(self._pack(self.spec, seen, plan.active))
        stores = cache.buffers(plan, at.shape, self.dtype)
        hidden = self._run(at, stores, self._signals(seen, plan.active, opened, memory))
        cache.commit(plan, stores)
        return hidden

    def _signals(
        self, seen: Views, active: Bools, opened: Bools, memory: Sequence[Memory | None]
    ) -> Signals[mx.array] | None:
        """What a self-conditioned trunk's tokens are joined by; `None`: it is not."""
        return signals(seen, active, opened, memory).map(upload_indices) if self.spec.conditioned else None

    def _run(self, at: PackedBatch[mx.array], stores: Buffers | None, joined: Signals[mx.array] | None) -> mx.array:
        """Hidden states of the last layer; `stores` are replaced."""
        if self._gemma is not None and joined is not None:
            return self._gemma.run(at, joined, stores)
        every = at.every
        before = None if stores is None else stores[:-1]
        x = self._embed.take(at.tokens).astype(self.dtype)
        if joined is not None:
            x = x + added(x, joined, self._weights, self.spec.norm_eps)
        x, cos, sin, after = self._pass(
            x, at.positions, at.shape, at.cells, (every.pad_index, every.unpad_index, every.mask), before
        )
        last = None if stores is None else stores[-1]
        # the last layer is computed at wanted positions only; elsewhere it needs keys and values alone
        x, kept = self._layer(self.spec.layers - 1, x, cos, sin, at.shape, at.cells, at.last, last)
        if stores is not None:
            stores[:] = [*after, kept]
        return self._rms_norm(x, self._norm)

    def _backbone(
        self,
        x: mx.array,
        positions: mx.array,
        shape: tuple[int, int],
        where: mx.array | None,
        every: tuple[mx.array | None, mx.array | None, mx.array | None],
        stores: Buffers | None,
    ) -> tuple[mx.array, mx.array, mx.array, Buffers]:
        """Hidden states before the last layer, every token's cosines and sines, new stores; as in `PackedBatch`.

        `x [T, d]`: the embeddings.
        """
        pad_index, unpad_index, mask = every
        asking = QueryLayout(pad_index, unpad_index, None, shape[0], mask)
        cos, sin = self._cos[positions], self._sin[positions]
        after: Buffers = []
        for number in range(self.spec.layers - 1):
            store = None if stores is None else stores[number]
            x, kept = self._layer(number, x, cos, sin, shape, where, asking, store)
            after += [] if stores is None else [kept]
        return x, cos, sin, after

    def _layer(
        self,
        number: int,
        x: mx.array,
        cos: mx.array,
        sin: mx.array,
        shape: tuple[int, int],
        where: mx.array | None,
        asking: QueryLayout[mx.array],
        store: tuple[mx.array, mx.array] | None,
    ) -> tuple[mx.array, tuple[mx.array, mx.array]]:
        """One layer over `x [T, d]`: new hidden states of the tokens that ask, `[N, d]`, and all keys and values."""
        matrices, vectors = self._matrices[number], self._vectors[number]
        h = self._rms_norm(x, vectors["attention_norm"])

        def heads(part: str, h: mx.array, count: int) -> mx.array:
            projected = matrices[part](h)
            if self.spec.qkv_bias:
                projected = projected + vectors[f"{part}_bias"]
            projected = mx.unflatten(projected, 1, (count, self.spec.head_dim))
            if self.spec.head_norm and part != "v":
                projected = self._rms_norm(projected, vectors[f"{part}_norm"])
            return projected

        keys = rotate(heads("k", h, self.spec.kv_heads), cos[:, :1], sin[:, :1])
        keys, values = kept = placed(keys, heads("v", h, self.spec.kv_heads), shape, where, store)
        if asking.select is not None:
            x, h, cos, sin = x[asking.select], h[asking.select], cos[asking.select], sin[asking.select]
        queries = pad_queries(rotate(heads("q", h, self.spec.heads), cos[:, -1:], sin[:, -1:]), asking)
        mixed = attend(queries, keys, values, asking.mask).flatten(0, 1)
        x = x + matrices["o"](mixed if asking.unpad_index is None else mixed[asking.unpad_index])
        return x + self._mlp(number, self._rms_norm(x, vectors["mlp_norm"])), kept

    def _mlp(self, number: int, h: mx.array) -> mx.array:
        """The SwiGLU MLP, or the experts, of `h [T, d]`."""
        layer, experts = self._matrices[number], self.spec.experts
        if experts is None or not self.spec.sparse(number):
            return gated(h, layer["gate"], layer["up"], layer["down"])
        chosen, weights = route(h, layer["router"], self._vectors[number].get("router_correction"), experts)
        out = mix(h, chosen, weights, layer)
        if experts.shared_size:
            out = out + gated(h, layer["shared.gate"], layer["shared.up"], layer["shared.down"])
        return out

    def _rms_norm(self, x: mx.array, weight: mx.array) -> mx.array:
        # MLX computes the mean square in float32, whatever the type of x
        return mx.fast.rms_norm(x, weight, self.spec.norm_eps)


def _moved(at: PackedBatch[NDArray[Any]]) -> PackedBatch[mx.array]:
    return at.map(upload_indices)


def _of_layer(named: Mapping[str, T], number: int) -> dict[str, T]:
    start = f"layers.{number}."
    return {name.removeprefix(start): value for name, value in named.items() if name.startswith(start)}

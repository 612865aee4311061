"""The forward pass of a `Trunk` in Torch: dense and with experts, full and block-causal, on any device.

Rows are padded to `[B, L]`. Norms, rotary embeddings and routers compute in float32, matrices in their own type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mdsample.backend.conditioning import Signals, signals
from mdsample.backend.places import PackedBatch, QueryLayout, bucketed, packed
from mdsample.backend.refusals import refuse_ask
from mdsample.backend.views import Views, hidden_positions, views
from mdsample.core.arrays import Bools, Ints, arange64
from mdsample.core.rows import Rows
from mdsample.models.cache import Cache
from mdsample.models.denoiser import Memory
from mdsample.models.families.trunk import Trunk
from mdsample_torch.attention import attend, pad_queries, placed, rotate, stacked
from mdsample_torch.compiled import Compiled
from mdsample_torch.conditioning import added
from mdsample_torch.device import upload
from mdsample_torch.experts import gated, mix, route
from mdsample_torch.gemma import GemmaLayers
from mdsample_torch.kv_cache import KVCache
from mdsample_torch.recorded import Recorder, Stores, record_cuda

# the matrix product that gives float32 from bfloat16, by torch's own name for it; only CUDA has it
_WIDENS = "dtype_out" in torch.ops.aten.mm.overloads()
#: lines of the head that are multiplied at once for few places: their logits stay in cache until they are turned
_PIECE = 2048


def _few(hidden: Tensor, head: Tensor) -> bool:
    """Whether few places meet a head that a CPU's cache does not hold."""
    return not hidden.is_cuda and 1 < len(hidden) <= 48 and head.numel() >= 1 << 24


def _for_few(hidden: Tensor, head: Tensor, out: Tensor) -> None:
    """`hidden · headᵀ` into `out`, a piece of the head at a time: as tall products they take less time."""
    columns = hidden.t()
    room = torch.empty((_PIECE, len(hidden)), dtype=hidden.dtype)
    for first in range(0, len(head), _PIECE):
        piece = head[first : first + _PIECE]
        made = torch.mm(piece, columns, out=room[: len(piece)])
        out[:, first : first + len(piece)].copy_(made.t())


@final
class TorchTrunk:
    """A trunk with its weights on a device."""

    def __init__(self, spec: Trunk, tensors: Mapping[str, Tensor], compile: bool = False) -> None:
        """`tensors`: as `mdsample_torch.weights` makes them; `compile`: see `compiled` and, on CUDA, `recorded`."""
        self.spec = spec
        self._compiled = Compiled(self._layer) if compile else None
        self._embed, self._norm = tensors["embed"], tensors["norm"]
        self._head = self._embed if spec.tied else tensors["head"]
        self._gemma = None if spec.gemma is None else GemmaLayers(spec, tensors)
        self._conditioning = {name: tensor for name, tensor in tensors.items() if name.startswith("conditioning")}
        self._layers = [
            {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
            for start in (f"layers.{i}." for i in range(spec.layers))
        ]
        # experts wait for the GPU to say who goes where, which cannot be recorded; nor can what a pass recalls
        recorded = compile and self.device.type == "cuda" and spec.experts is None and not spec.conditioned
        self._recorder = Recorder(self._backbone, record_cuda) if recorded else None
        turns = spec.turns(arange64(spec.max_length))
        self._cos, self._sin = (upload(turn, self.device) for turn in turns)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._embed.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of its matrices."""
        return self._embed.dtype

    @property
    def width(self) -> int:
        """Columns of `logits`: the vocabulary, padded to a multiple of `weights.BLOCK`."""
        return len(self._head)

    def kv_cache(self, cache: Cache) -> KVCache:
        """Room for what is kept from pass to pass; `CacheError` if the cache does not suit the trunk."""
        return KVCache(cache, self.spec)

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Writes the logits of `hidden [n, d]` to `out [n, width]`, float32; what is beyond the vocabulary is 0."""
        if hidden.dtype == torch.float32:
            if _few(hidden, self._head):
                _for_few(hidden, self._head, out)
            else:
                torch.mm(hidden, self._head.t(), out=out)
        elif hidden.is_cuda and _WIDENS:
            # rounded to bfloat16, a logit of 20 is off by up to 0.06 and neighbours are equal
            torch.mm(hidden, self._head.t(), out_dtype=torch.float32, out=out)  # pyright: ignore[reportCallIssue]
        else:
            out.copy_(hidden @ self._head.t())
        if self.spec.gemma is not None:
            out.div_(self.spec.gemma.softcap).tanh_().mul_(self.spec.gemma.softcap)

    def soft(self, probabilities: Tensor) -> Tensor:
        """Soft embeddings `[n, d]` of tokens with these `probabilities [n, width]`; only if it is self-conditioned."""
        if self._gemma is not None:
            return self._gemma.soft(probabilities)
        return probabilities.to(self._embed.dtype) @ self._embed

    def hidden(
        self,
        tokens: Ints,
        valid: Bools,
        wanted: Bools,
        cache: KVCache | None = None,
        rows: Rows | None = None,
        opened: Bools | None = None,
        memory: Sequence[Memory | None] = (),
    ) -> Tensor:
        """Hidden states `[N, d]` after the last norm, of the N places where `wanted [B, L]`, row by row, on the device.

        `tokens [B, L]` int32, `valid [B, L]` false in padding, `opened` as for `views`, `memory` as in `Query`. With a
        `cache`, which needs to know the `rows`, only what it lacks is computed. Raises `ValueError` if a place in
        padding is wanted, a row is longer than the model's `max_length`, or a token id does not exist.
        """
        refuse_ask(self.spec, tokens, valid, wanted)
        seen = views(self.spec, tokens, valid, wanted, opened)
        if not len(seen.row):
            return torch.zeros((0, self.spec.d_model), dtype=self.dtype, device=self.device)
        layout = packed if self._compiled is None else bucketed
        opened = wanted if opened is None else opened
        if cache is None or rows is None:
            at = self._moved(layout(self.spec, seen, seen.valid))
            return self._run(at, None, self._signals(seen, seen.valid, opened, memory))
        asked = np.zeros_like(seen.wanted)
        asked[hidden_positions(self.spec, seen)] = True
        plan = cache.plan(rows, seen, asked)
        at = self._moved(layout(self.spec, seen, plan.active))
        joined = self._signals(seen, plan.active, opened, memory)
        hidden = self._run(at, cache.buffers(plan, at.shape, self.dtype, self.device), joined)
        cache.commit(plan)
        return hidden

    def _moved(self, at: PackedBatch[NDArray[Any]]) -> PackedBatch[Tensor]:
        """On the device, with masks as `attend` takes them."""
        moved, spec = at.map(lambda array: upload(array, self.device)), self.spec
        whole, near = spec.heads // spec.heads_of(spec.layers - 1)[0], spec.heads // spec.kv_heads
        every, last = (
            attrs.evolve(asking, mask=stacked(asking.mask, whole), near=stacked(asking.near, near))
            for asking in (moved.every, moved.last)
        )
        return attrs.evolve(moved, every=every, last=last)

    def _signals(
        self, seen: Views, active: Bools, opened: Bools, memory: Sequence[Memory | None]
    ) -> Signals[Tensor] | None:
        """What a self-conditioned trunk's tokens are joined by, on the device; `None`: it is not."""
        if not self.spec.conditioned:
            return None
        return signals(seen, active, opened, memory).map(lambda array: upload(array, self.device))

    def _run(self, at: PackedBatch[Tensor], stores: Stores, joined: Signals[Tensor] | None) -> Tensor:
        if self._gemma is not None and joined is not None:
            return self._gemma.run(at, joined, stores)
        x, cos, sin = self._backbone(at, stores, joined) if self._recorder is None else self._recorder(at, stores)
        # the last layer is computed at wanted positions only; elsewhere it needs keys and values alone
        x = self._layer(self._layers[-1], x, cos, sin, at, at.last, None if stores is None else stores[-1])
        return self._rms_norm(x, self._norm)

    def _backbone(
        self, at: PackedBatch[Tensor], stores: Stores, joined: Signals[Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Hidden states before the last layer, and every token's cosines and sines, `[T, 1 or 2, rotary_dim / 2]`."""
        x = F.embedding(at.tokens, self._embed)
        if joined is not None:
            x += added(x, joined, self._conditioning, self.spec.norm_eps)
        cos, sin = self._cos[at.positions], self._sin[at.positions]
        for number, layer in enumerate(self._layers[:-1]):
            run = self._layer
            if self._compiled is not None and not self.spec.sparse(number):
                run = self._compiled((len(x), at.shape, stores is None))
            x = run(layer, x, cos, sin, at, at.every, None if stores is None else stores[number])
        return x, cos, sin

    def _layer(
        self,
        layer: Mapping[str, Tensor],
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        at: PackedBatch[Tensor],
        asking: QueryLayout[Tensor],
        store: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """One layer over `x [T, d]`: new hidden states of the tokens that ask, `[N, d]`."""
        spec = self.spec
        inner, bias = spec.heads * spec.head_dim, layer.get("qkv_bias")
        h = self._rms_norm(x, layer["attention_norm"])
        if asking.select is None:
            heads = F.linear(h, layer["qkv"], bias).view(len(x), -1, spec.head_dim)
            key, value = spec.heads, spec.heads + spec.kv_heads
            q, k, v = heads[:, :key], heads[:, key:value], heads[:, value:]
            q_cos, q_sin = cos, sin
        else:
            q_bias, kv_bias = (None, None) if bias is None else (bias[:inner], bias[inner:])
            k, v = F.linear(h, layer["qkv"][inner:], kv_bias).view(len(x), -1, spec.head_dim).chunk(2, 1)
            q = F.linear(h[asking.select], layer["qkv"][:inner], q_bias).view(-1, spec.heads, spec.head_dim)
            x, q_cos, q_sin = x[asking.select], cos[asking.select], sin[asking.select]
        keys, values = placed(self._turn(layer, "k", k, cos[:, :1], sin[:, :1]), v, at, store)
        q = self._turn(layer, "q", q, q_cos[:, -1:], q_sin[:, -1:])
        mixed = attend(pad_queries(q, asking), keys, values, asking.mask)
        mixed = mixed.flatten(0, 1)
        x = x + F.linear(mixed if asking.unpad_index is None else mixed[asking.unpad_index], layer["o"])
        return x.add_(self._mlp(layer, self._rms_norm(x, layer["mlp_norm"])))

    def _turn(self, layer: Mapping[str, Tensor], part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Head norm, where there is one, and rotary embedding of `x [T, heads, head_dim]`."""
        if self.spec.head_norm:
            x = self._rms_norm(x, layer[f"{part}_norm"])
        return rotate(x, cos, sin)

    def _mlp(self, layer: Mapping[str, Tensor], h: Tensor) -> Tensor:
        """The SwiGLU MLP, or the experts, of `h [..., d]`."""
        router, experts = layer.get("router"), self.spec.experts
        if router is None or experts is None:
            return gated(h, layer["gate_up"], layer["down"])
        flat = h.reshape(-1, h.shape[-1])
        chosen, weights = route(flat, router, layer.get("router_correction"), experts)
        out = mix(flat, chosen, weights, layer["experts.gate_up"], layer["experts.down"])
        if experts.shared_size:
            out = out + gated(flat, layer["shared.gate_up"], layer["shared.down"])
        return out.view_as(h)

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        # torch computes the mean square in float32, whatever the type of x
        return F.rms_norm(x, x.shape[-1:], weight, self.spec.norm_eps)

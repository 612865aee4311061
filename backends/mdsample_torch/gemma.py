"""The layers of Gemma 4 in Torch, and what a block's tokens are joined by; see `mdsample.models.families.gemma`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from mdsample.backend.conditioning import Signals
from mdsample.backend.places import PackedBatch
from mdsample.core.arrays import arange64
from mdsample.models.families.trunk import Trunk
from mdsample_torch.attention import attend, pad_queries, placed, rotate
from mdsample_torch.conditioning import added
from mdsample_torch.device import upload
from mdsample_torch.experts import gated, mix, route
from mdsample_torch.recorded import Stores


@final
class GemmaLayers:
    """The layers of a trunk with `gemma`, from embedding to last norm."""

    def __init__(self, spec: Trunk, tensors: Mapping[str, Tensor]) -> None:
        """`tensors`: as `mdsample_torch.weights` makes them."""
        assert spec.gemma is not None and spec.experts is not None
        self._spec, self._gemma, self._experts, self._tensors = spec, spec.gemma, spec.experts, tensors
        self._embed = tensors["embed"]
        self._layers = [
            {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
            for start in (f"layers.{i}." for i in range(spec.layers))
        ]
        positions = arange64(spec.max_length)
        near, far = spec.turns(positions), self._gemma.turns(positions)
        self._turns = {
            short: tuple(upload(x, self._embed.device) for x in turn) for short, turn in ((True, near), (False, far))
        }
        # as published, rounded to the type of the embedding
        self._enlarged = torch.tensor(spec.d_model**0.5).to(self._embed.dtype).item()

    def soft(self, probabilities: Tensor) -> Tensor:
        """The mean embedding `[n, d]` of tokens with these probabilities, `[n, width]` float32."""
        return (probabilities.to(self._embed.dtype) @ self._embed).mul_(self._enlarged)

    def run(self, at: PackedBatch[Tensor], joined: Signals[Tensor], stores: Stores) -> Tensor:
        """States `[N, d]` after the last norm; arguments as for `TorchTrunk`'s own layers."""
        x = F.embedding(at.tokens, self._embed).mul_(self._enlarged)
        x[joined.inside] = self._joined(x, joined)[joined.inside]
        inside = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
        inside[joined.inside] = True
        for number, layer in enumerate(self._layers):
            x = self._layer(number, layer, x, inside, at, None if stores is None else stores[number])
        return self._norm(x, self._tensors["norm"])

    def _joined(self, x: Tensor, joined: Signals[Tensor]) -> Tensor:
        """Embeddings `x [T, d]` and what each is joined by."""
        return self._norm(x + added(x, joined, self._tensors, self._spec.norm_eps, gelu))

    def _layer(
        self,
        number: int,
        layer: Mapping[str, Tensor],
        x: Tensor,
        inside: Tensor,
        at: PackedBatch[Tensor],
        store: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """One layer over `x [T, d]`; the last one gives `[N, d]`, the states that are asked for."""
        short, (kv, size) = self._gemma.near[number], self._spec.heads_of(number)
        last = number == self._spec.layers - 1
        asking = at.last if last else at.every
        cos, sin = (turn[at.positions] for turn in self._turns[short])
        h, inner = self._norm(x, layer["attention_norm"]), self._spec.heads * size
        keys, *values = F.linear(h, layer["qkv"][inner:]).view(len(x), -1, kv, size).unbind(1)
        # layers that see everything have one matrix for both
        values = self._norm(values[0] if values else keys)
        keys = rotate(self._norm(keys, layer["k_norm"]), cos, sin)
        keys, values = placed(keys, values, at, store)
        if asking.select is not None:
            x, h, cos, sin = x[asking.select], h[asking.select], cos[asking.select], sin[asking.select]
            inside = inside[asking.select]
        q = F.linear(h, layer["qkv"][:inner]).view(len(x), -1, size)
        q = pad_queries(rotate(self._norm(q, layer["q_norm"]), cos, sin), asking)
        mixed = attend(q, keys, values, asking.near if short else asking.mask, scale=1.0).flatten(0, 1)
        out = F.linear(mixed if asking.unpad_index is None else mixed[asking.unpad_index], layer["o"])
        x = x + self._norm(out, layer["attention_out_norm"])
        x = x + self._norm(self._middle(layer, x), layer["mlp_out_norm"])
        return x * torch.where(inside, layer["scalar"], layer["context_scalar"])

    def _middle(self, layer: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The dense middle and the experts of `x [T, d]`, side by side."""
        dense = gated(self._norm(x, layer["mlp_norm"]), layer["gate_up"], layer["down"], gelu)
        routed = self._norm(x) * layer["router_scale"] * self._spec.d_model**-0.5
        chosen, weights = route(routed, layer["router"], None, self._experts)
        weights = weights * layer["expert_scale"][chosen]
        inputs = self._norm(x, layer["experts_norm"])
        out = mix(inputs, chosen, weights, layer["experts.gate_up"], layer["experts.down"], gelu)
        return self._norm(dense, layer["dense_out_norm"]) + self._norm(out, layer["experts_out_norm"])

    def _norm(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weight, self._spec.norm_eps)


def gelu(x: Tensor) -> Tensor:
    """GELU by tanh."""
    return F.gelu(x, approximate="tanh")

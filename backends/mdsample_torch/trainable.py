"""A trunk as a module of parameters, for training: every matrix is an `nn.Linear` that adapters can be put on.

The same forward pass as `TorchTrunk`, without what only sampling needs (places left out, caches, joined matrices).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from mdsample.core.arrays import arange64
from mdsample.models.families.trunk import Trunk
from mdsample_torch.attention import rotate
from mdsample_torch.device import upload
from mdsample_torch.experts import mix, route

#: matrices that adapters are put on: attention and the dense middle
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


class Experts(nn.Module):
    """The routed experts of a layer, each matrix stacked over experts, and those that every token passes."""

    def __init__(self, spec: Trunk) -> None:
        """Empty weights."""
        super().__init__()
        experts = spec.experts
        assert experts is not None
        self._experts, d, size = experts, spec.d_model, experts.size
        self.router = nn.Parameter(torch.empty(experts.count, d))
        # who is chosen is not learned by gradient: nothing flows through a choice
        if experts.corrected:
            self.router_correction = nn.Parameter(torch.empty(experts.count), requires_grad=False)
        self.experts_gate, self.experts_up = (nn.Parameter(torch.empty(experts.count, size, d)) for _ in range(2))
        self.experts_down = nn.Parameter(torch.empty(experts.count, d, size))
        if experts.shared_size:
            self.shared_gate, self.shared_up = (nn.Linear(d, experts.shared_size, bias=False) for _ in range(2))
            self.shared_down = nn.Linear(experts.shared_size, d, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """`h [B, L, d]` to `[B, L, d]`."""
        flat = h.flatten(0, 1)
        correction = self.router_correction if self._experts.corrected else None
        chosen, weights = route(flat, self.router.float(), correction, self._experts)
        gate_up = torch.cat([self.experts_gate, self.experts_up], 1)
        out = mix(flat, chosen, weights, gate_up.to(flat.dtype), self.experts_down.to(flat.dtype))
        if self._experts.shared_size:
            out = out + self.shared_down(F.silu(self.shared_gate(flat)) * self.shared_up(flat))
        return out.view_as(h)


class Middle(nn.Module):
    """The gated middle of a dense layer."""

    def __init__(self, spec: Trunk) -> None:
        """Empty weights."""
        super().__init__()
        self.gate, self.up = (nn.Linear(spec.d_model, spec.mlp_size, bias=False) for _ in range(2))
        self.down = nn.Linear(spec.mlp_size, spec.d_model, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """`h [B, L, d]` to `[B, L, d]`."""
        return self.down(F.silu(self.gate(h)) * self.up(h))


class Layer(nn.Module):
    """One layer."""

    def __init__(self, spec: Trunk, sparse: bool) -> None:
        """Empty weights."""
        super().__init__()
        self._spec = spec
        d, inner, kv = spec.d_model, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.attention_norm, self.mlp_norm = (nn.RMSNorm(d, eps=spec.norm_eps) for _ in range(2))
        self.q = nn.Linear(d, inner, bias=spec.qkv_bias)
        self.k, self.v = (nn.Linear(d, kv, bias=spec.qkv_bias) for _ in range(2))
        self.o = nn.Linear(inner, d, bias=False)
        if spec.head_norm:
            self.q_norm, self.k_norm = (nn.RMSNorm(spec.head_dim, eps=spec.norm_eps) for _ in range(2))
        self.middle = Experts(spec) if sparse else Middle(spec)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """`x [B, L, d]`, `cos` and `sin` as `Trunk.turns` gives them, `mask [B, 1, 1 or L, L]` to `[B, L, d]`."""
        spec, shape = self._spec, (*x.shape[:2], -1, self._spec.head_dim)
        h = self.attention_norm(x)
        q, k, v = self.q(h).view(shape), self.k(h).view(shape), self.v(h).view(shape)
        if spec.head_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (
            t.transpose(1, 2) for t in (rotate(q, cos[:, -1:], sin[:, -1:]), rotate(k, cos[:, :1], sin[:, :1]), v)
        )
        if spec.kv_heads != spec.heads:
            k, v = (t.repeat_interleave(spec.heads // spec.kv_heads, 1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=mask)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        return x + self.middle(self.mlp_norm(x))


@final
class TrainableTrunk(nn.Module):
    """A trunk whose parameters have the names of `Trunk.shapes`, see `named`."""

    def __init__(self, spec: Trunk) -> None:
        """Empty weights; `load` fills them."""
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.vocab_size, spec.d_model)
        self.layers = nn.ModuleList(Layer(spec, spec.sparse(i)) for i in range(spec.layers))
        self.norm = nn.RMSNorm(spec.d_model, eps=spec.norm_eps)
        if not spec.tied:
            self.head = nn.Linear(spec.d_model, spec.vocab_size, bias=False)
        self._checkpointing = False

    def forward(self, tokens: Tensor, valid: Tensor, wanted: Tensor) -> Tensor:
        """Logits `[N, V]` of the N places where `wanted [B, L]`, row by row.

        `tokens [B, L]` int64; `valid [B, L]` false in padding, which stands at the end of rows.
        """
        spec, length = self.spec, tokens.shape[1]
        cos, sin = (upload(turn, tokens.device) for turn in spec.turns(arange64(length)))
        mask = None if spec.block is None and bool(valid.all()) else valid[:, None, None, :]
        if spec.block is not None and mask is not None:
            block = torch.arange(length, device=tokens.device) // spec.block
            mask = mask & (block[None, :] <= block[:, None])
        x = self.embed(tokens)
        for layer in self.layers:
            if self._checkpointing:
                x = cast("Tensor", checkpoint(layer, x, cos, sin, mask, use_reentrant=False))
            else:
                x = layer(x, cos, sin, mask)
        row, position = wanted.nonzero(as_tuple=True)
        h = self.norm(x[row, (position - 1).clamp(min=0) if spec.shifted else position])
        return F.linear(h, self.embed.weight) if spec.tied else self.head(h)

    def save_memory(self) -> None:
        """From now on a layer's inner values are computed again in the backward pass instead of being kept."""
        self._checkpointing = True

    @property
    def named(self) -> dict[str, Tensor]:
        """Parameters by the names of `Trunk.shapes`; the tensors themselves."""
        return {_ours(name): parameter for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies weights in; `tensors` has the names and shapes of `Trunk.shapes`."""
        for name, parameter in self.named.items():
            parameter.copy_(tensors[name])


def _ours(name: str) -> str:
    """`layers.0.middle.gate.weight` is `layers.0.gate`, `layers.0.q.bias` is `layers.0.q_bias`."""
    name = name.replace(".middle.", ".").removesuffix(".weight")
    if name.endswith(".bias"):
        name = f"{name.removesuffix('.bias')}_bias"
    return name.replace("experts_", "experts.").replace("shared_", "shared.")

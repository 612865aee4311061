"""The forward pass of a `Trunk` in Torch: dense and with experts, full and block-causal, on any device.

Rows are padded to `[B, L]`. Norms, rotary embeddings and routers compute in float32, matrices in their own type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mdsample.arrays import Bools, Ints
from mdsample.families.trunk import Trunk
from mdsample.refusals import refuse_ask
from mdsample_torch.device import upload
from mdsample_torch.experts import gated, mix, route
from mdsample_torch.places import Places, places

# the matrix product that gives float32 from bfloat16, by torch's own name for it; only CUDA has it
_WIDENS = "dtype_out" in torch.ops.aten.mm.overloads()


@final
class TorchTrunk:
    """A trunk with its weights on a device."""

    def __init__(self, spec: Trunk, tensors: Mapping[str, Tensor]) -> None:
        """`tensors`: as `mdsample_torch.weights` makes them."""
        self.spec = spec
        self._embed, self._norm = tensors["embed"], tensors["norm"]
        self._head = self._embed if spec.tied else tensors["head"]
        self._layers = [
            {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
            for start in (f"layers.{i}." for i in range(spec.layers))
        ]
        half = spec.rotary_dim // 2
        angle = np.arange(spec.max_length)[:, None] * spec.rope_theta ** -(np.arange(half) / half)
        self._cos, self._sin = (
            upload(turn(angle).astype(np.float32), self.device)[:, None] for turn in (np.cos, np.sin)
        )

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

    def logits(self, hidden: Tensor, out: Tensor) -> None:
        """Writes the logits of `hidden [n, d]` to `out [n, width]`, float32; what is beyond the vocabulary is 0."""
        if hidden.dtype == torch.float32:
            torch.mm(hidden, self._head.t(), out=out)
        elif hidden.is_cuda and _WIDENS:
            # rounded to bfloat16, a logit of 20 is off by up to 0.06 and neighbours are equal
            torch.mm(hidden, self._head.t(), out_dtype=torch.float32, out=out)  # pyright: ignore[reportCallIssue]
        else:
            out.copy_(hidden @ self._head.t())

    def hidden(self, tokens: Ints, valid: Bools, wanted: Bools) -> Tensor:
        """Hidden states `[N, d]` after the last norm, of the N places where `wanted [B, L]`, row by row, on the device.

        `tokens [B, L]` int32, `valid [B, L]` false in padding. Raises `ValueError` if a place in padding is wanted, a
        row is longer than the model's `max_length`, or a token id does not exist.
        """
        refuse_ask(self.spec, tokens, valid, wanted)
        rows = wanted.any(1)  # rows of which nothing is wanted are not run
        if not rows.any():
            return torch.zeros((0, self.spec.d_model), dtype=self.dtype, device=self.device)
        at = places(self.spec, tokens[rows], valid[rows], wanted[rows], self.device)
        x = F.embedding(at.tokens, self._embed)
        for layer in self._layers[:-1]:
            x = self._layer(layer, x, at)
        return self._rms_norm(self._last(self._layers[-1], x, at), self._norm)

    def _layer(self, layer: Mapping[str, Tensor], x: Tensor, at: Places) -> Tensor:
        """One layer over `x [B, L, d]`."""
        b, length, _ = x.shape
        h = self._rms_norm(x, layer["attention_norm"])
        heads = F.linear(h, layer["qkv"], layer.get("qkv_bias")).view(b, length, -1, self.spec.head_dim)
        key, value = self.spec.heads, self.spec.heads + self.spec.kv_heads
        q, k, v = heads[:, :, :key], heads[:, :, key:value], heads[:, :, value:]
        cos, sin = self._cos[:length], self._sin[:length]
        mixed = attend(self._turn(layer, "q", q, cos, sin), self._turn(layer, "k", k, cos, sin), v, at.mask)
        x = x + F.linear(mixed, layer["o"])
        return x.add_(self._middle(layer, self._rms_norm(x, layer["mlp_norm"])))

    def _last(self, layer: Mapping[str, Tensor], x: Tensor, at: Places) -> Tensor:
        """The last layer: keys and values of all positions, the rest of the wanted ones only, `[N, d]`."""
        spec = self.spec
        b, length, d = x.shape
        h = self._rms_norm(x, layer["attention_norm"])
        inner, bias = spec.heads * spec.head_dim, layer.get("qkv_bias")
        q_bias, kv_bias = (None, None) if bias is None else (bias[:inner], bias[inner:])
        k, v = F.linear(h, layer["qkv"][inner:], kv_bias).view(b, length, -1, spec.head_dim).chunk(2, 2)
        k = self._turn(layer, "k", k, self._cos[:length], self._sin[:length])
        index = at.asked[:, :, None].expand(-1, -1, d)
        q = F.linear(h.gather(1, index), layer["qkv"][:inner], q_bias).view(b, -1, spec.heads, spec.head_dim)
        q = self._turn(layer, "q", q, self._cos[at.asked], self._sin[at.asked])
        mixed = attend(q, k, v, at.asked_mask).flatten(0, 1)[at.wanted]
        x = x.gather(1, index).flatten(0, 1)[at.wanted]
        x = x + F.linear(mixed, layer["o"])
        return x.add_(self._middle(layer, self._rms_norm(x, layer["mlp_norm"])))

    def _turn(self, layer: Mapping[str, Tensor], part: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Head norm, where there is one, and rotary embedding of `x [B, M, heads, head_dim]`."""
        if self.spec.head_norm:
            x = self._rms_norm(x, layer[f"{part}_norm"])
        return rotate(x, cos, sin)

    def _middle(self, layer: Mapping[str, Tensor], h: Tensor) -> Tensor:
        """The gated middle, or the experts, of `h [..., d]`."""
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


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, half-split, of the leading part of every head, computed in float32.

    `x [B, M, heads, head_dim]`; `cos`, `sin` float32, broadcast to `[B, M, heads, rotary_dim / 2]`.
    """
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)
    return turned if rest.shape[-1] == 0 else torch.cat([turned, rest], -1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention: `q [B, M, heads, D]`, `k` and `v` `[B, L, kv heads, D]` to `[B, M, heads · D]`; `mask` as in `Places`.

    The query heads that share a key head become further queries of it. So no key is copied, and every kernel of
    torch's will do (not all of them take grouped heads together with a mask).
    """
    b, m, heads, size = q.shape
    kv = k.shape[2]
    q = q.view(b, m, kv, heads // kv, size).permute(0, 2, 3, 1, 4).reshape(b, kv, -1, size)
    mixed = F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return mixed.view(b, kv, heads // kv, m, size).permute(0, 3, 1, 2, 4).reshape(b, m, heads * size)

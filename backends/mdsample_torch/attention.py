"""Rotary embeddings and attention over packed tokens, with keys and values where they stand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mdsample.backend.places import PackedBatch, QueryLayout


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, half-split, of the leading part of every head, computed in float32.

    `x [T, heads, head_dim]`; `cos`, `sin` float32, `[T, 1, rotary_dim / 2]`.
    """
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)
    return turned if rest.shape[-1] == 0 else torch.cat([turned, rest], -1)


def placed(k: Tensor, v: Tensor, at: PackedBatch[Tensor], store: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Keys and values of T tokens, `[T, kv heads, head_dim]`, each at its position, `[B, L, kv heads, head_dim]`."""
    if store is None and at.cells is None:
        return k.view(*at.shape, *k.shape[1:]), v.view(*at.shape, *v.shape[1:])
    if store is None:
        store = k.new_zeros(*at.shape, *k.shape[1:]), v.new_zeros(*at.shape, *v.shape[1:])
    for whole, part in zip(store, (k, v), strict=True):
        if at.cells is None:
            whole.copy_(part.view_as(whole))
        else:
            whole.flatten(0, 1).index_copy_(0, at.cells, part)
    return store


def pad_queries(q: Tensor, asking: QueryLayout[Tensor]) -> Tensor:
    """Queries `[N, heads, head_dim]` in rows, `[B, M, heads, head_dim]`."""
    if asking.pad_index is None:
        return q.view(asking.batch, -1, *q.shape[1:])
    return q[asking.pad_index]


def stacked(mask: Tensor | None, group: int) -> Tensor | None:
    """A mask of `QueryLayout` once for each of the query heads that share a key head, `[B, 1, M · group or 1, L]`."""
    if mask is None:
        return None
    return mask[:, None] if mask.shape[1] == 1 else mask[:, None].repeat(1, 1, group, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """Attention: `q [B, M, heads, D]`, `k` and `v` `[B, L, kv heads, D]` to `[B, M, heads · D]`; `mask`: `stacked`.

    The query heads that share a key head become further queries of it. So no key is copied, and every kernel of
    torch's will do (not all of them take grouped heads together with a mask). `scale`: by default 1/√D.
    """
    b, m, heads, size = q.shape
    kv = k.shape[2]
    q = q.view(b, m, kv, heads // kv, size).permute(0, 2, 3, 1, 4).reshape(b, kv, -1, size)
    mixed = F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale)
    return mixed.view(b, kv, heads // kv, m, size).permute(0, 3, 1, 2, 4).reshape(b, m, heads * size)

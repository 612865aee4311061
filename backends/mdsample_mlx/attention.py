"""Rotary embeddings and attention over packed tokens, with keys and values where they stand."""

from __future__ import annotations

import mlx.core as mx

from mdsample.backend.places import QueryLayout


def rotate(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    """Rotary embedding, half-split, of the leading part of every head, computed in float32.

    `x [T, heads, head_dim]`; `cos`, `sin` float32, `[T, 1, rotary_dim / 2]`. MLX's own takes one position a row.
    """
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [(a * cos - b * sin).astype(x.dtype), (b * cos + a * sin).astype(x.dtype)]
    return mx.concatenate([*turned, rest] if rest.shape[-1] else turned, -1)


def placed(
    k: mx.array,
    v: mx.array,
    shape: tuple[int, int],
    where: mx.array | None,
    store: tuple[mx.array, mx.array] | None,
) -> tuple[mx.array, mx.array]:
    """Keys and values of T tokens, `[T, kv heads, head_dim]`, each at its position, `[B, L, kv heads, head_dim]`."""
    if where is None:
        return mx.unflatten(k, 0, shape), mx.unflatten(v, 0, shape)
    keys, values = (mx.zeros((*shape, *k.shape[1:]), k.dtype),) * 2 if store is None else store
    return _written(keys, where, k), _written(values, where, v)


def _written(whole: mx.array, where: mx.array, part: mx.array) -> mx.array:
    flat = whole.flatten(0, 1)
    flat[where] = part
    return mx.unflatten(flat, 0, whole.shape[:2])


def pad_queries(q: mx.array, asking: QueryLayout[mx.array]) -> mx.array:
    """Queries `[N, heads, head_dim]` in rows, `[B, M, heads, head_dim]`."""
    if asking.pad_index is None:
        return mx.reshape(q, (asking.batch, -1, *q.shape[1:]))
    return q[asking.pad_index]


def attend(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | None, scale: float | None = None) -> mx.array:
    """Attention: `q [B, M, heads, D]`, `k` and `v` `[B, L, kv heads, D]` to `[B, M, heads · D]`.

    `mask`: as `QueryLayout.mask`; `scale`: by default 1/√D.
    A query that sees nothing gets the mean of all values here, and there is none: every token sees itself.
    """
    q, k, v = (mx.swapaxes(x, 1, 2) for x in (q, k, v))
    seen = None if mask is None else mask[:, None]
    by = q.shape[-1] ** -0.5 if scale is None else scale
    mixed = mx.fast.scaled_dot_product_attention(q, k, v, scale=by, mask=seen)
    return mx.swapaxes(mixed, 1, 2).flatten(2)

"""The forward pass of a `Trunk` in NumPy, float32.

Rows are packed: padding is left out before the first matrix product, so it costs nothing and cannot influence
anything. T is the number of tokens of all rows together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import attrs
import numpy as np

from mdsample.arrays import Bools, Floats, Ints, Longs
from mdsample.families.trunk import Trunk


@attrs.frozen(eq=False)
class _Layer:
    """Weights `[out, in]`; what shares an input is one matrix, because one large product is faster than two."""

    attention_norm: Floats
    q: Floats
    kv: Floats
    o: Floats
    mlp_norm: Floats
    gate_up: Floats
    down: Floats


@final
class NumpyTrunk:
    """A trunk with its weights."""

    def __init__(self, spec: Trunk, tensors: Mapping[str, Floats]) -> None:
        """`tensors`: float32 arrays by the names and shapes of `spec.shapes`."""
        self.spec = spec
        self._embed, self._norm = tensors["embed"], tensors["norm"]
        self._head = self._embed if spec.tied else tensors["head"]
        self._layers: list[_Layer] = []
        for i in range(spec.layers):

            def at(*parts: str, i: int = i) -> Floats:
                found = [tensors[f"layers.{i}.{part}"] for part in parts]
                return found[0] if len(found) == 1 else np.concatenate(found)

            self._layers.append(
                _Layer(
                    *(at("attention_norm"), at("q"), at("k", "v"), at("o")),
                    *(at("mlp_norm"), at("gate", "up"), at("down")),
                )
            )
        half = spec.head_dim // 2
        angle = np.arange(spec.max_length)[:, None] * np.tile(spec.rope_theta ** -(np.arange(half) / half), 2)
        self._cos, self._sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def logits(self, tokens: Ints, valid: Bools, wanted: Bools) -> Floats:
        """Logits `[N, V]` of the N places where `wanted [B, L]`, row by row.

        `tokens [B, L]` int32, `valid [B, L]` false in padding. Raises `ValueError` if a place in padding is wanted, a
        row is longer than the model's `max_length`, or a token id does not exist.
        """
        return self.hidden(tokens, valid, wanted) @ self._head.T

    def hidden(self, tokens: Ints, valid: Bools, wanted: Bools) -> Floats:
        """Hidden states `[N, d]` after the last norm; arguments, order and errors as for `logits`."""
        self._check(tokens, valid, wanted)
        rows = wanted.any(1)  # rows of which nothing is wanted are not run
        if not rows.any():
            return np.zeros((0, self.spec.d_model), np.float32)
        tokens, valid, wanted = tokens[rows], valid[rows], wanted[rows]
        positions = np.nonzero(valid)[1]
        x = self._embed[tokens[valid]]
        spans = list(_spans(valid.sum(1)))
        for layer in self._layers[:-1]:
            x = self._run(layer, x, positions, spans, np.s_[:], spans)
        # nobody looks at the other places of the last layer; their keys and values are all it needs of them
        return _rms_norm(
            self._run(self._layers[-1], x, positions, spans, wanted[valid], list(_spans(wanted.sum(1)))),
            self._norm,
            self.spec.norm_eps,
        )

    def _run(
        self, layer: _Layer, x: Floats, positions: Longs, spans: list[slice], asked: slice | Bools, asking: list[slice]
    ) -> Floats:
        """One layer over `x [T, d]`, which it may overwrite: the new hidden states of the `asked` tokens, `[N, d]`.

        `spans` and `asking` say where each row's tokens are among all T, and among the N asked.
        """
        spec = self.spec
        h = _rms_norm(x, layer.attention_norm, spec.norm_eps)
        keys, values = np.split((h @ layer.kv.T).reshape(len(h), 2 * spec.kv_heads, spec.head_dim), 2, axis=1)
        keys = self._rotate(keys, positions)
        queries = (h[asked] @ layer.q.T).reshape(-1, spec.heads, spec.head_dim)
        queries = self._rotate(queries, positions[asked]) * np.float32(spec.head_dim**-0.5)
        heads = [_attend(queries[n], keys[t], values[t]) for n, t in zip(asking, spans, strict=True)]
        x = x[asked]
        x += np.concatenate(heads) @ layer.o.T
        gate, up = np.split(_rms_norm(x, layer.mlp_norm, spec.norm_eps) @ layer.gate_up.T, 2, axis=1)
        x += (_silu(gate) * up) @ layer.down.T
        return x

    def _rotate(self, x: Floats, positions: Longs) -> Floats:
        """Rotary embedding, half-split; `x [T, heads, head_dim]`."""
        a, b = np.split(x, 2, axis=2)
        out = x * self._cos[positions, None]
        out += np.concatenate([-b, a], axis=2) * self._sin[positions, None]
        return out

    def _check(self, tokens: Ints, valid: Bools, wanted: Bools) -> None:
        if (wanted & ~valid).any():
            row, position = np.argwhere(wanted & ~valid)[0]
            raise ValueError(f"row {row}, position {position} is padding; the model says nothing about it")
        longest = int(np.nonzero(valid)[1].max(initial=-1)) + 1
        if longest > self.spec.max_length:
            raise ValueError(
                f"a row has {longest} tokens, but the model takes {self.spec.max_length} at most; shorten text or slots"
            )
        strange = valid & ((tokens < 0) | (tokens >= self.spec.vocab_size))
        if strange.any():
            row, position = np.argwhere(strange)[0]
            raise ValueError(
                f"row {row}, position {position} holds token id {tokens[row, position]}, which does not exist; "
                f"ids go from 0 to {self.spec.vocab_size - 1}"
            )


def _spans(counts: Longs) -> Iterator[slice]:
    """Consecutive slices of these lengths."""
    end = 0
    for count in counts.tolist():
        yield slice(end, end := end + count)


def _attend(queries: Floats, keys: Floats, values: Floats) -> Floats:
    """Attention inside one row: `queries [m, heads, D]`, `keys` and `values [n, kv heads, D]` to `[m, heads · D]`."""
    m, heads, size = queries.shape
    kv = keys.shape[1]
    # the query heads that share a key head are rows of one matrix, so that each key head takes one product
    grouped = queries.reshape(m, kv, heads // kv, size).transpose(1, 2, 0, 3).reshape(kv, -1, size)
    scores = grouped @ keys.transpose(1, 2, 0)
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    mixed = scores @ values.transpose(1, 0, 2)
    mixed /= scores.sum(-1, keepdims=True)
    return mixed.reshape(kv, heads // kv, m, size).transpose(2, 0, 1, 3).reshape(m, -1)


def _rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """`x [T, d]` over its root mean square, times `weight [d]`."""
    square: Floats = np.einsum("td,td->t", x, x)
    root: Floats = np.sqrt(square / np.float32(x.shape[1]) + np.float32(eps))
    out = x * weight
    out /= root[:, None]
    return out


def _silu(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp(-x) is inf far below zero, and the quotient is then rightly zero
        grown: Floats = np.exp(-x)
    grown += 1
    return np.divide(x, grown, out=grown)

"""The forward pass of a `Trunk` in NumPy, float32.

Rows are packed: padding is left out before the first matrix product, so it costs nothing and cannot influence
anything. T is the number of tokens of all rows together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import attrs
import numpy as np

from mdsample.backend.conditioning import Signals, signals
from mdsample.backend.reference.experts import Gated, Mixture
from mdsample.backend.refusals import refuse_ask
from mdsample.backend.views import Views, hidden_positions, sight, views
from mdsample.core.arrays import Bools, Floats, Ints, Longs
from mdsample.models.denoiser import Memory
from mdsample.models.families.trunk import Trunk


@attrs.frozen(eq=False)
class _Layer:
    """Weights `[out, in]`; keys and values share an input, so they are one matrix."""

    attention_norm: Floats
    q: Floats
    kv: Floats
    o: Floats
    #: biases, added to what `q` and `kv` give
    q_bias: Floats | None
    kv_bias: Floats | None
    #: norms of one head, `[head_dim]`
    q_norm: Floats | None
    k_norm: Floats | None
    mlp_norm: Floats
    middle: Gated | Mixture


@attrs.frozen(eq=False)
class _Places:
    """Where the packed tokens stand, and whose hidden states are wanted."""

    #: each row's tokens among all T
    rows: list[slice]
    #: cosines and sines of the rotary angles, `[T, 1 or 2, rotary_dim]`, see `Trunk.turns`
    cos: Floats
    sin: Floats
    #: each token's position in its row, and the last that it sees, `[T]`; `None`: it sees everything
    position: Longs
    sight: Longs | None
    #: the N tokens asked for, and each row's among them
    asked: Longs | slice
    asking: list[slice]


@attrs.frozen(eq=False)
class _Conditioning:
    """What self-conditioning adds to embeddings; see `mdsample.backend.conditioning`."""

    norm: Floats
    middle: Gated
    eps: float

    def __call__(self, x: Floats, joined: Signals[Longs]) -> Floats:
        """`x [T, d]`, the embeddings."""
        signal = np.zeros_like(x)
        signal[joined.certain] = x[joined.certain]
        for kept, tokens, places in joined.recalled:
            signal[tokens] = kept.soft[places]
        return self.middle(_rms_norm(signal, self.norm, self.eps))


@final
class NumpyTrunk:
    """A trunk with its weights."""

    def __init__(self, spec: Trunk, tensors: Mapping[str, Floats]) -> None:
        """`tensors`: float32 arrays by the names and shapes of `spec.shapes`; each is taken once."""
        self.spec = spec
        self._embed, self._norm = tensors["embed"], tensors["norm"]
        self._head = self._embed if spec.tied else tensors["head"]
        self._layers = [_read_layer(spec, tensors, i) for i in range(spec.layers)]
        self._conditioning = _read_conditioning(spec, tensors) if spec.conditioned else None

    def logits(
        self,
        tokens: Ints,
        valid: Bools,
        wanted: Bools,
        opened: Bools | None = None,
        memory: Sequence[Memory | None] = (),
    ) -> Floats:
        """Logits `[N, V]` of the N places where `wanted [B, L]`, row by row.

        `tokens [B, L]` int32, `valid [B, L]` false in padding, `opened` as for `views`, `memory` as in `Query`. Raises
        `ValueError` if a place in padding is wanted, a row is longer than the model's `max_length`, or a token id does
        not exist.
        """
        return self.hidden(tokens, valid, wanted, opened, memory) @ self._head.T

    def soft(self, probabilities: Floats) -> Floats:
        """Soft embeddings `[n, d]` of tokens with these `probabilities [n, V]`; only if it is self-conditioned."""
        return probabilities @ self._embed

    def hidden(
        self,
        tokens: Ints,
        valid: Bools,
        wanted: Bools,
        opened: Bools | None = None,
        memory: Sequence[Memory | None] = (),
    ) -> Floats:
        """Hidden states `[N, d]` after the last norm, from which the logits of the wanted places are read.

        Arguments, order and errors as for `logits`. Where the trunk is `shifted`, the state is that of the token
        before the place, or of the place itself if it is its row's first.
        """
        refuse_ask(self.spec, tokens, valid, wanted)
        seen = views(self.spec, tokens, valid, wanted, opened)
        if not len(seen.row):
            return np.zeros((0, self.spec.d_model), np.float32)
        places = self._places(seen)
        x = self._embed[seen.tokens[seen.valid]]
        if self._conditioning is not None:
            x += self._conditioning(x, signals(seen, seen.valid, wanted if opened is None else opened, memory))
        everything = attrs.evolve(places, asked=np.s_[:], asking=places.rows)
        for layer in self._layers[:-1]:
            x = self._run(layer, x, everything)
        # the last layer is computed at wanted positions only; elsewhere it needs keys and values alone
        return _rms_norm(self._run(self._layers[-1], x, places), self._norm, self.spec.norm_eps)

    def _places(self, seen: Views) -> _Places:
        valid = seen.valid
        rows, positions = np.nonzero(valid)
        number = np.cumsum(valid).reshape(valid.shape) - 1
        cos, sin = (np.tile(turn, 2) for turn in self.spec.turns(positions))
        upto = sight(self.spec, seen.start, valid.shape[1])
        last = None if upto is None else np.broadcast_to(upto, valid.shape)[rows, positions]
        asked = number[hidden_positions(self.spec, seen)]
        spans = list(_spans(valid.sum(1))), list(_spans(seen.wanted.sum(1)))
        return _Places(spans[0], cos, sin, positions, last, asked, spans[1])

    def _run(self, layer: _Layer, x: Floats, places: _Places) -> Floats:
        """One layer over `x [T, d]`, which it may overwrite: new hidden states of the tokens asked for, `[N, d]`."""
        spec, asked = self.spec, places.asked
        h = _rms_norm(x, layer.attention_norm, spec.norm_eps)
        keys, values = np.split(
            _affine(h, layer.kv, layer.kv_bias).reshape(-1, 2 * spec.kv_heads, spec.head_dim), 2, axis=1
        )
        queries = _affine(h[asked], layer.q, layer.q_bias).reshape(-1, spec.heads, spec.head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            queries = _rms_norm(queries, layer.q_norm, spec.norm_eps)
            keys = _rms_norm(keys, layer.k_norm, spec.norm_eps)
        keys = self._rotate(keys, places.cos[:, :1], places.sin[:, :1])
        cos, sin = places.cos[asked, -1:], places.sin[asked, -1:]
        queries = self._rotate(queries, cos, sin) * np.float32(spec.head_dim**-0.5)
        last = None if places.sight is None else places.sight[asked, None]
        heads = [
            _attend(queries[n], keys[t], values[t], None if last is None else places.position[t] > last[n])
            for n, t in zip(places.asking, places.rows, strict=True)
        ]
        x = x[asked]
        x += np.concatenate(heads) @ layer.o.T
        x += layer.middle(_rms_norm(x, layer.mlp_norm, spec.norm_eps))
        return x

    def _rotate(self, x: Floats, cos: Floats, sin: Floats) -> Floats:
        """Rotary embedding of the leading part of each head, half-split; `x [T, heads, head_dim]`."""
        turned, passed = np.split(x, [self.spec.rotary_dim], axis=2)
        a, b = np.split(turned, 2, axis=2)
        out = turned * cos
        out += np.concatenate([-b, a], axis=2) * sin
        return np.concatenate([out, passed], axis=2) if passed.shape[2] else out


def _read_conditioning(spec: Trunk, tensors: Mapping[str, Floats]) -> _Conditioning:
    gate, up, down = (tensors[f"conditioning.{part}"] for part in ("gate", "up", "down"))
    return _Conditioning(tensors["conditioning_norm"], Gated(np.concatenate([gate, up]), down), spec.norm_eps)


def _read_layer(spec: Trunk, tensors: Mapping[str, Floats], number: int) -> _Layer:
    def at(*parts: str) -> Floats:
        arrays = [tensors[f"layers.{number}.{part}"] for part in parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def gated(prefix: str) -> Gated:
        return Gated(at(f"{prefix}gate", f"{prefix}up"), at(f"{prefix}down"))

    def middle() -> Gated | Mixture:
        experts = spec.experts
        if experts is None or not spec.sparse(number):
            return gated("")
        gates, ups, downs = (at(f"experts.{part}") for part in ("gate", "up", "down"))
        return Mixture(
            experts,
            at("router"),
            at("router_correction") if experts.corrected else None,
            tuple(Gated(np.concatenate(pair), down) for *pair, down in zip(gates, ups, downs, strict=True)),
            gated("shared.") if experts.shared_size else None,
        )

    return _Layer(
        *(at("attention_norm"), at("q"), at("k", "v"), at("o")),
        *((at("q_bias"), at("k_bias", "v_bias")) if spec.qkv_bias else (None, None)),
        *((at("q_norm"), at("k_norm")) if spec.head_norm else (None, None)),
        *(at("mlp_norm"), middle()),
    )


def _affine(x: Floats, weight: Floats, bias: Floats | None) -> Floats:
    out = x @ weight.T
    if bias is not None:
        out += bias
    return out


def _spans(counts: Longs) -> Iterator[slice]:
    """Consecutive slices of these lengths."""
    end = 0
    for count in counts.tolist():
        yield slice(end, end := end + count)


def _attend(queries: Floats, keys: Floats, values: Floats, unseen: Bools | None) -> Floats:
    """Attention inside one row: `queries [m, heads, D]`, `keys` and `values [n, kv heads, D]` to `[m, heads · D]`.

    `unseen [m, n]`: which keys a query does not see.
    """
    m, heads, size = queries.shape
    n, kv, _ = keys.shape
    # the query heads that share a key head are rows of one matrix, so that each key head takes one product
    grouped = queries.reshape(m, kv, heads // kv, size).transpose(1, 2, 0, 3).reshape(kv, -1, size)
    scores = grouped @ keys.transpose(1, 2, 0)
    if unseen is not None:
        scores.reshape(kv, -1, m, n)[:, :, unseen] = -np.inf
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    mixed = scores @ values.transpose(1, 0, 2)
    mixed /= scores.sum(-1, keepdims=True)
    return mixed.reshape(kv, heads // kv, m, size).transpose(2, 0, 1, 3).reshape(m, -1)


def _rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """`x [..., d]` over its root mean square, times `weight [d]`."""
    square: Floats = np.einsum("...d,...d->...", x, x)
    root: Floats = np.sqrt(square / np.float32(x.shape[-1]) + np.float32(eps))
    out = x * weight
    out /= root[..., None]
    return out

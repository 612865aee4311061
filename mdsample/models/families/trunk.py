"""Trunk: what a published model is, as data. A family writes it, every backend reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import attrs
import numpy as np

from mdsample.core.arrays import Floats, Longs
from mdsample.errors import ModelError
from mdsample.models.families.gemma import Gemma
from mdsample.models.families.rotary import Growth, Scaling, turns


@attrs.frozen
class Single:
    """A tensor that is stored as it is."""

    name: str


@attrs.frozen
class Slice:
    """Rows `start` to `stop` of a stored tensor that holds several of ours (a fused query-key-value)."""

    name: str
    start: int
    stop: int


@attrs.frozen
class Stack:
    """A tensor whose first axis is stored as one tensor each (experts)."""

    names: tuple[str, ...]


#: where a tensor of ours is found in a checkpoint
Source = Single | Slice | Stack


@attrs.frozen(kw_only=True)
class Experts:
    """A mixture of experts in place of the gated middle.

    Scores are the softmax or sigmoid of the router's logits, float32. The `chosen` highest scores (plus the
    correction, where there is one; only in the best `chosen_groups` of `groups`, a group's rank being the sum of its
    two highest) weigh the chosen experts' outputs.
    """

    #: routed experts
    count: int
    #: experts that a token goes through
    chosen: int
    #: width of an expert's gated middle
    size: int
    #: width of the expert that every token goes through, all shared ones together; 0 if there is none
    shared_size: int = 0
    score: Literal["softmax", "sigmoid"] = "softmax"
    #: whether the chosen scores are divided by their sum
    normalized: bool = False
    #: the chosen scores are multiplied by this
    scale: float = 1.0
    groups: int = 1
    chosen_groups: int = 1
    #: whether a learned correction is added to the scores when experts are chosen (not when they are weighed)
    corrected: bool = False
    #: layers before this one are dense
    first: int = 0

    def check(self, family: str) -> None:
        """Raises `ModelError` if the numbers contradict each other."""
        inside = self.count // self.groups
        if self.count % self.groups or not 1 <= self.chosen_groups <= self.groups or (self.groups > 1 and inside < 2):
            raise ModelError(
                f"{family}: {self.count} experts cannot be split into {self.groups} groups of equal size, two experts "
                f"at least, of which {self.chosen_groups} are chosen"
            )
        if self.chosen > inside * self.chosen_groups:
            raise ModelError(
                f"{family}: {self.chosen} experts a token cannot be had from {self.chosen_groups} groups of {inside}"
            )


@attrs.frozen(kw_only=True)
class Trunk:
    """A transformer as published masked diffusion models have it, dense or with experts.

    RMSNorm before attention and middle, rotary half-split, grouped queries, SwiGLU; no bias but where a field says so.
    """

    #: `model_type`
    family: str
    #: rows of the embedding and number of logits, tokens
    vocab_size: int
    #: width of the hidden state
    d_model: int
    layers: int
    #: query heads
    heads: int
    #: key and value heads; each serves `heads / kv_heads` query heads
    kv_heads: int
    #: width of one head
    head_dim: int
    #: width of the gated middle of dense layers
    mlp_size: int
    #: rotary base
    rope_theta: float
    #: the leading part of a head that is rotated; the rest has no position
    rotary_dim: int
    #: how the rotary frequencies differ from those of the base; `None`: not at all
    rope_scaling: Scaling | None = None
    #: added to the mean square in RMSNorm
    norm_eps: float
    #: queries, keys and values have biases
    qkv_bias: bool = False
    #: queries and keys are normalised head by head before they are rotated
    head_norm: bool = False
    #: queries grow with their position; `None`: they do not
    query_growth: Growth | None = None
    #: block-causal attention: a position sees its own block of this many positions and all before it; `None`: all
    block: int | None = None
    #: blocks are counted from a row's first open position, what stands before a block sees only what is before it, and,
    #: but for `gemma`, an empty block's first place is read one place before it; see `mdsample.backend.views`
    led: bool = False
    #: the logits of position i are read one place before it, at i − 1 (at 0 for the first)
    shifted: bool = False
    experts: Experts | None = None
    #: Gemma 4's layers in place of those that are described here
    gemma: Gemma | None = None
    #: what a blank is shown as: the mask token, or a random token
    noise: Literal["mask", "uniform"] = "mask"
    #: width of the gated middle by which a token of a block is joined by what was predicted in its place the last time;
    #: 0: the trunk is not self-conditioned. Without blocks the row is one
    conditioning_size: int = 0
    #: the head is the embedding, and has no tensor of its own
    tied: bool
    mask_id: int
    #: the token that ends and pads a text
    end_id: int | None
    #: the token that stands before every text
    start_id: int | None
    #: the longest row, tokens
    max_length: int
    #: where every tensor of `shapes` is found: the published layout, then those of known converters
    layouts: tuple[Mapping[str, Source], ...] = attrs.field(repr=False)
    #: published tensors that may be there (a head beside tied weights, used if it is not the embedding), with their
    #: shapes
    optional_tensors: Mapping[str, tuple[int, ...]] = attrs.field(factory=dict[str, tuple[int, ...]], repr=False)
    #: published names that begin like this belong to what is not read here (the part for images), and what that is
    passed_over: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)

    def __attrs_post_init__(self) -> None:
        """Checks what a backend relies on."""
        if self.heads % self.kv_heads:
            raise ModelError(f"{self.family}: {self.heads} heads cannot share {self.kv_heads} key-value heads evenly")
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            raise ModelError(
                f"{self.family}: rotary embeddings need an even width of at most a head's, {self.head_dim}; "
                f"found {self.rotary_dim}"
            )
        if self.query_growth is not None and self.rotary_dim != self.head_dim:
            raise ModelError(f"{self.family}: queries that grow with their position must be rotated as a whole")
        if self.led and (self.block is None or self.shifted):
            raise ModelError(f"{self.family}: a led trunk has blocks, and is shifted nowhere else")
        if self.gemma is not None and not (self.led and self.tied and self.conditioned and self.experts is not None):
            raise ModelError(f"{self.family}: Gemma's layers have experts, and a block after a causal context")
        if self.conditioned and not (self.led or self.block is None):
            raise ModelError(f"{self.family}: blocks that are counted from a row's beginning see no last prediction")
        if self.experts is not None:
            self.experts.check(self.family)
        for role, token in (("mask", self.mask_id), ("end", self.end_id), ("start", self.start_id)):
            if token is not None and not 0 <= token < self.vocab_size:
                raise ModelError(
                    f"{self.family}: the {role} token is {token}, but ids go from 0 to {self.vocab_size - 1}"
                )
        for layout in self.layouts:
            if layout.keys() != self.shapes.keys():
                wrong = ", ".join(sorted(layout.keys() ^ self.shapes.keys()))
                raise ModelError(f"{self.family}: a layout and the trunk's tensors differ in {wrong}")

    def with_head(self, name: str) -> Trunk:
        """The same, but not tied: the head is the published tensor of this name."""
        layouts = tuple({**layout, "head": Single(name)} for layout in self.layouts)
        return attrs.evolve(self, tied=False, layouts=layouts, optional_tensors={})

    def sparse(self, layer: int) -> bool:
        """Whether this layer has experts."""
        return self.experts is not None and layer >= self.experts.first

    def heads_of(self, layer: int) -> tuple[int, int]:
        """Key and value heads of a layer, and the width of one head."""
        if self.gemma is None or self.gemma.near[layer]:
            return self.kv_heads, self.head_dim
        return self.gemma.kv_heads, self.gemma.head_dim

    @property
    def conditioned(self) -> bool:
        """Whether a block also sees what was predicted in it the last time."""
        return self.conditioning_size > 0

    def turns(self, positions: Longs) -> tuple[Floats, Floats]:
        """Cosines and sines of the rotary embedding at `positions [n]`, float32 `[n, 1 or 2, rotary_dim / 2]` each.

        What queries and keys are multiplied by is in them. Two where that differs: those of keys, then of queries.
        """
        cos, sin = (turn[:, None] for turn in turns(self.rope_theta, self.rotary_dim, self.rope_scaling, positions))
        if self.query_growth is None:
            return cos, sin
        grown = self.query_growth.at(positions)[:, None, None]
        return np.concatenate([cos, cos * grown], 1), np.concatenate([sin, sin * grown], 1)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by our own name; matrices are `[out, in]`, those of experts `[expert, out, in]`."""
        d, inner, kv = self.d_model, self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.gemma is not None:
            return self._gemma(self.gemma)
        attention: dict[str, tuple[int, ...]] = {"attention_norm": (d,), "mlp_norm": (d,)}
        attention |= {"q": (inner, d), "k": (kv, d), "v": (kv, d), "o": (d, inner)}
        if self.qkv_bias:
            attention |= {"q_bias": (inner,), "k_bias": (kv,), "v_bias": (kv,)}
        if self.head_norm:
            attention |= {"q_norm": (self.head_dim,), "k_norm": (self.head_dim,)}
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, d), "norm": (d,)} | self._conditioning()
        for i in range(self.layers):
            layer = attention | (self._experts() if self.sparse(i) else _gated(d, self.mlp_size))
            shapes |= {f"layers.{i}.{part}": shape for part, shape in layer.items()}
        return shapes if self.tied else shapes | {"head": (self.vocab_size, d)}

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def active_parameters(self) -> int:
        """Number of weights that one token meets: all, embedding included, but the routed experts it passes by."""
        if self.experts is None:
            return self.parameters
        idle = (self.experts.count - self.experts.chosen) * 3 * self.experts.size * self.d_model
        return self.parameters - idle * sum(map(self.sparse, range(self.layers)))

    def _gemma(self, gemma: Gemma) -> dict[str, tuple[int, ...]]:
        assert self.experts is not None
        e, d = self.experts, self.d_model
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, d), "norm": (d,)} | self._conditioning()
        mixture: dict[str, tuple[int, ...]] = {"router": (e.count, d), "expert_scale": (e.count,)}
        mixture |= {"experts.gate_up": (e.count, 2 * e.size, d), "experts.down": (e.count, d, e.size)}
        for i in range(self.layers):
            own = gemma.shapes(d, layer=i, heads=self.heads, sizes=self.heads_of(i), mlp=self.mlp_size)
            shapes |= {f"layers.{i}.{part}": shape for part, shape in (own | mixture).items()}
        return shapes

    def _conditioning(self) -> dict[str, tuple[int, ...]]:
        d, size = self.d_model, self.conditioning_size
        middle = {f"conditioning.{part}": shape for part, shape in _gated(d, size).items()}
        return {"conditioning_norm": (d,), **middle} if size else {}

    def _experts(self) -> dict[str, tuple[int, ...]]:
        assert self.experts is not None
        e, d = self.experts, self.d_model
        shapes: dict[str, tuple[int, ...]] = {"router": (e.count, d)}
        if e.corrected:
            shapes["router_correction"] = (e.count,)
        shapes |= {f"experts.{part}": (e.count, *shape) for part, shape in _gated(d, e.size).items()}
        if e.shared_size:
            shapes |= {f"shared.{part}": shape for part, shape in _gated(d, e.shared_size).items()}
        return shapes


def _gated(d: int, size: int) -> dict[str, tuple[int, ...]]:
    return {"gate": (size, d), "up": (size, d), "down": (d, size)}

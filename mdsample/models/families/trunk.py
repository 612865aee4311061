"""Trunk: what a published model is, as data. A family writes it, every backend reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import attrs

from mdsample.errors import ModelError

#: what no number of a model exceeds: any of them, a real one, layers, experts of all layers
LARGEST, HUGE, LAYERS, EXPERTS = 2**40, 1e30, 1000, 100_000


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
    #: added to the mean square in RMSNorm
    norm_eps: float
    #: queries, keys and values have biases
    qkv_bias: bool = False
    #: queries and keys are normalised head by head before they are rotated
    head_norm: bool = False
    #: block-causal attention: a position sees its own block of this many positions and all before it; `None`: all
    block: int | None = None
    #: the logits of position i are read one place before it, at i − 1 (at 0 for the first)
    shifted: bool = False
    experts: Experts | None = None
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

    def __attrs_post_init__(self) -> None:
        """Checks what a backend relies on."""
        if self.heads % self.kv_heads:
            raise ModelError(f"{self.family}: {self.heads} heads cannot share {self.kv_heads} key-value heads evenly")
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            raise ModelError(
                f"{self.family}: rotary embeddings need an even width of at most a head's, {self.head_dim}; "
                f"found {self.rotary_dim}"
            )
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

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by our own name; matrices are `[out, in]`, those of experts `[expert, out, in]`."""
        d, inner, kv = self.d_model, self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention: dict[str, tuple[int, ...]] = {"attention_norm": (d,), "mlp_norm": (d,)}
        attention |= {"q": (inner, d), "k": (kv, d), "v": (kv, d), "o": (d, inner)}
        if self.qkv_bias:
            attention |= {"q_bias": (inner,), "k_bias": (kv,), "v_bias": (kv,)}
        if self.head_norm:
            attention |= {"q_norm": (self.head_dim,), "k_norm": (self.head_dim,)}
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, d), "norm": (d,)}
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


@attrs.frozen
class Fields:
    """A published configuration, read field by field; every error names family and field."""

    family: str
    config: Mapping[str, object]

    def require(self, *names: str) -> None:
        """All of these must be there."""
        missing = [name for name in names if self.config.get(name) is None]
        if missing:
            raise ModelError(f"{self.family}: config.json lacks {', '.join(missing)}")

    def only(self, name: str, *implemented: object) -> None:
        """The field must have one of the implemented values; the first stands for an absent field."""
        given = self.config.get(name, implemented[0])
        # 1 == True in Python, and 'block_group_size: true' is not what anyone means
        if not any(given == value and type(given) is type(value) for value in implemented):
            wanted = " or ".join(repr(value) for value in implemented)
            raise ModelError(f"{self.family}: {name} = {given!r:.80} is not implemented; {wanted} is")

    def count(self, name: str, most: int = LARGEST) -> int:
        """A positive whole number, at most `most`."""
        return self._count(name, self.config.get(name), most)

    def layers(self, name: str, experts: int = 1) -> int:
        """Number of layers, of which each may have so many experts; refused before every tensor of each is named."""
        return self.count(name, min(LAYERS, max(1, EXPERTS // experts)))

    def count_or(self, name: str, otherwise: int) -> int:
        """A positive whole number, or `otherwise` where the field is absent or null."""
        value = self.config.get(name)
        return otherwise if value is None else self._count(name, value)

    def _count(self, name: str, value: object, most: int = LARGEST) -> int:
        if type(value) is not int or value < 1:
            raise ModelError(f"{self.family}: {name} must be a positive whole number; found {value!r:.80}")
        if value > most:
            raise ModelError(f"{self.family}: {name} must be at most {most:,}; found {value!r:.80}")
        return value

    def real(self, name: str) -> float:
        """A positive number, far from what overflows."""
        value = self.config.get(name)
        if type(value) not in (int, float) or not isinstance(value, int | float) or not 0 < value < HUGE:
            raise ModelError(f"{self.family}: {name} must be a positive number; found {value!r:.80}")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false; absent is false."""
        value = self.config.get(name, False)
        if not isinstance(value, bool):
            raise ModelError(f"{self.family}: {name} must be true or false; found {value!r:.80}")
        return value

    def token(self, name: str) -> int:
        """A token id; that it lies inside the vocabulary is checked by `Trunk`."""
        value = self.config.get(name)
        if type(value) is not int or abs(value) > LARGEST:
            raise ModelError(f"{self.family}: {name} must be one token id; found {value!r:.80}")
        return value

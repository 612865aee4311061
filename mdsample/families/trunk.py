"""Trunk: what a published model is, as data. A family writes it, every backend reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from mdsample.loading import ModelError


@attrs.frozen(kw_only=True)
class Trunk:
    """A dense transformer with full attention: RMSNorm, rotary half-split, grouped queries, SwiGLU, no biases."""

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
    #: width of the gated middle
    mlp_size: int
    #: rotary base
    rope_theta: float
    #: added to the mean square in RMSNorm
    norm_eps: float
    #: the head is the embedding, and has no tensor of its own
    tied: bool
    mask_id: int
    #: the token that ends and pads a text
    end_id: int | None
    #: the token that stands before every text
    start_id: int | None
    #: the longest row, tokens
    max_length: int
    #: the published name of every tensor in `shapes`
    names: Mapping[str, str] = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        """Checks what a backend relies on."""
        if self.heads % self.kv_heads:
            raise ModelError(f"{self.family}: {self.heads} heads cannot share {self.kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise ModelError(f"{self.family}: rotary embeddings need heads of even width; found {self.head_dim}")
        for role, token in (("mask", self.mask_id), ("end", self.end_id), ("start", self.start_id)):
            if token is not None and not 0 <= token < self.vocab_size:
                raise ModelError(
                    f"{self.family}: the {role} token is {token}, but ids go from 0 to {self.vocab_size - 1}"
                )
        if self.names.keys() != self.shapes.keys():
            wrong = ", ".join(sorted(self.names.keys() ^ self.shapes.keys()))
            raise ModelError(f"{self.family}: its names and the trunk's tensors differ in {wrong}")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by our own name; matrices are `[out, in]`."""
        d, inner, kv = self.d_model, self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer: dict[str, tuple[int, ...]] = {
            "attention_norm": (d,),
            "q": (inner, d),
            "k": (kv, d),
            "v": (kv, d),
            "o": (d, inner),
            "mlp_norm": (d,),
            "gate": (self.mlp_size, d),
            "up": (self.mlp_size, d),
            "down": (d, self.mlp_size),
        }
        shapes: dict[str, tuple[int, ...]] = {"embed": (self.vocab_size, d), "norm": (d,)}
        shapes |= {f"layers.{i}.{part}": shape for i in range(self.layers) for part, shape in layer.items()}
        return shapes if self.tied else shapes | {"head": (self.vocab_size, d)}


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
        found = self.config.get(name, implemented[0])
        # 1 == True in Python, and 'block_group_size: true' is nobody's intention
        if not any(found == value and type(found) is type(value) for value in implemented):
            wanted = " or ".join(repr(value) for value in implemented)
            raise ModelError(f"{self.family}: {name} = {found!r} is not implemented; {wanted} is")

    def count(self, name: str) -> int:
        """A positive whole number."""
        value = self.config.get(name)
        if type(value) is not int or value < 1:
            raise ModelError(f"{self.family}: {name} must be a positive whole number; found {value!r}")
        return value

    def real(self, name: str) -> float:
        """A positive finite number."""
        value = self.config.get(name)
        if type(value) not in (int, float) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ModelError(f"{self.family}: {name} must be a positive number; found {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.config.get(name)
        if not isinstance(value, bool):
            raise ModelError(f"{self.family}: {name} must be true or false; found {value!r}")
        return value

    def token(self, name: str) -> int:
        """A token id; that it lies inside the vocabulary is checked by `Trunk`."""
        value = self.config.get(name)
        if type(value) is not int:
            raise ModelError(f"{self.family}: {name} must be one token id; found {value!r}")
        return value

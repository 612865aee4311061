"""Rotary embeddings as data: at which frequencies a model turns its heads, published scalings included.

The rules are those of transformers (`modeling_rope_utils.py`, 5.23; the same since 4.45): `linear` divides every
frequency, `llama3` (Llama 3.1) the slow ones, `yarn` (arXiv 2309.00071) the slow ones along a ramp, and it enlarges
queries and keys. They do not look at a row's length; those that do (`dynamic`, `longrope`) are not implemented.
"""

from __future__ import annotations

import math
from typing import ClassVar, cast

import attrs
import numpy as np

from mdsample.core.arrays import Doubles, Floats, Longs
from mdsample.errors import ModelError
from mdsample.models.families.fields import Fields


@attrs.frozen
class Linear:
    """Positions are divided by `factor`."""

    #: what queries and keys are multiplied by
    enlarged: ClassVar[float] = 1.0
    factor: float
    kind: str = attrs.field(default="linear", init=False)

    def scaled(self, plain: Doubles, theta: float) -> Doubles:
        """The frequencies `[n]`, radians a position, in place of the plain ones of the base `theta`."""
        return plain / self.factor


@attrs.frozen
class Llama3:
    """Wavelengths above `original / low` are divided by `factor`, those below `original / high` stay as they are."""

    #: as in `Linear`
    enlarged: ClassVar[float] = 1.0
    factor: float
    low: float
    high: float
    #: the longest row before the model was extended, tokens
    original: float
    kind: str = attrs.field(default="llama3", init=False)

    def scaled(self, plain: Doubles, theta: float) -> Doubles:
        """As `Linear.scaled`."""
        turns = self.original * plain / (2 * math.pi)
        kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return plain * (kept + (1 - kept) / self.factor)


@attrs.frozen
class Yarn:
    """Between `fast` turns in `original` positions and `slow` ones a ramp leads from a frequency to its `factor`-th."""

    factor: float
    #: the longest row before the model was extended, tokens
    original: float
    fast: float
    slow: float
    #: whether the ramp begins and ends at whole numbers
    truncated: bool
    #: what queries and keys are multiplied by
    enlarged: float
    kind: str = attrs.field(default="yarn", init=False)

    def scaled(self, plain: Doubles, theta: float) -> Doubles:
        """As `Linear.scaled`."""
        size = 2 * len(plain)
        low, high = (
            size * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(theta))
            for turns in (self.fast, self.slow)
        )
        if self.truncated:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        # a ramp of no length is a step
        ramp = np.clip((np.arange(len(plain)) - low) / (high - low if high != low else 0.001), 0, 1)
        return plain * (1 - ramp + ramp / self.factor)


Scaling = Linear | Llama3 | Yarn


@attrs.frozen
class Growth:
    """Queries are multiplied by 1 + `beta` · ln(1 + ⌊position / `original`⌋), as in Llama 4 and Ministral 3."""

    beta: float
    #: the longest row before the model was extended, tokens
    original: float

    def at(self, positions: Longs) -> Floats:
        """The factors at `positions [n]`, float32."""
        return (1 + self.beta * np.log1p(np.floor(positions / self.original))).astype(np.float32)


#: the entries of each type, beside those of all types
_ENTRIES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim"),
}
#: the last two change nothing by themselves
_ALWAYS = ("type", "rope_type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings", "finetuned")
#: what transformers takes where nothing else is said
_FAST, _SLOW = 32.0, 1.0


@attrs.frozen
class Rotary:
    """What a configuration says of its rotary embeddings."""

    #: the base: a head's dimensions turn by 1 to 1/theta radians a position
    theta: float
    #: the part of a head that is turned, 0 to 1
    part: float
    scaling: Scaling | None


def read_rotary(fields: Fields, known: tuple[str, ...] = ()) -> Rotary:
    """Base, turned part and scaling; `known`: entries of the scaling that the family itself reads.

    transformers 5 writes `rope_parameters` in place of `rope_theta`, `rope_scaling` and `partial_rotary_factor`. Raises
    `ModelError` for a type of scaling that is not implemented, and for an entry that is not known.
    """
    entries = rope_entries(fields)
    own = {name: fields.get(name) for name in ("rope_theta", "partial_rotary_factor")}
    given = {**entries.config, **{name: value for name, value in own.items() if value is not None}}
    read = Fields(fields.family, given)
    read.require("rope_theta")
    theta = read.real("rope_theta")
    part = read.real("partial_rotary_factor") if "partial_rotary_factor" in given else 1.0
    kind = entries.config.get("rope_type", entries.config.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ENTRIES:
        raise ModelError(f"{entries.family} of type {kind!r:.80} is not implemented; {', '.join(sorted(_ENTRIES))} are")
    for name, value in entries.config.items():
        if name not in (*_ALWAYS, *_ENTRIES[kind], *known):
            raise ModelError(
                f"{entries.family} of type {kind!r} with {name:.80} = {value!r:.80} is not implemented; remove "
                f"{name:.80} from config.json if the model's own code does not read it"
            )
    return Rotary(theta, part, _scaling(kind, entries, theta, fields))


def rope_entries(fields: Fields) -> Fields:
    """What `rope_scaling` says, or `rope_parameters` in its place; `ModelError` if both are there and differ."""
    both, named = dict[str, object](), "rope_scaling"
    for name in ("rope_scaling", "rope_parameters"):
        value = fields.get(name)
        # false is how some published files write none
        if value is None or value is False:
            continue
        if not isinstance(value, dict):
            raise ModelError(f"{fields.family}: {name} must be an object or null; found {value!r:.80}")
        for entry, said in cast("dict[str, object]", value).items():
            if said is not None and both.setdefault(entry, said) != said:
                raise ModelError(f"{fields.family}: rope_scaling and rope_parameters differ in {entry:.80}; remove one")
        named = name
    return Fields(f"{fields.family}: {named}", both)


def _scaling(kind: str, entries: Fields, theta: float, fields: Fields) -> Scaling | None:
    if kind == "default":
        return None
    if kind == "linear":
        return Linear(entries.real("factor"))
    longest = float(fields.count("max_position_embeddings"))
    # transformers lets a field of this name beside the scaling go first
    outer = fields.get("original_max_position_embeddings")
    read = Fields(entries.family, {"original_max_position_embeddings": longest, **entries.config})
    original = (
        read.real("original_max_position_embeddings")
        if outer is None
        else fields.real("original_max_position_embeddings")
    )
    if kind == "llama3":
        low, high = read.real("low_freq_factor"), read.real("high_freq_factor")
        if low >= high:
            raise ModelError(f"{read.family}: low_freq_factor = {low:g} must be less than high_freq_factor = {high:g}")
        return Llama3(read.real("factor"), low, high, original)
    factor = read.real("factor") if "factor" in read.config else longest / original
    if theta <= 1:
        raise ModelError(f"{read.family} of type 'yarn' needs a rope_theta above 1; found {theta:g}")
    return Yarn(
        factor=factor,
        original=original,
        fast=read.real("beta_fast") if read.config.get("beta_fast") else _FAST,
        slow=read.real("beta_slow") if read.config.get("beta_slow") else _SLOW,
        truncated=read.flag("truncate") if "truncate" in read.config else True,
        enlarged=read.real("attention_factor") if "attention_factor" in read.config else _enlarged(read, factor),
    )


def _enlarged(read: Fields, factor: float) -> float:
    """What YaRN multiplies queries and keys by where `attention_factor` does not say it."""

    def grown(times: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * times * math.log(factor) + 1.0

    if read.config.get("mscale") and read.config.get("mscale_all_dim"):
        return grown(read.real("mscale")) / grown(read.real("mscale_all_dim"))
    return grown(1.0)


def turns(theta: float, size: int, scaling: Scaling | None, positions: Longs) -> tuple[Floats, Floats]:
    """Cosines and sines by which `size` dimensions are turned at `positions [n]`, float32 `[n, size / 2]` each.

    What a scaling enlarges queries and keys by is in them.
    """
    half = size // 2
    frequencies = theta ** -(np.arange(half) / half)
    enlarged = 1.0
    if scaling is not None:
        frequencies, enlarged = scaling.scaled(frequencies, theta), scaling.enlarged
    angles = positions[:, None] * frequencies
    return (np.cos(angles) * enlarged).astype(np.float32), (np.sin(angles) * enlarged).astype(np.float32)

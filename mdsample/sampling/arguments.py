"""Arguments: what a caller may pass as a policy, a seed, a model and a canvas, and a sentence for all else."""

from __future__ import annotations

import operator
from typing import SupportsIndex, cast

from mdsample.core.canvas import Canvas
from mdsample.errors import shown
from mdsample.policy.base import Part, Policy
from mdsample.policy.parsing import parse

#: rows in one pass; a larger number says the same, and does not fit where it is counted with
_MOST = 2**31 - 1


def as_policy(policy: Policy | Part | str) -> Policy:
    """The policy; text is read as `parse` reads it. Raises `SpecError` or `TypeError`."""
    match policy:
        case Policy():
            return policy
        case Part():
            return Policy.of(policy)
        case str():
            return parse(policy)
        case _:
            raise TypeError(f"a sampler runs a Policy, a Part or text such as 'med'; got {shown(policy)}")


def as_seed(seed: object) -> int:
    """The seed as Python's own number, of which randomness is made; `TypeError` for what is not a whole number."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be a whole number; got {shown(seed)}")
    return operator.index(cast("SupportsIndex", seed))


def as_batch_size(size: object) -> int:
    """Rows in one forward pass; `TypeError` or `ValueError` for what is not a whole number above 0."""
    if isinstance(size, bool) or not hasattr(size, "__index__"):
        raise TypeError(f"batch_size must be a whole number; got {shown(size)}")
    number = operator.index(cast("SupportsIndex", size))
    if number < 1:
        raise ValueError(f"batch_size must be at least 1; got {number}")
    return min(number, _MOST)


def require_canvas(denoiser: object, canvas: object) -> None:
    """Raises `TypeError` unless these are a model and a canvas, in this order."""
    if isinstance(denoiser, Canvas):
        raise TypeError("the model comes first, then the canvas: sampler.run(model, canvas)")
    if not hasattr(denoiser, "predict"):
        raise TypeError(f"a sampler runs on a model from mdsample.load; got {type(denoiser).__name__}")
    if not isinstance(canvas, Canvas):
        raise TypeError(
            f"a sampler fills a Canvas; got {type(canvas).__name__}: make one with "
            "template.canvas(model.tokenizer, [{…}]), or give texts to mdsample.sample(model, …)"
        )

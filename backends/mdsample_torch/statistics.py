"""Statistics of logits: by Triton where it runs, else by Torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from mdsample_torch.reduce import Reduced, reduce_
from mdsample_torch.weights import BLOCK


def statistics(scores: Tensor, scratch: Tensor) -> Reduced:
    """As `reduce_`, but `scores` may be left as they are: on a GPU that Triton knows, by its kernels."""
    kernel = _kernel(scores.device) if scores.device.type == "cuda" else None
    return reduce_(scores, scratch) if kernel is None else kernel(scores)


@cache
def _kernel(device: torch.device) -> Callable[[Tensor], Reduced] | None:
    """`mdsample_torch.reduce_triton.reduce`, if it works on this GPU; tried once."""
    try:
        from mdsample_torch.reduce_triton import reduce

        reduce(torch.zeros((1, BLOCK), device=device))
    except Exception:
        # no Triton, no C compiler or headers for it, a GPU that it does not know: each fails with errors of its own
        return None
    return reduce

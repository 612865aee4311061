"""The same statistics as `mdsample_torch.reduce`, by two Triton kernels that read the logits once and leave them alone.

The first takes parts of a row, so that a few places fill a GPU too; the second puts a row's parts together and reads
one of them again, for the token. A part's size is fixed: what is said of a place never depends on its company.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mdsample_torch.reduce import FLOOR, Reduced

if TYPE_CHECKING:
    # Triton has no type stubs; its compiler looks the annotations up
    triton: Any = ...
    tl: Any = ...
    tensor = constexpr = Any
else:
    import triton
    import triton.language as tl
    from triton.language import constexpr, tensor

#: columns of a part, a power of two: 8 rows of a usual vocabulary (127,000) are 248 programs
COLUMNS = 4096
#: for both kernels; fused products would make roundings depend on Triton's version
_OPTIONS = {"num_warps": 8, "enable_fp_fusion": False}


def reduce(scores: Tensor) -> Reduced:
    """Statistics of `scores [n, W]`, contiguous float32 or bfloat16 on a GPU, −inf where forbidden; nothing is written.

    Numbers are float32 whatever the scores are. The host does not wait, save for the compiler at the first call.
    """
    rows, width = scores.shape
    count = triton.cdiv(width, COLUMNS)
    parts = torch.empty((rows, 4, count), dtype=torch.float32, device=scores.device)
    token = torch.empty(rows, dtype=torch.int64, device=scores.device)
    numbers = torch.empty((4, rows), dtype=torch.float32, device=scores.device)
    # Triton launches on the current GPU, which need not be the one that has the scores
    with torch.cuda.device_of(scores):
        _part[(rows, count)](scores, parts, width, COLUMNS, FLOOR, **_OPTIONS)
        lanes = triton.next_power_of_2(count)
        _whole[(rows,)](scores, parts, token, numbers, width, count, lanes, COLUMNS, FLOOR, **_OPTIONS)
    return Reduced(token, *numbers)


@triton.jit
def _part(scores: tensor, parts: tensor, width: tensor, COLUMNS: constexpr, FLOOR: constexpr) -> None:
    """Statistics of one part of one row, to `parts [n, 4, count]`.

    The highest score (NaN if any is), the second highest and, with b how far each of the others is below the highest,
    the sums of exp(b) and of b · exp(b).
    """
    row, part, count = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    column = part * COLUMNS + tl.arange(0, COLUMNS)
    score = tl.load(scores + row * width + column, column < width, float("-inf")).to(tl.float32)
    highest = tl.max(score, 0)
    top = column == tl.min(tl.where(score == highest, column, width), 0)
    # a part without any possible token has no distances: −inf − −inf
    below = tl.maximum(score - tl.where(highest == float("-inf"), 0.0, highest), FLOOR)
    below = tl.where(top, FLOOR, below)
    weight = tl.exp(below)
    # a maximum passes over NaN
    broken = tl.max((score != score).to(tl.int32), 0) > 0
    out = parts + row * 4 * count + part
    tl.store(out, tl.where(broken, float("nan"), highest))
    tl.store(out + count, tl.max(tl.where(top, float("-inf"), score), 0))
    tl.store(out + 2 * count, tl.sum(weight, 0))
    tl.store(out + 3 * count, tl.sum(weight * below, 0))


@triton.jit
def _whole(
    scores: tensor,
    parts: tensor,
    tokens: tensor,
    numbers: tensor,
    width: tensor,
    count: tensor,
    LANES: constexpr,
    COLUMNS: constexpr,
    FLOOR: constexpr,
) -> None:
    """Statistics of one row, to `tokens [n]` and `numbers [4, n]` in the order of `Reduced`.

    LANES: the least power of two from `count` on.
    """
    row, rows = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    part = tl.arange(0, LANES)
    pointers, within = parts + row * 4 * count + part, part < count
    highest = tl.load(pointers, within, float("-inf"))
    second = tl.load(pointers + count, within, float("-inf"))
    rest = tl.load(pointers + 2 * count, within, 0.0)
    mean = tl.load(pointers + 3 * count, within, 0.0)
    broken = tl.max((highest != highest).to(tl.int32), 0) > 0
    peak = tl.where(broken, float("nan"), tl.max(highest, 0))
    # the most probable token is left out of its own part's sums only; elsewhere the highest is one of the rest
    own = part == tl.min(tl.where(highest == peak, part, LANES), 0)
    below = tl.maximum(highest - peak, FLOOR)
    weight = tl.exp(below)
    mean = tl.sum(tl.where(own, mean, weight * (mean + below * (1 + rest))), 0)
    rest = tl.sum(tl.where(own, rest, weight * (1 + rest)), 0)
    second = tl.max(tl.where(own, second, highest), 0) - peak
    total = 1 + rest
    # log1p: what rounding took from the sum comes back
    log_total = tl.log(total) + (rest - (total - 1)) / total
    best = -log_total
    # tokens whose scores differ may round to one log-probability, and equals are equals: the first of them
    column = tl.min(tl.where(below + best == best, part, LANES), 0) * COLUMNS + tl.arange(0, COLUMNS)
    score = tl.load(scores + row * width + column, column < width, float("-inf")).to(tl.float32)
    tl.store(tokens + row, tl.min(tl.where(score - peak + best == best, column, width - 1), 0))
    tl.store(numbers + row, tl.where(tl.abs(peak) < float("inf"), best, peak))
    tl.store(numbers + rows + row, tl.where(second <= FLOOR, float("-inf"), second - log_total))
    tl.store(numbers + 2 * rows + row, log_total - mean / total)
    tl.store(numbers + 3 * rows + row, log_total)

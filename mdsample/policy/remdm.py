"""ReMDM's clock: how many tokens are revealed and masked again in a step (arXiv 2503.00307, log-linear schedule).

Time runs from 1 to 0 in equal steps; α is the share of the blanks that is to be filled. From time t to s a token that
is there is masked again with probability σ, and a blank is filled with probability (α_s − (1 − σ)α_t)/(1 − α_t), so
that the share filled is α_s on average whatever σ is.
"""

from __future__ import annotations

from functools import lru_cache

import attrs

KINDS = ("cap", "rescale", "conf", "loop")
#: published η by kind, for 1,024 steps
_ETA = {"cap": 0.008, "rescale": 0.015, "conf": 1.0, "loop": 0.02}
#: `loop`: times between which the clock is paused for α, and α there
ON, OFF, HELD = 0.55, 0.05, 0.9


@attrs.frozen
class Tick:
    """One step of the clock."""

    #: the share to be filled before and after
    before: float
    after: float
    #: probability that a token is masked again; of `conf` the sum over the row's tokens
    sigma: float
    #: probability that a blank is filled
    reveal: float


@lru_cache(maxsize=4096)
def clock(kind: str, eta: float | None, steps: int, step: int) -> Tick:
    """The step number `step` (from 0) out of `steps`; beyond the last one all blanks are filled and nothing is masked.

    `eta=None` is the published one of the kind.
    """
    if step >= steps:
        return Tick(1.0, 1.0, 0.0, 1.0)
    eta = _ETA[kind] if eta is None else eta
    t, s = 1 - step / steps, 1 - (step + 1) / steps
    before, after = (_held(t), _held(s)) if kind == "loop" else (1 - t, 1 - s)
    most = min(1.0, (1 - after) / before) if before > 0 else 1.0
    match kind:
        case "cap":
            sigma = min(eta, most)
        case "rescale":
            sigma = eta * most
        case "conf":
            # blanks have σ = 0 there
            return Tick(before, after, most, (after - before) / (1 - before))
        case _:
            sigma = min(eta, most) if OFF < t <= ON else 0.0
    reveal = (after - (1 - sigma) * before) / (1 - before)
    return Tick(before, after, sigma, min(1.0, max(0.0, reveal)))


def _held(t: float) -> float:
    """α of `loop`: up to `HELD` at time `ON`, there until `OFF`, then up to 1."""
    if t > ON:
        return HELD * (1 - t) / (1 - ON)
    return HELD if t > OFF else 1 - (1 - HELD) * t / OFF

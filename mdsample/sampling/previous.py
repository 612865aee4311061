"""Shifts: how far what the model says of a blank moved from one look to the next, KL(look ‖ look before) in nats.

Looks are compared where the model is; nothing the size of the vocabulary is kept or moved here. What is kept is each
row's last look itself, on the device: the hidden states of the places looked at, and their logits if they were one
chunk. It is let go as soon as none of its rows is running or all of them have had another look.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Floats
from mdsample.models.denoiser import Denoiser, Prediction


@attrs.frozen(eq=False)
class Glance:
    """One row's part of a look, for its next look to be compared with."""

    #: whose look it is; another model's cannot be compared
    denoiser: Denoiser
    prediction: Prediction
    #: the row's place in it
    line: int
    #: what was on offer, `[L]`
    eligible: Bools
    #: the shifts as of then, the latest first, `[n, L]`
    shifts: Floats


def glances_of(denoiser: Denoiser, prediction: Prediction, eligible: Bools, shifts: Floats) -> list[Glance]:
    """A glance for every row of a look; `eligible [B, L]`, `shifts [B, n, L]`."""
    return [Glance(denoiser, prediction, line, eligible[line], shifts[line]) for line in range(len(eligible))]


def shifts_of(prediction: Prediction, eligible: Bools, glances: Sequence[Glance | None], count: int) -> Floats:
    """The last `count` shifts of every row, the latest first, `[B, count, L]` float32, nats.

    `eligible [B, L]`; `glances [B]`, `None` for a row without a look before. +inf wherever one of the two looks had the
    position not on offer, or there was none.
    """
    out = np.full((len(eligible), count, eligible.shape[1]), np.inf, np.float32)
    both = np.zeros_like(eligible)
    lines: dict[Prediction, list[int]] = {}
    before = np.zeros(len(eligible), np.int32)
    for line, glance in enumerate(glances if count else ()):
        if glance is None:
            continue
        width = min(eligible.shape[1], len(glance.eligible))  # as wide as the company of then or of now
        both[line, :width] = eligible[line, :width] & glance.eligible[:width]
        out[line, 1:, :width] = glance.shifts[: count - 1, :width]
        lines.setdefault(glance.prediction, []).append(line)
        before[line] = glance.line
    for old, here in lines.items():
        which, position = np.nonzero(both[here])
        row = np.array(here, np.int32)[which]
        out[row, 0, position] = prediction.divergence(row, position.astype(np.int32), old, before[row])
    return out

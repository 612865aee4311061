"""P2's plan: which tokens are to stand after a step, of those that stand and those that could (arXiv 2502.03540).

A blank scores the log-probability of its most probable token, a token that stands η times its own in the same look: so
the paper. In the authors' code it scores η times the log-probability of the token that would be drawn there now. The
best of all, as many as the clock says, are to stand: blanks among them are filled, tokens not among them are masked.
"""

from __future__ import annotations

import numpy as np

from mdsample.core.arrays import Bools
from mdsample.policy.evidence import WrittenLogProb
from mdsample.policy.view import View

#: whose log-probability a token that stands scores: its own, or that of the most probable token there now
SCORES = ("own", "best")
#: what stands for −inf, which η = 0 could not scale
_FLOOR = -1e30


def planned(view: View, eta: float, steps: int, scores: str) -> Bools:
    """Where a token is to stand after this step, `[B, L]`: on offer now, or written before.

    After step i of `steps` that are ⌈N · i / steps⌉ of a row's N open positions, and never fewer than stand already.
    Among equals a token that stands goes before a blank, then the lower position.
    """
    batch = view.batch
    written = batch.initially_blank & ~batch.blank
    candidate = written | view.eligible
    number = batch.initially_blank.sum(1)
    left = np.maximum(steps - 1 - batch.step.astype(np.int64), 0)
    number = np.maximum(number - number * left // steps, written.sum(1))
    own = view.get(WrittenLogProb()) if scores == "own" else view.marginals.log_probability
    stands = np.fmax(own.astype(np.float64), _FLOOR)
    with np.errstate(over="ignore"):
        score = np.where(written, eta * stands, view.marginals.log_probability)
    order = np.lexsort((view.batch.blank, -score, ~candidate), axis=1)
    place = np.argsort(order, axis=1)
    return candidate & (place < number[:, None])

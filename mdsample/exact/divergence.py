"""How far a policy's law is from the joint it should be sampling."""

from __future__ import annotations

import numpy as np

from mdsample.core.arrays import Doubles
from mdsample.exact.law import Law
from mdsample.exact.states import distinct, pooled
from mdsample.exact.toy import Toy


def kl(joint: Toy, law: Law) -> float:
    """KL(joint ‖ law) in nats; inf if the law misses a row that can occur.

    Both are conditioned on the canvas's fixed text and compared at `law.filled`: the positions that are filled in every
    outcome. So a policy that leaves early is judged by what it always writes.
    """
    p, q = _both(joint, law)
    if p.sum() < 1 - 1e-9:
        return np.inf
    occurs = p > 0
    return float(max(0.0, (p[occurs] * np.log(p[occurs] / q[occurs])).sum()))


def tv(joint: Toy, law: Law) -> float:
    """Total variation between joint and law, from 0 to 1; compared as in `kl`."""
    p, q = _both(joint, law)
    return float((np.abs(p - q).sum() + max(0.0, 1 - p.sum())) / 2)


def _both(joint: Toy, law: Law) -> tuple[Doubles, Doubles]:
    """Probabilities of the law's outcomes at the positions it always fills, under the joint and under the law."""
    fixed = law.canvas.tokens
    rows = np.where(law.filled, law.tokens, fixed)
    first, which = distinct([rows])
    q = pooled(law.probability, which)
    return np.exp(joint.log_prob(joint.padded(rows[first])) - joint.log_prob(joint.padded(fixed))), q

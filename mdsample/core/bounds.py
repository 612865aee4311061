"""Bounds: what a step's parallel commits may cost, from statistics that the policy has seen anyway; see docs/bounds.md.

A step draws the tokens of its set independently from their marginals. With H the entropies (nats) and c the top
probabilities of the set, for *every* joint with these marginals

    KL(joint ‖ product) <= b = ΣH − max H
    TV(joint, product) <= d = min( √(b/2), 1 − Πc [if Σ(1 − c) <= 1], 1 − r·(1 − s) )

where r = Πc and s = Σ(1 − c), both without the least of the c. Of one position alone all three are 0.
"""

from __future__ import annotations

import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Indices


def parallel_bounds(
    group: Indices, entropy: Floats | Doubles, confidence: Floats | Doubles, groups: int
) -> tuple[Doubles, Doubles]:
    """b (nats) and d of each set of positions, both `[groups]` float64; `group [N]` says which set each belongs to.

    A confidence of 0 stands for one that is not known: of such a set d is √(b/2), at most 1.
    """
    total, most = np.zeros(groups), np.zeros(groups)
    np.add.at(total, group, entropy)
    np.maximum.at(most, group, entropy)
    b = np.maximum(total - most, 0.0)
    return b, np.minimum(np.sqrt(b / 2), coupling_bounds(group, confidence, groups))


def coupling_bounds(group: Indices, confidence: Floats | Doubles, groups: int) -> Doubles:
    """The terms of d that know top probabilities alone, `[groups]`; arguments as for `parallel_bounds`."""
    return _coupled(*_sums(group, confidence, groups))


def prefix_tv_bounds(entropy: Doubles, confidence: Floats | Doubles) -> Doubles:
    """d of the first n of each row's positions, for every n, `[B, N]`, as `parallel_bounds` has it bit for bit."""
    c = np.asarray(confidence, np.float64)
    b = np.maximum(np.cumsum(entropy, 1) - np.maximum.accumulate(entropy, 1), 0.0)
    least, every = np.minimum.accumulate(c, 1), np.cumprod(c, 1)
    rest = np.divide(every, least, out=np.zeros_like(c), where=least > 0)
    return np.minimum(np.sqrt(b / 2), _coupled(np.cumsum(1 - c, 1), least, rest))


def _coupled(errors: Doubles, least: Doubles, rest: Doubles) -> Doubles:
    """The least of 1 − Πc and 1 − r·(1 − s); arguments as `_sums` gives them."""
    alone = np.maximum(1 - (errors - (1 - least)), 0.0)
    return np.clip(1 - rest * np.maximum(alone, np.where(errors <= 1, least, 0.0)), 0.0, 1.0)


def certain_sets(group: Indices, confidence: Floats | Doubles, groups: int) -> Bools:
    """Of which sets the argmaxes together are the most probable of all, whatever the joint, `[groups]`.

    Sets of one, and those with 1 − Σ(1 − c) > 1 − min c: what Fréchet's inequality leaves the argmaxes at least is more
    than any other tuple can have (Fast-dLLM++, arXiv 2606.02955). Fast-dLLM's condition (2505.22618), n + 1 times
    1 − min c below 1, implies it. Arguments as for `parallel_bounds`.
    """
    errors, least, _ = _sums(group, confidence, groups)
    return (np.bincount(group, minlength=groups) == 1) | (1 - errors > 1 - least)


def _sums(group: Indices, confidence: Floats | Doubles, groups: int) -> tuple[Doubles, Doubles, Doubles]:
    """Σ(1 − c), min c, and Πc without the least, of each set."""
    c = np.asarray(confidence, np.float64)
    errors, least, rest = np.zeros(groups), np.ones(groups), np.ones(groups)
    np.add.at(errors, group, 1 - c)
    np.minimum.at(least, group, c)
    np.multiply.at(rest, group, c)
    return errors, least, np.divide(rest, least, out=np.zeros(groups), where=least > 0)

"""The part of a layer after attention, dense or with experts. N is the number of tokens."""

from __future__ import annotations

from typing import final

import attrs
import numpy as np

from mdsample.core.arrays import Floats, Longs
from mdsample.models.families.trunk import Experts


@final
@attrs.frozen(eq=False)
class Gated:
    """SwiGLU."""

    #: `[2 · size, d]`, gate above up: one large product is faster than two
    gate_up: Floats
    #: `[d, size]`
    down: Floats

    def __call__(self, x: Floats) -> Floats:
        """`x [N, d]` to `[N, d]`."""
        gate, up = np.split(x @ self.gate_up.T, 2, axis=1)
        hidden = _silu(gate)
        hidden *= up
        return hidden @ self.down.T


@final
@attrs.frozen(eq=False)
class Mixture:
    """Every token goes through the experts that its scores choose, and through the shared one."""

    spec: Experts
    #: `[experts, d]`
    router: Floats
    #: added to the scores when experts are chosen, `[experts]`
    correction: Floats | None
    experts: tuple[Gated, ...]
    shared: Gated | None

    def __call__(self, x: Floats) -> Floats:
        """`x [N, d]` to `[N, d]`."""
        out = np.zeros_like(x) if self.shared is None else self.shared(x)
        chosen, weights = route(x @ self.router.T, self.correction, self.spec)
        for number in np.unique(chosen):
            rows, slots = np.nonzero(chosen == number)
            out[rows] += weights[rows, slots, None] * self.experts[number](x[rows])
        return out


def route(logits: Floats, correction: Floats | None, spec: Experts) -> tuple[Longs, Floats]:
    """The experts of every token and their weights, both `[N, chosen]`, from the router's `logits [N, experts]`.

    Among equal scores the lowest number wins.
    """
    if spec.score == "softmax":
        scores = np.exp(logits - logits.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
    else:
        scores = np.float32(0.5) * (np.tanh(np.float32(0.5) * logits) + np.float32(1))  # a sigmoid without overflow
    wanted = scores if correction is None else scores + correction
    if spec.groups > 1:
        grouped = wanted.reshape(len(wanted), spec.groups, -1)
        rank = np.sort(grouped, axis=2)[:, :, -2:].sum(2)
        best = np.argsort(-rank, axis=1, kind="stable")[:, : spec.chosen_groups]
        closed = np.ones(rank.shape, np.bool_)
        np.put_along_axis(closed, best, False, axis=1)
        wanted = np.where(closed[:, :, None], -np.inf, grouped).reshape(wanted.shape)
    chosen = np.argsort(-wanted, axis=1, kind="stable")[:, : spec.chosen]
    weights = np.take_along_axis(scores, chosen, axis=1)
    if spec.normalized:
        weights /= np.maximum(weights.sum(1, keepdims=True), np.float32(1e-20))
    return chosen, weights * np.float32(spec.scale)


def _silu(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp(-x) is inf far below zero, and the quotient is then rightly zero
        grown: Floats = np.exp(-x)
    grown += 1
    return np.divide(x, grown, out=grown)

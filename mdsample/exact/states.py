"""States: all that a run can have become after the same number of steps, each once, with its probability.

N = states, L = positions. Two histories that lead to the same row are one state, which is what keeps exact laws small.
That is right only if no part looks back; so a part that does must say so (`remembers`), and one that looks back without
having said so is stopped (`_Forgetful`). In the same spirit a part that throws dice on the side is stopped (`_NoDice`):
nobody could follow its law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Bools, Doubles, Floats, Ints, Longs
from mdsample.core.canvas import Canvas
from mdsample.core.uniforms import Purpose, Uniforms
from mdsample.errors import LawTooLarge
from mdsample.models.denoiser import Denoiser, Prediction
from mdsample.policy.base import Policy
from mdsample.policy.view import Batch, View
from mdsample.sampling.observe import look_ahead, see
from mdsample.sampling.plan import Plan
from mdsample.sampling.previous import Glance

T = TypeVar("T")
Index = NDArray[np.integer[Any]] | Bools


@attrs.frozen(eq=False)
class States:
    """N states of one canvas row after the same number of steps."""

    #: `[N, L]`, the mask token in blanks
    tokens: Ints
    #: `[N, L]`
    blank: Bools
    #: step and probability of each commit, `[N, L]`, as in `State`; of the first history where several were merged
    written: Ints
    probability: Floats
    #: Σ b so far, nats, `[N]`, as in `State`; likewise of the first history
    error_bound: Doubles
    #: positions masked again so far, `[N]`
    remasked: Ints
    #: probability that the sampler comes here, `[N]`
    weight: Doubles
    #: probability that a run which is dealt this very row comes here: over the policy's own dice alone, `[N]`
    chance: Doubles
    #: number of the look that it was in last (`Walk.glances`), −1 before the first and where nobody asks, `[N]`
    glance: Longs

    @staticmethod
    def begin(canvas: Canvas) -> States:
        """The one state in which nothing is done."""
        shape = canvas.tokens.shape
        written, probability = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
        none, one = np.zeros(1), np.ones(1)
        count, unseen = none.astype(np.int32), np.full(1, -1, np.int64)
        return States(canvas.tokens, canvas.blank, written, probability, none, count, one, one, unseen)

    def __len__(self) -> int:
        """N."""
        return len(self.tokens)

    def merged(self, remembers: bool) -> States:
        """Equal states made one: equal rows and looks before and, if a part remembers, equal histories."""
        columns = [self.tokens, self.blank, self.remasked[:, None], self.glance[:, None]]
        if remembers:
            columns += [self.written, self.probability.view(np.int32), self.error_bound.view(np.int64)[:, None]]
        first, which = distinct(columns)
        weight, chance = pooled(self.weight, which), pooled(self.chance, which)
        return attrs.evolve(at(self, first), weight=weight, chance=chance)


@attrs.define(eq=False)
class Walk:
    """What stays the same while a law is followed, and how many branches may still be followed."""

    policy: Policy
    plan: Plan
    denoiser: Denoiser
    canvas: Canvas
    limit: int
    #: whether histories must be kept apart
    remembers: bool = attrs.field(init=False)
    spent: int = attrs.field(init=False, default=0)
    #: the states of the step before as they were looked at, if parts ask how looks differ
    glances: list[Glance] = attrs.field(init=False, factory=list[Glance])

    def __attrs_post_init__(self) -> None:
        """Asks the parts."""
        self.remembers = any(part.remembers for part in self.policy.parts)

    def spend(self, branches: int) -> None:
        """Counts branches before they are made; `LawTooLarge` if they are too many."""
        self.spent += branches
        if self.spent > self.limit:
            raise LawTooLarge(
                f"the law of {self.policy} on {self.denoiser.name} has more than {self.limit} branches; "
                "take fewer blanks or tokens, a narrower window, an order without noise, fewer steps of a rule that "
                "masks tokens again, or a higher limit"
            )

    def batch(self, states: States, step: int) -> Batch:
        """What parts may see of states."""
        count, canvas = len(states), self.canvas
        shape = states.tokens.shape
        return (Batch if self.remembers else _Forgetful)(
            states.tokens,
            states.blank,
            np.broadcast_to(canvas.blank, shape),
            np.broadcast_to(canvas.valid, shape),
            np.broadcast_to(canvas.slot, shape),
            canvas.names,
            states.written,
            states.probability,
            states.error_bound,
            np.full(count, step, np.int32),
            np.full(count, step * self.plan.passes, np.int32),
            self.plan.passes,
            self.denoiser.tokenizer,
        )

    def see(self, states: States, step: int) -> tuple[View, Prediction]:
        """One forward pass over states."""
        batch = self.batch(states, step)
        numbers: list[int] = states.glance.tolist()
        glances = [self.glances[number] if number >= 0 else None for number in numbers]
        view, prediction = see(self.plan, self.denoiser, batch, np.zeros(len(states), np.int32), glances)
        view = look_ahead(self.plan, self.denoiser, view, np.zeros(len(states), np.int32))
        return attrs.evolve(view, uniforms=_NoDice((), batch.step, 0)), prediction

    def view_at(self, view: View, states: States, step: int, index: Index) -> View:
        """The view of the states in `index`, repeated as often as they occur there."""
        if np.array_equal(index, np.arange(len(states))):
            return view
        batch = self.batch(at(states, index), step)
        return View(
            batch,
            at(view.marginals, index),
            view.eligible[index],
            view.uniforms,
            view.shifts[index],
            view.remaining[index],
            None if view.reread is None else view.reread[index],
        )


class _Forgetful(Batch):
    """A board on which the past cannot be read."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("written", "probability", "error_bound"):
            raise ValueError(
                f"a part reads board.{name}, which tells the past, without saying so; give its class `remembers = True`"
            )
        return super().__getattribute__(name)


class _NoDice(Uniforms):
    """No random numbers."""

    def at(self, purpose: Purpose) -> Doubles:
        """Refused."""
        raise ValueError(
            f"a part draws its own random numbers ({purpose!r}), so its exact law is unknown; noise belongs into "
            "Order.spread, a random count into RandomSelection.chances, coins into RandomRevise.chances"
        )

    def per_row(self, purpose: Purpose) -> Doubles:
        """Refused."""
        return self.at(purpose)


def at(values: T, index: Index) -> T:
    """An attrs value all of whose fields are arrays, indexed along their first axis."""
    return type(values)(*(field[index] for field in _fields(values)))


def joined(values: Sequence[T]) -> T:
    """attrs values all of whose fields are arrays, put one after the other along their first axis."""
    return type(values[0])(*(np.concatenate(column) for column in zip(*map(_fields, values), strict=True)))


def _fields(values: object) -> tuple[NDArray[Any], ...]:
    names = (field.name for field in attrs.fields(cast(type[attrs.AttrsInstance], type(values))))
    return tuple(getattr(values, name) for name in names)


def pooled(values: Doubles, which: Index) -> Doubles:
    """Sums of `values [N]` over equals, `which [N]` as `distinct` gives it."""
    return np.bincount(which, values).astype(np.float64, copy=False)


def distinct(columns: Sequence[NDArray[Any]]) -> tuple[Index, Index]:
    """Where each distinct row of `columns` (`[N, ·]` integers each) stands first, and the number of each row's own."""
    table = np.concatenate([column.astype(np.int64) for column in columns], 1)
    table -= table.min(0, initial=0)
    base = [int(most) + 1 for most in table.max(0, initial=0)]
    if math.prod(base) < 2**62:  # one number a row: sorting numbers is much faster than sorting rows
        key = np.zeros(len(table), np.int64)
        for column, digits in zip(table.T, base, strict=True):
            key = key * digits + column
        _, first, which = np.unique(key, return_index=True, return_inverse=True)
    else:
        _, first, which = np.unique(table, axis=0, return_index=True, return_inverse=True)
    return first, which.reshape(-1)

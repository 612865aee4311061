"""States: all that a run can have become after the same number of steps, each once, with its probability.

N = states, L = positions. Two histories that lead to the same row are one state, which is what keeps exact laws small.
That is right only if no part looks back; so a part that does must say so (`remembers`), and one that looks back without
having said so is stopped (`_HistoryGuard`). So is a part that throws dice on the side (`_RandomnessGuard`): its law
could not be followed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core.arrays import Doubles, Indices, Ints, Longs
from mdsample.core.canvas import Canvas
from mdsample.core.uniforms import Purpose, Uniforms
from mdsample.errors import LawTooLarge
from mdsample.policy.base import Policy
from mdsample.policy.view import Batch
from mdsample.sampling.observe import Kept, Observation, answered, observe
from mdsample.sampling.plan import Plan
from mdsample.sampling.state import State

T = TypeVar("T")


@attrs.frozen(eq=False)
class Branches:
    """N states of one canvas row after the same number of steps."""

    #: rows `[N, L]`, copies of the canvas's row; histories are those of the first one where several were merged
    state: State
    #: probability that the sampler comes here, `[N]`
    weight: Doubles
    #: probability that a run which is dealt this very row comes here: over the policy's own dice alone, `[N]`
    policy_probability: Doubles
    #: number of what evidence kept of it at its last step (`Walk.kept`), −1 where nothing is kept, `[N]`
    kept: Longs

    @staticmethod
    def begin(state: State) -> Branches:
        """The one state in which nothing is done."""
        return Branches(state, np.ones(1), np.ones(1), np.full(1, -1, np.int64))

    def __len__(self) -> int:
        """N."""
        return len(self.weight)

    def take(self, rows: Indices) -> Branches:
        """Some of them, in any number."""
        return Branches(self.state.take(rows), self.weight[rows], self.policy_probability[rows], self.kept[rows])

    def merged(self, remembers: bool) -> Branches:
        """Equal states made one: equal rows and predictions before and, if a part remembers, equal histories."""
        state = self.state
        columns = [state.tokens, state.blank, state.held]
        columns += [column[:, None] for column in (state.remasked, state.opened, state.idle, state.nfe, self.kept)]
        if remembers:
            columns += [state.written, state.probability.view(np.int32)]
            columns += [column.view(np.int64)[:, None] for column in (state.error_bound, state.tv_sum)]
        first, which = distinct(columns)
        return attrs.evolve(
            self.take(first),
            weight=pooled(self.weight, which),
            policy_probability=pooled(self.policy_probability, which),
        )

    @staticmethod
    def joined(parts: Sequence[Branches]) -> Branches:
        """All of them in one."""
        if len(parts) == 1:
            return parts[0]
        states = [part.state for part in parts]
        names = [field.name for field in attrs.fields(State) if field.name not in ("canvas", "events")]
        columns = {name: np.concatenate([getattr(state, name) for state in states]) for name in names}
        size = sum(map(len, parts))
        state = State(canvas=states[0].canvas.copies(np.zeros(size, np.int64)), **columns, events=())
        weight, policy_probability, kept = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("weight", "policy_probability", "kept")
        )
        return Branches(state, weight, policy_probability, kept)


@attrs.define(eq=False)
class Walk:
    """What stays the same while a law is followed, and how many branches may still be followed."""

    policy: Policy
    plan: Plan
    canvas: Canvas
    limit: int
    #: whether histories must be kept apart
    remembers: bool = attrs.field(init=False)
    spent: int = attrs.field(init=False, default=0)
    #: what evidence kept of the states of the step before
    kept: list[Kept] = attrs.field(init=False, factory=list[Kept])

    def __attrs_post_init__(self) -> None:
        """Asks the parts."""
        self.remembers = any(part.remembers for part in self.policy.parts)

    def spend(self, branches: int) -> None:
        """Counts branches before they are made; `LawTooLarge` if they are too many."""
        self.spent += branches
        if self.spent > self.limit:
            raise LawTooLarge(
                f"the law of {self.policy} on {self.plan.denoiser.name} has more than {self.limit} branches; "
                "take fewer blanks or tokens, a narrower window, an order without noise, fewer steps of a rule that "
                "masks tokens again, or a higher limit"
            )

    def batch(self, branches: Branches) -> Batch:
        """What parts may see of the branches."""
        rows = np.arange(len(branches), dtype=np.int32)
        batch = self.plan.batch(branches.state, rows)
        return batch if self.remembers else _HistoryGuard.of(batch)

    def noised(self, branches: Branches) -> tuple[Branches, Ints]:
        """The branches once for everything that a model may be shown in their blanks, and what that is, `[N, L]`."""
        shown, size = branches.state.tokens, self.plan.denoiser.vocab_size
        if self.plan.denoiser.noise == "mask":
            return branches, shown
        blank = branches.state.blank
        for position in np.flatnonzero(blank.any(0)).tolist():
            each = np.where(blank[:, position], size, 1)
            which = np.repeat(np.arange(len(branches)), each)
            self.spend(len(which))
            token = np.arange(len(which)) - np.repeat(np.cumsum(each) - each, each)
            branches, shown, blank = branches.take(which), shown[which], blank[which]
            shown[blank[:, position], position] = token[blank[:, position]]
            weights = branches.weight / each[which], branches.policy_probability / each[which]
            branches = attrs.evolve(branches, weight=weights[0], policy_probability=weights[1])
        return branches, shown

    def see(self, branches: Branches, shown: Ints | None = None) -> Observation:
        """The loop's own observation of all branches, without random numbers. `shown`: as `noised` gives it."""
        batch, rows = self.batch(branches), np.zeros(len(branches), np.int32)
        numbers: list[int] = branches.kept.tolist()
        before: list[Kept] = [self.kept[number] if number >= 0 else {} for number in numbers]
        shown = None if shown is None else shown[:, : batch.tokens.shape[1]]
        seen = answered(observe(self.plan, batch, rows, before, shown), self.plan.denoiser)
        return attrs.evolve(seen, view=attrs.evolve(seen.view, uniforms=_RandomnessGuard((), batch.step, 0)))


class _HistoryGuard(Batch):
    """A batch of which the past cannot be read."""

    @staticmethod
    def of(batch: Batch) -> Batch:
        """The same batch, guarded."""
        guarded = copy.copy(batch)
        object.__setattr__(guarded, "__class__", _HistoryGuard)
        return guarded

    def __getattribute__(self, name: str) -> Any:
        if name in ("written", "probability", "error_bound", "tv_sum"):
            raise ValueError(
                f"a part reads batch.{name}, which tells the past, without saying so; give its class `remembers = True`"
            )
        return super().__getattribute__(name)


class _RandomnessGuard(Uniforms):
    """No random numbers."""

    def at(self, purpose: Purpose) -> Doubles:
        """Refused."""
        raise ValueError(
            f"a part draws its own random numbers ({purpose!r}), so its exact law is unknown; noise belongs into "
            "Order.noise_scale, a random count into RandomSelection.chances, coins into RandomRevise.chances"
        )

    def per_row(self, purpose: Purpose) -> Doubles:
        """Refused."""
        return self.at(purpose)


def at(values: T, index: Indices) -> T:
    """An attrs value all of whose fields are arrays, indexed along their first axis."""
    return type(values)(*(field[index] for field in _fields(values)))


def joined(values: Sequence[T]) -> T:
    """attrs values all of whose fields are arrays, put one after the other along their first axis."""
    return type(values[0])(*(np.concatenate(column) for column in zip(*map(_fields, values), strict=True)))


def _fields(values: object) -> tuple[NDArray[Any], ...]:
    names = (field.name for field in attrs.fields(cast(type[attrs.AttrsInstance], type(values))))
    return tuple(getattr(values, name) for name in names)


def pooled(values: Doubles, which: Indices) -> Doubles:
    """Sums of `values [N]` over equals, `which [N]` as `distinct` gives it."""
    return np.bincount(which, values).astype(np.float64, copy=False)


def distinct(columns: Sequence[NDArray[Any]]) -> tuple[Indices, Indices]:
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

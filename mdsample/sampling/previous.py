"""What running rows were predicted last, for evidence that compares predictions.

It is a cache beside the immutable states: what it lacks, in a run that was resumed or moved to another model, is
predicted again, which is not counted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mdsample.core.arrays import Ints
from mdsample.policy.view import Evidence
from mdsample.sampling.conditioning import CONDITIONING, blocks_asked
from mdsample.sampling.observe import Asking, Kept, observe
from mdsample.sampling.plan import Plan
from mdsample.sampling.state import Event, State


def recall(plan: Plan, state: State, rows: Ints) -> Asking[Sequence[Kept]]:
    """What evidence kept of rows that are about to be predicted, `[R]`; what is not known is predicted again."""
    nothing: Kept = {}
    depth = _depth(plan)
    if not (depth or plan.denoiser.conditioned):
        return [nothing] * len(rows)
    known: dict[int, Kept] = {}
    for row in rows.tolist():
        event, kept = plan.kept.get(row, (None, nothing))
        # another run of the same plan may have left it there
        if event is not None and event is _last(state, row):
            known[row] = kept
    lost = np.array([row for row in rows.tolist() if state.step[row] and row not in known], np.int32)
    first = state.step - depth
    if plan.denoiser.conditioned and len(lost):
        first[lost] = np.minimum(first[lost], _begun(plan, state, lost))
    past = State.begin(state.canvas)
    for event in state.events if len(lost) else ():
        again = lost[np.isin(lost, event.rows) & (past.step[lost] >= first[lost])]
        if len(again):
            seen = yield from observe(
                plan, plan.batch(past, again), again, [known.get(row, nothing) for row in again.tolist()]
            )
            known.update(zip(again.tolist(), seen.kept, strict=True))
        past = past.apply(event, plan.tokenizer.mask_id)
    return [known.get(row, nothing) for row in rows.tolist()]


def _depth(plan: Plan) -> int:
    """How many of a row's last predictions evidence depends on."""
    return max((evidence.depth for evidence in plan.evidence if evidence is not CONDITIONING), default=0)


def _begun(plan: Plan, state: State, rows: Ints) -> Ints:
    """The step from which each row's memory of the blocks that it asks for now follows, `[R]`."""
    asked: dict[int, list[set[int]]] = {row: [] for row in rows.tolist()}

    def whole(past: State, which: Ints) -> list[set[int]]:
        batch, nothing = plan.batch(past, which), dict[Evidence, Any]()
        return blocks_asked(batch, next(observe(plan, batch, which, [nothing] * len(which))).wanted)

    past = State.begin(state.canvas)
    for event in state.events:
        which = rows[np.isin(rows, event.rows)]
        for row, blocks in zip(which.tolist(), whole(past, which), strict=True) if len(which) else ():
            asked[row].append(blocks)
        past = past.apply(event, plan.tokenizer.mask_id)
    begun: list[int] = []
    for row, now in zip(rows.tolist(), whole(state, rows), strict=True):
        kept = [bool(blocks & now) for blocks in asked[row]]
        begun.append(len(kept) - (kept[::-1].index(False) if False in kept else len(kept)))
    return np.array(begun, np.int32)


def note(plan: Plan, event: Event, kept: Sequence[Kept], after: State) -> None:
    """Keeps what a step saw of its rows, nothing included, and forgets rows that have left."""
    if _depth(plan) or plan.denoiser.conditioned:
        plan.kept.update((row, (event, of)) for row, of in zip(event.rows.tolist(), kept, strict=True))
        for row in [row for row in plan.kept if not after.active[row]]:
            del plan.kept[row]


def _last(state: State, row: int) -> Event | None:
    """The last step of a row."""
    return next((event for event in reversed(state.events) if row in event.rows), None)

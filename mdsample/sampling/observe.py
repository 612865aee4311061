"""What a step sees: the prediction for a batch, and the evidence beyond its marginals that parts need.

Predictions are asked for by `yield`: a step is a generator of queries, so one forward pass can serve the steps of many
policies at once (`mdsample.sampling.engine`), and `answered` runs a single one on a denoiser.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, any_in_row, arange64
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.core.uniforms import Uniforms
from mdsample.models.denoiser import Denoiser, Prediction, Query, Tuning
from mdsample.policy.guide import Tuned
from mdsample.policy.view import Batch, Evidence, Seen, Trials, View
from mdsample.sampling.conditioning import memory_of, trial_memory, whole_blocks
from mdsample.sampling.languages import now, with_spans
from mdsample.sampling.noise import as_shown
from mdsample.sampling.plan import Plan

T = TypeVar("T")
#: asks for predictions, and returns a `T`
Asking = Generator[Query, Prediction, T]
#: what evidence keeps of one row
Kept = Mapping[Evidence, Any]


@attrs.frozen(eq=False)
class Observation:
    """What was seen of B rows."""

    view: View
    prediction: Prediction
    #: forward passes that it took each row, `[B]`
    passes: Ints
    #: what evidence keeps of each row for its next step, `[B]`
    kept: Sequence[Kept]


def answered(asking: Asking[T], denoiser: Denoiser) -> T:
    """Runs to the end what asks for predictions."""
    try:
        query = next(asking)
        while True:
            query = asking.send(denoiser.predict(query))
    except StopIteration as end:
        return end.value


def overheard(asking: Asking[T], hear: Callable[[Query, Prediction], None]) -> Asking[T]:
    """The same, while its first query and what was predicted are told."""
    try:
        query = next(asking)
        prediction = yield query
        hear(query, prediction)
        while True:
            query = asking.send(prediction)
            prediction = yield query
    except StopIteration as end:
        return end.value


def observe(
    plan: Plan, batch: Batch, rows: Ints, before: Sequence[Kept], shown: Ints | None = None
) -> Asking[Observation]:
    """A forward pass over a batch, and further ones if evidence tries something out.

    `rows` are the batch's rows in the canvas; `before`: what evidence kept of each at its last step, `[B]`. `shown`:
    the tokens that the model sees, `[B, L]`; by default `as_shown` draws those of blanks.
    """
    window = plan.policy.window.eligible(batch.with_held_as_blank()) & batch.unsettled
    none = ~any_in_row(window)
    if none.any():
        window = window | (batch.unsettled & none[:, None])
    eligible = window & batch.blank
    wanted = eligible if plan.holding is None else window
    for stop in plan.policy.stops:
        wanted = wanted | (stop.before_pass(batch).watch & batch.blank)
    for evidence in plan.evidence:
        wanted = wanted | evidence.wanted(batch)
    conditioned = plan.denoiser.conditioned
    if conditioned:
        wanted = wanted | whole_blocks(batch, window)
    keys = [plan.keys[int(row)] for row in rows]
    restriction = restrict(plan, rows, batch.tokens, batch.blank)
    wanted = with_spans(wanted, restriction.spans, batch.blank)
    fixed = batch.valid & ~batch.initially_blank
    names = Rows(keys, batch.step)
    uniforms = Uniforms(keys, batch.step, batch.tokens.shape[1])
    if shown is None:
        shown = as_shown(batch.tokens, batch.blank & ~batch.held, uniforms, plan.denoiser)
    tuning = tuned(plan, shown, batch.blank & ~batch.held, batch.age)
    guide = plan.policy.guide
    credits = guide.credits(eligible, before)
    query = Query(shown, batch.valid, wanted, fixed, restriction, guide, names, tuning=tuning, credits=credits)
    prediction = yield attrs.evolve(query, memory=memory_of(before), remember=True) if conditioned else query
    view = View(batch, prediction.marginals, eligible, window, uniforms)
    return (yield from with_evidence(plan, view, prediction, rows, before, shown))


def with_evidence(
    plan: Plan, view: View, prediction: Prediction, rows: Ints, before: Sequence[Kept], shown: Ints
) -> Asking[Observation]:
    """The observation of a view whose evidence is not there yet; arguments as for `observe`."""
    passes = np.full(len(rows), plan.policy.guide.passes, np.int32)
    values: dict[Evidence, Any] = {}
    kept: list[dict[Evidence, Any]] = [{} for _ in rows]
    for evidence in plan.evidence:
        trials, answer = evidence.trials(view), None
        if trials is not None:
            query = _tried(plan, view, rows, trials, before, shown)
            if plan.denoiser.conditioned:
                query = attrs.evolve(query, memory=trial_memory(prediction, trials.row))
            answer = (yield query).marginals
            passes += plan.policy.guide.passes * np.bincount(trials.row, minlength=len(rows)).astype(np.int32)
        seen = Seen(view, prediction, [row.get(evidence) for row in before], trials, answer)
        values[evidence] = evidence.value(seen)
        if evidence.depth:
            for row, remembered in zip(kept, evidence.remembered(seen, values[evidence]), strict=True):
                if remembered is not None:
                    row[evidence] = remembered
    return Observation(attrs.evolve(view, evidence=values) if values else view, prediction, passes, kept)


def _tried(plan: Plan, view: View, rows: Ints, trials: Trials, before: Sequence[Kept], shown: Ints) -> Query:
    """The query that predicts the blanks left in each trial, which differs from what was shown in one token."""
    batch, guide, line, position = view.batch, plan.policy.guide, trials.row, trials.position
    tokens, blank = batch.tokens[line], batch.blank[line]
    trial = arange64(len(line))
    tokens[trial, position], blank[trial, position] = trials.token, False
    valid = batch.valid[line]
    restriction = restrict(plan, rows[line], tokens, blank)
    # names of their own: a cache must not take them for their row, nor for one another
    names = [
        (plan.keys[int(row)][0] ^ (1 + int(place)), plan.keys[int(row)][1])
        for row, place in zip(rows[line], position, strict=True)
    ]
    fixed = valid & ~batch.initially_blank[line]
    shown = shown[line]
    shown[trial, position] = trials.token
    tuning = tuned(plan, shown, blank & ~batch.held[line], batch.age[line])
    credits = guide.credits(view.eligible[line] & blank, [before[int(row)] for row in line])
    named = Rows(names, batch.step[line])
    return Query(shown, valid, blank, fixed, restriction, guide, named, tuning=tuning, credits=credits)


def tuned(plan: Plan, shown: Ints, empty: Bools, age: Ints) -> Tuning | None:
    """What the policy's guide changes place by place; `shown [B, L]`, noise where `empty`, `age [B]` as in `Batch`."""
    guide, block = plan.policy.guide, plan.denoiser.block
    if not isinstance(guide, Tuned):
        return None
    left = np.full_like(shown, -1)
    if guide.lowered:
        left[:, 1:] = np.where(empty[:, :-1], np.int32(-1), shown[:, :-1])
        if block is not None and not plan.denoiser.led:
            left[:, ::block] = -1
    return Tuning(guide.divisor(age), left, guide.lowered)


def restrict(plan: Plan, rows: Ints, tokens: Ints, blank: Bools) -> Restriction:
    """Which tokens may stand where, as the rows are now."""
    whole = plan.restriction
    spans = now(whole.spans, rows, tokens, blank) if whole.spans else ()
    return Restriction(whole.sets, whole.index[rows, : tokens.shape[1]], spans)

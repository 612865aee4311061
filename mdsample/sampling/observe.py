"""What a step sees: the prediction for a batch, and the evidence beyond its marginals that parts need.

Predictions are asked for by `yield`: a step is a generator of queries, so one forward pass can serve the steps of many
policies at once (`mdsample.sampling.engine`), and `answered` runs a single one on a denoiser.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, any_in_row, arange64
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.core.uniforms import Uniforms
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.policy.view import Batch, Evidence, Seen, Trials, View
from mdsample.sampling.languages import now, with_spans
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


def observe(plan: Plan, batch: Batch, rows: Ints, before: Sequence[Kept]) -> Asking[Observation]:
    """A forward pass over a batch, and further ones if evidence tries something out.

    `rows` are the batch's rows in the canvas; `before`: what evidence kept of each at its last step, `[B]`.
    """
    eligible = plan.policy.window.eligible(batch) & batch.blank
    none = ~any_in_row(eligible)
    if none.any():
        eligible = eligible | (batch.blank & none[:, None])
    wanted = eligible
    for stop in plan.policy.stops:
        wanted = wanted | (stop.before_pass(batch).watch & batch.blank)
    for evidence in plan.evidence:
        wanted = wanted | evidence.wanted(batch)
    keys = [plan.keys[int(row)] for row in rows]
    restriction = restrict(plan, rows, batch.tokens, batch.blank)
    wanted = with_spans(wanted, restriction.spans, batch.blank)
    fixed = batch.valid & ~batch.initially_blank
    names = Rows(keys, batch.step)
    guide = plan.policy.guide
    prediction = yield Query(
        batch.tokens, batch.valid, wanted, fixed, restriction, guide, names, guide.credits(eligible, before)
    )
    view = View(batch, prediction.marginals, eligible, Uniforms(keys, batch.step, batch.tokens.shape[1]))
    return (yield from with_evidence(plan, view, prediction, rows, before))


def with_evidence(
    plan: Plan, view: View, prediction: Prediction, rows: Ints, before: Sequence[Kept]
) -> Asking[Observation]:
    """The observation of a view whose evidence is not there yet; arguments as for `observe`."""
    passes = np.full(len(rows), plan.policy.guide.passes, np.int32)
    values: dict[Evidence, Any] = {}
    kept: list[dict[Evidence, Any]] = [{} for _ in rows]
    for evidence in plan.evidence:
        trials, answer = evidence.trials(view), None
        if trials is not None:
            answer = (yield _tried(plan, view, rows, trials, before)).marginals
            passes += plan.policy.guide.passes * np.bincount(trials.row, minlength=len(rows)).astype(np.int32)
        seen = Seen(view, prediction, [row.get(evidence) for row in before], trials, answer)
        values[evidence] = evidence.value(seen)
        if evidence.depth:
            for row, remembered in zip(kept, evidence.remembered(seen, values[evidence]), strict=True):
                row[evidence] = remembered
    return Observation(attrs.evolve(view, evidence=values) if values else view, prediction, passes, kept)


def _tried(plan: Plan, view: View, rows: Ints, trials: Trials, before: Sequence[Kept]) -> Query:
    """The query that predicts the blanks left in each trial."""
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
    credits = guide.credits(view.eligible[line] & blank, [before[int(row)] for row in line])
    return Query(tokens, valid, blank, fixed, restriction, guide, Rows(names, batch.step[line]), credits)


def restrict(plan: Plan, rows: Ints, tokens: Ints, blank: Bools) -> Restriction:
    """Which tokens may stand where, as the rows are now."""
    whole = plan.restriction
    spans = now(whole.spans, rows, tokens, blank) if whole.spans else ()
    return Restriction(whole.sets, whole.index[rows, : tokens.shape[1]], spans)

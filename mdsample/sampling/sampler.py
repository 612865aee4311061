"""The loop: window, look, order, selection, draw, stop, revise. Small and pure; the promises live here.

Every step commits at least one position in every row it keeps, whatever the parts say, so a row of n blanks is done
within n steps (plus a revise part's budget). Where a revision holds windows, each takes no more passes than it has
stated. Fixed text is never written. Rows never see one another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Floats, Ints, any_in_row, arange64
from mdsample.core.canvas import Canvas
from mdsample.errors import shown
from mdsample.models.cache import cache_text
from mdsample.models.denoiser import Denoiser, Prediction
from mdsample.policy.base import Policy
from mdsample.policy.complete import CompletePolicy
from mdsample.policy.draw import Greedy
from mdsample.policy.view import Batch, Ranked, View
from mdsample.sampling.arguments import as_batch_size, as_policy, as_seed, require_canvas
from mdsample.sampling.life import blanked, ends, rewritten
from mdsample.sampling.likely import Step
from mdsample.sampling.observe import Asking, Observation, answered, observe
from mdsample.sampling.plan import Plan, make_plan
from mdsample.sampling.previous import note, recall
from mdsample.sampling.result import Result, Spent
from mdsample.sampling.speculate import Speculation, Speculator, as_speculation
from mdsample.sampling.state import FILLED, Commits, Event, Outcome, State


@attrs.frozen
class Sampler:
    """Runs a policy. `seed` and the rows' ids fix every random number."""

    policy: Policy = attrs.field(converter=as_policy)
    seed: int = attrs.field(default=0, kw_only=True, converter=as_seed)

    def run(
        self,
        denoiser: Denoiser,
        canvas: Canvas,
        *,
        batch_size: int | None = None,
        speculate: Speculation | int | str | None = None,
    ) -> Result:
        """Fills the canvas, at most `batch_size` rows in one forward pass (by default all of them).

        `speculate`: how many steps to guess, which changes how many passes follow one another and not the result; the
        guesses come on top of the rows (`mdsample.sampling.speculate`).
        """
        size = None if batch_size is None else as_batch_size(batch_size)
        began = time.perf_counter()
        plan = self.plan(denoiser, canvas)
        speculator = self.speculator(plan, canvas, speculate)
        denoiser.restart_peak_memory()
        state = self.start(denoiser, canvas, plan)
        while not state.done:
            running = np.flatnonzero(state.active)[:size].astype(np.int32)
            state, _ = answered(steps(plan, state, running, speculator), denoiser)[-1]
        seconds = time.perf_counter() - began
        spent = None if speculator is None else speculator.spent
        return self.result(denoiser, state, seconds, denoiser.peak_memory, spent)

    def result(
        self,
        denoiser: Denoiser,
        state: State,
        seconds: float | None = None,
        peak_memory: int | None = None,
        spent: Spent | None = None,
    ) -> Result:
        """What a run has given at `state`, done or not."""
        about, cache = denoiser.about, cache_text(denoiser.cache)
        facts = self.policy, self.seed, about.name, about.backend, cache, seconds, peak_memory, about.block
        return Result(state, about.tokenizer, *facts, spent, about.noise)

    def steps(self, denoiser: Denoiser, canvas: Canvas) -> Iterator[tuple[State, Event]]:
        """The states and events of a run, one step at a time."""
        plan = self.plan(denoiser, canvas)
        state = self.start(denoiser, canvas, plan)
        while not state.done:
            state, event = self.step(denoiser, state, plan)
            yield state, event

    def speculator(self, plan: Plan, canvas: Canvas, speculate: Speculation | int | str | None) -> Speculator | None:
        """What guesses the steps of a plan; `None` if nothing is to be guessed.

        `PolicyError` for a model with an approximate cache, `ValueError` or `TypeError` for what is not a speculation.
        """
        how = as_speculation(speculate)
        return None if how is None else Speculator(plan, canvas, how, Step(advance, rank, choose, follow))

    def plan(self, denoiser: Denoiser, canvas: Canvas) -> Plan:
        """Checks policy, canvas and model together, before any forward pass; raises `PolicyError`."""
        require_canvas(denoiser, canvas)
        return make_plan(self.policy, self.seed, denoiser, canvas)

    def start(self, denoiser: Denoiser, canvas: Canvas, plan: Plan | None = None) -> State:
        """The first state. Rows without blanks have left already."""
        return begin(plan or self.plan(denoiser, canvas), canvas)

    def step(
        self, denoiser: Denoiser, state: State, plan: Plan | None = None, rows: Ints | None = None
    ) -> tuple[State, Event]:
        """One forward pass, and what follows from it, for the rows still running or for `rows` among them.

        `plan`: as `Sampler.plan` made it for this model and the state's canvas; by default a new one is made.
        """
        if not isinstance(state, State):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"step goes on from a State, as sampler.start(model, canvas) gives it; got {shown(state)}")
        if plan is None or plan.denoiser is not denoiser:
            plan = self.plan(denoiser, state.canvas)
        if not state.events:  # `State.begin`, as the first of a trace's states: some rows may have nothing to do
            state = begin(plan, state.canvas)
            if state.done:
                return state, state.events[-1]
        rows = np.flatnonzero(state.active).astype(np.int32) if rows is None else rows
        if not state.active[rows].all():
            raise ValueError(f"of the rows {shown(rows.tolist())} some have left; give rows that are still running")
        return answered(advance(plan, state, rows), denoiser)


def begin(plan: Plan, canvas: Canvas) -> State:
    """The first state of a plan."""
    return apply_stops(plan, State.begin(canvas), np.arange(len(canvas), dtype=np.int32), Event.none())[0]


def steps(plan: Plan, state: State, rows: Ints, speculator: Speculator | None) -> Asking[list[tuple[State, Event]]]:
    """One pass for some running rows, and all the steps that follow from it: one, or more that were guessed."""
    if speculator is None:
        return [(yield from advance(plan, state, rows))]
    return (yield from speculator.steps(state, rows))


def advance(plan: Plan, state: State, rows: Ints) -> Asking[tuple[State, Event]]:
    """One step of some running rows: observe, rank, choose, draw, revise, stop."""
    before = yield from recall(plan, state, rows)
    seen = yield from observe(plan, plan.batch(state, rows), rows, before)
    ranking = rank(plan.policy, seen.view)
    after, event = follow(plan, state, rows, seen, ranking, choose(plan.policy, seen.view, ranking))
    note(plan, event, seen.kept, after)
    return after, event


def follow(
    plan: Plan,
    state: State,
    rows: Ints,
    seen: Observation,
    ranking: Ints,
    choice: tuple[Bools, Ints, tuple[Outcome, ...]],
) -> tuple[State, Event]:
    """What a step does once it is known what goes: draw, revise, stop. `choice`: as `choose` gives it."""
    view, (chosen, leaving, outcomes) = seen.view, choice
    end = ends(plan.policy, view, chosen, leaving)
    chosen = np.where(end.best[:, None], view.eligible, chosen)
    row, position = in_rank_order(ranking, chosen)
    token, probability = draw(plan, seen.prediction, view, row, position, end.best)
    new, where, instead = rewritten(plan, view, rows, chosen)
    if len(new):
        row, position = np.concatenate([row, new]), np.concatenate([position, where])
        token = np.concatenate([token, instead])
        logged = seen.prediction.log_probabilities(new, where, instead)
        probability = np.concatenate([probability, np.exp(logged)])
    marginals = view.marginals.take(row, position)
    commits = Commits(rows[row], position, token, probability, marginals.entropy, marginals.confidence)
    again, there = blanked(plan, view, chosen, leaving, state.remasked[rows])
    held = np.full(len(row), plan.holding is not None)
    settled = rows[end.settled] if plan.holding is not None else rows[:0]
    event = Event.of(rows, seen.passes, commits, (rows[again], there), rows[leaving], outcomes, held, settled)
    return apply_stops(plan, state, rows, event)


def rank(policy: CompletePolicy, view: View) -> Ints:
    """Eligible positions, best first, then the rest: `[B, L]`. Equal ranks: lower position first.

    What the selection wants first comes before the others, in the same order among themselves.
    """
    score = policy.order.rank(view)
    if policy.order.noise_scale:
        score = score + policy.order.noise_scale * np.log(-np.log(view.uniforms.at("order")))
    # a part may rank by +inf or NaN; even so what is eligible comes first
    score = np.where(view.eligible, np.fmin(score, np.finfo(np.float64).max), np.inf)
    # stable although noised ranks hardly ever tie: what is not eligible does, and must not be ordered by padding
    ranking = np.argsort(score, axis=1, kind="stable")
    first = policy.selection.first(view) & view.eligible
    if first.any():
        later = ~first[arange64(len(ranking))[:, None], ranking]
        ranking = np.take_along_axis(ranking, np.argsort(later, axis=1, kind="stable"), axis=1)
    return ranking.astype(np.int32)


def ranked(view: View, ranking: Ints) -> Ranked:
    """The statistics in rank order, as a selection sees them."""
    number = view.eligible.sum(1, dtype=np.int32)
    position = ranking[:, : int(number.max(initial=0))]
    beyond = arange64(position.shape[1])[None] >= number[:, None]
    marginals = view.marginals
    row = arange64(len(position))[:, None]
    entropy = marginals.entropy[row, position]
    confidence = np.exp(marginals.log_probability[row, position])
    margin = confidence - np.exp(marginals.second[row, position])
    if beyond.any():
        position, confidence = np.where(beyond, -1, position), np.where(beyond, 0, confidence)
        margin, entropy = np.where(beyond, 0, margin), np.where(beyond, np.inf, entropy)
    return Ranked(number, position, confidence, margin, entropy)


def choose(policy: CompletePolicy, view: View, ranking: Ints) -> tuple[Bools, Ints, tuple[Outcome, ...]]:
    """What is committed, `[B, L]`; which rows leave before they are filled, and why."""
    if not view.eligible.any():  # windows without blanks, which a revision holds
        return prefix(policy, view, ranking, np.zeros(len(ranking), np.int32))
    return prefix(policy, view, ranking, policy.selection.count(view, ranked(view, ranking)))


def prefix(policy: CompletePolicy, view: View, ranking: Ints, count: Ints) -> tuple[Bools, Ints, tuple[Outcome, ...]]:
    """`choose`, once the selection has said how many of the ranking go now, `[B]`."""
    count = np.clip(count, 1, np.maximum(view.eligible.sum(1, dtype=np.int32), 1))
    chosen = np.zeros_like(view.eligible)
    line, place = np.nonzero(arange64(ranking.shape[1])[None] < count[:, None])
    chosen[line, ranking[line, place]] = True
    chosen &= view.eligible
    leaving: dict[int, Outcome] = {}
    for stop in policy.stops:
        leave = stop.after_pass(view)
        if not leave.done.any():
            continue
        filled = leave.last & view.batch.blank & leave.done[:, None]
        filled[list(leaving)] |= chosen[list(leaving)]
        now = leave.done & policy.selection.affords(view, *in_rank_order(ranking, filled))
        chosen[now] = filled[now]
        for row in np.flatnonzero(now).tolist():
            leaving.setdefault(row, Outcome(stop.name, stop.sentence))
    return chosen, np.array(list(leaving), np.int32), tuple(leaving.values())


def in_rank_order(ranking: Ints, chosen: Bools) -> tuple[Ints, Ints]:
    """Rows and positions of the chosen places, each row's in rank order."""
    row, column = np.nonzero(chosen[arange64(len(chosen))[:, None], ranking])
    return row.astype(np.int32), ranking[row, column]


def draw(plan: Plan, prediction: Prediction, view: View, row: Ints, position: Ints, best: Bools) -> tuple[Ints, Floats]:
    """Tokens and their probabilities for the chosen places, each row's in rank order; `best [B]`: rows without dice."""
    how = plan.policy.draw
    greedy = best[row] | isinstance(how, Greedy)
    if greedy.all():
        return prediction.draw(row, position, np.full(len(row), 0.5), Greedy())
    uniforms = view.uniforms.at("draw")[row, position]
    if not greedy.any():
        return prediction.draw(row, position, uniforms, how)
    token, probability = np.zeros(len(row), np.int32), np.zeros(len(row), np.float32)
    for which, law in ((greedy, Greedy()), (~greedy, how)):
        token[which], probability[which] = prediction.draw(row[which], position[which], uniforms[which], law)
    return token, probability


def apply_stops(plan: Plan, state: State, rows: Ints, event: Event, origin: Ints | None = None) -> tuple[State, Event]:
    """Writes what needs no pass, and lets filled rows leave. Completes and applies the event.

    That is what stop rules write, and tokens beside which a slot's language leaves no other. `origin`: the row of the
    plan's canvas that each row of the state is; by default it is that row.
    """
    mask_id = plan.tokenizer.mask_id
    after = state.apply(event, mask_id)
    rows = rows[after.active[rows]]
    batch = plan.batch(after, rows)
    settled = plan.languages.fill(batch, rows if origin is None else origin[rows])
    fill, over = stop_decisions(plan.policy, batch, settled)
    if not over and not (fill >= 0).any():
        return after, event
    row, position = np.nonzero(fill >= 0)
    event = event.completed(
        rows[row], position.astype(np.int32), fill[row, position], rows[list(over)], tuple(over.values())
    )
    return state.apply(event, mask_id), event


def stop_decisions(policy: CompletePolicy, batch: Batch, settled: Ints) -> tuple[Ints, dict[int, Outcome]]:
    """What is written without a look, `[B, L]` with −1 elsewhere; which rows of the batch leave then, and why.

    `settled`, as the result: what is written anyway, before any stop rule has its say.
    """
    fill = settled
    if (fill >= 0).any():
        batch = batch.filled(fill)
    over: dict[int, Outcome] = {}
    ahead = [stop.before_pass(batch) for stop in policy.stops]
    for before in ahead:
        fill = np.where((fill < 0) & batch.blank, before.fill, fill)
    if (fill > settled).any():
        # what one stop rule writes may be what another one waits for
        batch = batch.filled(fill)
        ahead = [stop.before_pass(batch) for stop in policy.stops]
    for stop, before in zip(policy.stops, ahead, strict=True):
        for row in np.flatnonzero(before.finished).tolist():
            over.setdefault(row, Outcome(stop.name, before.why or stop.sentence))
    over.update({row: FILLED for row in np.flatnonzero(~any_in_row(batch.unsettled)).tolist()})
    return fill, over

"""The loop: window, look, order, selection, draw, stop, revise. Small and pure; the promises live here.

Every step commits at least one position in every row it keeps, whatever the parts say, so a row of n blanks is done
within n steps (plus a revise part's budget). Fixed text is never written. Rows never see one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs
import numpy as np

from mdsample.arrays import Bools, Floats, Ints, somewhere, upto
from mdsample.cache import Rows, cache_text
from mdsample.canvas import Canvas
from mdsample.constraint import Choices, Constraint, Rule
from mdsample.denoiser import Ask, Denoiser, Look, Restriction, Tokenizer
from mdsample.draw import Greedy
from mdsample.guide import Cfg
from mdsample.part import Part
from mdsample.policy import CompletePolicy, Policy, PolicyError
from mdsample.result import Result
from mdsample.revise import P2Remask
from mdsample.selection import P2Reveal
from mdsample.shift import Glance, glances_of, shifts_of
from mdsample.state import FILLED, Event, Outcome, State
from mdsample.stopping import Ended
from mdsample.uniforms import Uniforms, row_key
from mdsample.view import Board, Ranked, View
from mdsample.written import part_text


@attrs.frozen(eq=False)
class Plan:
    """A policy made ready for one model and one canvas: what `start` checks once and `step` uses."""

    policy: CompletePolicy
    #: mask and unused ids banned, lasting constraints folded in; over the whole canvas
    restriction: Restriction
    #: constraints that depend on what has been committed
    live: tuple[Rule, ...]
    #: Philox keys of the rows
    keys: tuple[tuple[int, int], ...]
    #: forward passes per step
    price: int
    #: how many of the last looks are compared with the one before each, for parts that ask
    shifts: int
    #: whether a part asks what a look says of the tokens that stand
    rereads: bool


def _policy(given: Policy | Part) -> Policy:
    if isinstance(given, Part):
        return Policy.of(given)
    if not isinstance(given, Policy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a sampler runs a Policy; got {given!r}: read text with mdsample.parse({str(given)!r})")
    return given


@attrs.frozen
class Sampler:
    """Runs a policy. `seed` and the rows' ids fix every random number."""

    policy: Policy = attrs.field(converter=_policy)
    seed: int = attrs.field(default=0, kw_only=True, validator=attrs.validators.instance_of(int))

    def run(self, denoiser: Denoiser, canvas: Canvas) -> Result:
        """Fills the canvas."""
        plan = self.plan(denoiser, canvas)
        state = self.start(denoiser, canvas, plan)
        while not state.done:
            state, _ = self.step(denoiser, state, plan)
        kept = cache_text(denoiser.cache)
        return Result(state, denoiser.tokenizer, self.policy, self.seed, denoiser.name, denoiser.backend, kept)

    def steps(self, denoiser: Denoiser, canvas: Canvas) -> Iterator[tuple[State, Event]]:
        """The states and events of a run, one step at a time."""
        plan = self.plan(denoiser, canvas)
        state = self.start(denoiser, canvas, plan)
        while not state.done:
            state, event = self.step(denoiser, state, plan)
            yield state, event

    def plan(self, denoiser: Denoiser, canvas: Canvas) -> Plan:
        """Checks policy, canvas and model together, before any forward pass; raises `PolicyError`."""
        policy, tokenizer = self.policy.completed(), denoiser.tokenizer
        longest = int(canvas.valid.sum(1).max(initial=0))
        if longest > denoiser.max_length:
            raise PolicyError(f"a row has {longest} tokens; {denoiser.name} takes at most {denoiser.max_length}")
        if (canvas.tokens[canvas.blank] != tokenizer.mask_id).any():
            raise PolicyError(f"the canvas was made for another model: its blanks are not token {tokenizer.mask_id}")
        if ((canvas.tokens < 0) | (canvas.tokens >= denoiser.vocab_size)).any():
            raise PolicyError(f"the canvas has token ids outside 0..{denoiser.vocab_size - 1}")
        allowed = np.arange(denoiser.vocab_size) < tokenizer.size
        allowed[tokenizer.mask_id] = False
        shape = canvas.tokens.shape
        restriction = Restriction(allowed[None], np.zeros(shape, np.int32), np.full(shape, -1, np.int32))
        live: list[Rule] = []
        try:
            for part in self.policy.parts():
                part.check(canvas, tokenizer)
            _one_plan(policy)
            _one_choice_a_slot(policy.constraints)
            _no_choice_cut_off(policy, tokenizer)
            for constraint in sorted(policy.constraints, key=lambda c: not c.lasting):
                rule = constraint.bind(tokenizer, canvas, restriction)
                if constraint.lasting:
                    restriction = restriction & rule.restrict(canvas.tokens, canvas.blank, canvas.slot)
                else:
                    live.append(rule)
        except PolicyError:
            raise
        except ValueError as fault:
            raise PolicyError(str(fault)) from fault
        _feasible(restriction, canvas)
        keys = tuple(row_key(self.seed, row) for row in canvas.ids)
        price = (1 + policy.order.tries) * (2 if isinstance(policy.guide, Cfg) else 1)
        # more looks than this no row ever has
        most = int(canvas.blank.sum(1).max(initial=0)) + policy.revise.budget
        shifts = min(most, max((part.shifts for part in self.policy.parts()), default=0))
        rereads = any(part.rereads for part in self.policy.parts())
        return Plan(policy, restriction, tuple(live), keys, price, shifts, rereads)

    def start(self, denoiser: Denoiser, canvas: Canvas, plan: Plan | None = None) -> State:
        """The first state. Rows without blanks have left already."""
        plan = plan or self.plan(denoiser, canvas)
        return settle(plan, denoiser, State.begin(canvas), np.arange(len(canvas), dtype=np.int32), None)[0]

    def step(
        self, denoiser: Denoiser, state: State, plan: Plan | None = None, rows: Ints | None = None
    ) -> tuple[State, Event]:
        """One forward pass, and what follows from it, for the rows still running or for `rows` among them."""
        plan = plan or self.plan(denoiser, state.canvas)
        if not state.events:  # `State.begin`, as the first of a trace's states: some rows may have nothing to do
            state = self.start(denoiser, state.canvas, plan)
            if state.done:
                return state, state.events[-1]
        rows = np.flatnonzero(state.active).astype(np.int32) if rows is None else rows
        glances = recall(plan, denoiser, state, rows)
        board = state.board(rows, plan.price, denoiser.tokenizer)
        view, look = see(plan, denoiser, board, rows, [glances.get(row) for row in rows.tolist()])
        view = look_ahead(plan, denoiser, view, rows)
        ranking = rank(plan.policy, view)
        chosen, leaving, outcomes = choose(plan.policy, view, ranking)
        row, position = in_order(ranking, chosen)
        token, probability = draw(plan, look, view, rows, row, position)
        entropy = view.marginals.entropy[row, position]
        again = remask(plan, view, state.remasked[rows])
        event = Event(
            rows,
            plan.price,
            rows[row],
            position,
            token,
            probability,
            entropy,
            np.zeros(len(row), np.bool_),
            rows[again[0]],
            again[1].astype(np.int32),
            rows[leaving],
            outcomes,
        )
        after, event = settle(plan, denoiser, state, rows, event)
        return attrs.evolve(after, glances=_noted(plan, denoiser, view, look, rows, glances, after)), event


def see(
    plan: Plan, denoiser: Denoiser, board: Board, rows: Ints, glances: Sequence[Glance | None]
) -> tuple[View, Look]:
    """One forward pass over a board; `rows` are its rows' places in the canvas, `glances` their looks before."""
    eligible = plan.policy.window.eligible(board) & board.blank
    none = ~somewhere(eligible)
    if none.any():
        eligible = eligible | (board.blank & none[:, None])
    looked = eligible
    for stop in plan.policy.stops:
        looked = looked | (stop.ahead(board).watch & board.blank)
    written = board.open & ~board.blank if plan.rereads else np.zeros_like(looked)
    looked = looked | written
    fixed = board.valid & ~board.open
    restriction = restrict(plan, rows, board.tokens, board.blank, board.slot)
    keys = [plan.keys[int(row)] for row in rows]
    guide = plan.policy.guide
    look = denoiser.look(Ask(board.tokens, board.valid, looked, fixed, restriction, guide, Rows(keys, board.step)))
    uniforms = Uniforms(keys, board.step, board.tokens.shape[1])
    shifts = shifts_of(look, eligible, glances, plan.shifts)
    untried = np.full(eligible.shape, np.inf)
    return View(board, look.marginals, eligible, uniforms, shifts, untried, standing(look, board, written)), look


def standing(look: Look, board: Board, written: Bools) -> Floats:
    """What a look says of the tokens that stand where `written [B, L]`: log-probabilities `[B, L]`, NaN elsewhere."""
    out = np.full(written.shape, np.nan, np.float32)
    if written.any():
        row, position = (index.astype(np.int32) for index in np.nonzero(written))
        out[row, position] = look.log_probabilities(row, position, board.tokens[row, position])
    return out


def look_ahead(plan: Plan, denoiser: Denoiser, view: View, rows: Ints) -> View:
    """The view with what would remain after each position that the order tries: one look, with a row for each."""
    tried = plan.policy.order.tried(view) & view.eligible
    line, position = np.nonzero(tried & (tried.sum(1) > 1)[:, None])
    if not len(line):
        return view
    board, here = view.board, upto(len(line))
    tokens, blank, slot = board.tokens[line], board.blank[line], board.slot[line]
    tokens[here, position], blank[here, position] = view.marginals.token[line, position], False
    valid = board.valid[line]
    restriction = restrict(plan, rows[line], tokens, blank, slot)
    # names of their own: a cache must not take them for their row, nor for one another
    names = [
        (plan.keys[int(row)][0] ^ (1 + int(place)), plan.keys[int(row)][1])
        for row, place in zip(rows[line], position, strict=True)
    ]
    told = Rows(names, board.step[line])
    look = denoiser.look(Ask(tokens, valid, blank, valid & ~board.open[line], restriction, plan.policy.guide, told))
    # a running sum: it does not depend on how wide the batch is
    total = np.cumsum(np.where(blank, look.marginals.entropy, 0), 1, dtype=np.float64)[:, -1]
    remaining = view.remaining.copy()
    remaining[line, position] = total / blank.sum(1)
    return attrs.evolve(view, remaining=remaining)


def recall(plan: Plan, denoiser: Denoiser, state: State, rows: Ints) -> Mapping[int, Glance]:
    """The glances of a state's running rows; `rows` are about to be looked at.

    Those that it lacks, in a run that was taken up or moved to another model, are looked at again as they stood in
    their last `plan.shifts` steps. What was paid for once is not counted again.
    """
    if not plan.shifts:
        return {}
    known = {row: glance for row, glance in state.glances.items() if glance.denoiser is denoiser}
    lost = np.array([row for row in rows.tolist() if state.step[row] and row not in known], np.int32)
    past = State.begin(state.canvas)
    for event in state.events if len(lost) else ():
        again = lost[np.isin(lost, event.rows) & (past.step[lost] >= state.step[lost] - plan.shifts)]
        if len(again):
            board = past.board(again, plan.price, denoiser.tokenizer)
            view, look = see(plan, denoiser, board, again, [known.get(row) for row in again.tolist()])
            known |= zip(again.tolist(), glances_of(denoiser, look, view.eligible, view.shifts), strict=True)
        past = past.apply(event, denoiser.tokenizer.mask_id)
    return known


def _noted(
    plan: Plan, denoiser: Denoiser, view: View, look: Look, rows: Ints, glances: Mapping[int, Glance], after: State
) -> dict[int, Glance]:
    """The glances after a step: its own for its rows, and none for rows that have left."""
    if not plan.shifts:
        return {}
    now = dict(zip(rows.tolist(), glances_of(denoiser, look, view.eligible, view.shifts), strict=True))
    return {row: glance for row, glance in {**glances, **now}.items() if after.active[row]}


def restrict(plan: Plan, rows: Ints, tokens: Ints, blank: Bools, slot: Ints) -> Restriction:
    """Which tokens may stand where, as the rows stand now."""
    lasting, width = plan.restriction, tokens.shape[1]
    restriction = Restriction(lasting.sets, lasting.index[rows, :width], lasting.group[rows, :width])
    for rule in plan.live:
        restriction = restriction & rule.restrict(tokens, blank, slot)
    return restriction


def rank(policy: CompletePolicy, view: View) -> Ints:
    """Eligible positions, best first, then the rest: `[B, L]`. Equal ranks: lower position first.

    What the selection wants first comes before the others, in the same order among themselves.
    """
    score = policy.order.rank(view)
    if policy.order.spread:
        score = score + policy.order.spread * np.log(-np.log(view.uniforms.at("order")))
    # a part may rank by +inf or NaN; even so what is eligible comes first
    score = np.where(view.eligible, np.fmin(score, np.finfo(np.float64).max), np.inf)
    # stable although noised ranks hardly ever tie: what is not eligible does, and must not be ordered by padding
    ranking = np.argsort(score, axis=1, kind="stable")
    first = policy.selection.first(view) & view.eligible
    if first.any():
        later = ~first[upto(len(ranking))[:, None], ranking]
        ranking = np.take_along_axis(ranking, np.argsort(later, axis=1, kind="stable"), axis=1)
    return ranking.astype(np.int32)


def ranked(view: View, ranking: Ints) -> Ranked:
    """The statistics in rank order, as a selection sees them."""
    number = view.eligible.sum(1, dtype=np.int32)
    position = ranking[:, : int(number.max(initial=0))]
    beyond = upto(position.shape[1])[None] >= number[:, None]
    marginals = view.marginals
    row = upto(len(position))[:, None]
    entropy = marginals.entropy[row, position]
    confidence = np.exp(marginals.log_probability[row, position])
    margin = confidence - np.exp(marginals.second[row, position])
    if beyond.any():
        position, confidence = np.where(beyond, -1, position), np.where(beyond, 0, confidence)
        margin, entropy = np.where(beyond, 0, margin), np.where(beyond, np.inf, entropy)
    return Ranked(number, position, confidence, margin, entropy)


def choose(policy: CompletePolicy, view: View, ranking: Ints) -> tuple[Bools, Ints, tuple[Outcome, ...]]:
    """What is committed, `[B, L]`; which rows leave before they are filled, and why."""
    return prefix(policy, view, ranking, policy.selection.count(view, ranked(view, ranking)))


def prefix(policy: CompletePolicy, view: View, ranking: Ints, count: Ints) -> tuple[Bools, Ints, tuple[Outcome, ...]]:
    """`choose`, once the selection has said how many of the ranking go now, `[B]`."""
    count = np.clip(count, 1, np.maximum(view.eligible.sum(1, dtype=np.int32), 1))
    chosen = np.zeros_like(view.eligible)
    line, place = np.nonzero(upto(ranking.shape[1])[None] < count[:, None])
    chosen[line, ranking[line, place]] = True
    chosen &= view.eligible
    leaving: dict[int, Outcome] = {}
    for stop in policy.stops:
        leave = stop.leave(view)
        for row in np.flatnonzero(leave.done).tolist():
            fill = leave.last[row] & view.board.blank[row]
            chosen[row] = chosen[row] | fill if row in leaving else fill
            leaving.setdefault(row, Outcome(stop.name, stop.sentence))
    return chosen, np.array(list(leaving), np.int32), tuple(leaving.values())


def in_order(ranking: Ints, chosen: Bools) -> tuple[Ints, Ints]:
    """Rows and positions of the chosen places, each row's in rank order."""
    row, column = np.nonzero(chosen[upto(len(chosen))[:, None], ranking])
    return row.astype(np.int32), ranking[row, column]


def draw(plan: Plan, look: Look, view: View, rows: Ints, row: Ints, position: Ints) -> tuple[Ints, Floats]:
    """Tokens and their probabilities for the chosen places.

    Places that constrain one another are drawn one after the other, each restricted by those before it.
    """
    how = plan.policy.draw
    greedy = isinstance(how, Greedy)
    uniforms = np.full(len(row), 0.5) if greedy else view.uniforms.at("draw")[row, position]
    waves = waves_of(plan, view.board, rows, row, position)
    if waves.max(initial=0) == 0:
        return look.draw(row, position, uniforms, how, None)
    token, probability = np.zeros(len(row), np.int32), np.zeros(len(row), np.float32)
    tokens, blank = view.board.tokens.copy(), view.board.blank.copy()
    for wave in range(int(waves.max()) + 1):
        now = waves == wave
        restriction = restrict(plan, rows, tokens, blank, view.board.slot)
        token[now], probability[now] = look.draw(row[now], position[now], uniforms[now], how, restriction)
        tokens[row[now], position[now]], blank[row[now], position[now]] = token[now], False
    return token, probability


def waves_of(plan: Plan, board: Board, rows: Ints, row: Ints, position: Ints) -> Ints:
    """The turn of each place: its rank among the chosen places of its group."""
    if not plan.live:
        return np.zeros(len(row), np.int32)
    group = restrict(plan, rows, board.tokens, board.blank, board.slot).group[row, position]
    seen: dict[tuple[int, int], int] = {}
    waves = np.zeros(len(row), np.int32)
    for i, key in enumerate(zip(row.tolist(), group.tolist(), strict=True)):
        if key[1] >= 0:
            waves[i] = seen.get(key, 0)
            seen[key] = int(waves[i]) + 1
    return waves


def remask(plan: Plan, view: View, spent: Ints) -> tuple[Ints, Ints]:
    """Positions to mask again in rows that stay, within the part's budget, lowest positions first."""
    part = plan.policy.revise
    if not part.budget:
        nothing = np.zeros(0, np.int32)
        return nothing, nothing
    wish = part.remask(view) & revisable(plan, view)
    within = np.cumsum(wish, 1) <= (part.budget - spent)[:, None]
    row, position = np.nonzero(wish & within)
    return row.astype(np.int32), position.astype(np.int32)


def revisable(plan: Plan, view: View) -> Bools:
    """Where tokens may be masked again, `[B, L]`: written ones, in rows that stay."""
    where = view.board.open & ~view.board.blank
    for stop in plan.policy.stops:
        where = where & ~stop.leave(view).done[:, None]
    return where


def settle(plan: Plan, denoiser: Denoiser, state: State, rows: Ints, event: Event | None) -> tuple[State, Event]:
    """Closes what stop rules close without a look, and lets filled rows leave. Completes and applies the event."""
    nothing = np.zeros(0, np.int32)
    if event is None:
        event = Event(
            nothing, 0, nothing, nothing, nothing, nothing.astype(np.float32), nothing.astype(np.float32),
            nothing.astype(np.bool_), nothing, nothing, nothing, (),
        )  # fmt: skip
    mask_id = denoiser.tokenizer.mask_id
    after = state.apply(event, mask_id)
    rows = rows[after.active[rows]]
    fill, over = close(plan.policy, after.board(rows, plan.price, denoiser.tokenizer))
    if not over and not (fill >= 0).any():
        return after, event
    row, position = np.nonzero(fill >= 0)
    count = len(row)
    event = attrs.evolve(
        event,
        row=np.concatenate([event.row, rows[row]]),
        position=np.concatenate([event.position, position.astype(np.int32)]),
        token=np.concatenate([event.token, fill[row, position]]),
        probability=np.concatenate([event.probability, np.ones(count, np.float32)]),
        entropy=np.concatenate([event.entropy, np.zeros(count, np.float32)]),
        ruled=np.concatenate([event.ruled, np.ones(count, np.bool_)]),
        left=np.concatenate([event.left, rows[list(over)]]).astype(np.int32),
        outcomes=(*event.outcomes, *over.values()),
    )
    return state.apply(event, mask_id), event


def close(policy: CompletePolicy, board: Board) -> tuple[Ints, dict[int, Outcome]]:
    """What is written without a look, `[B, L]` with −1 elsewhere; which rows of the board leave then, and why."""
    fill = np.full(board.tokens.shape, -1, np.int32)
    over: dict[int, Outcome] = {}
    ahead = [stop.ahead(board) for stop in policy.stops]
    for said in ahead:
        fill = np.where((fill < 0) & board.blank, said.closed, fill)
    if (fill >= 0).any():
        # what one stop rule writes may be what another one waits for
        board = board.filled(fill)
        ahead = [stop.ahead(board) for stop in policy.stops]
    for stop, said in zip(policy.stops, ahead, strict=True):
        for row in np.flatnonzero(said.over).tolist():
            over.setdefault(row, Outcome(stop.name, said.why or stop.sentence))
    over.update({row: FILLED for row in np.flatnonzero(~somewhere(board.blank)).tolist()})
    return fill, over


def _one_plan(policy: CompletePolicy) -> None:
    """P2's two halves plan together: whatever another selection writes against the plan is masked again at once."""
    again, reveal = policy.revise, policy.selection
    if isinstance(again, P2Remask) and reveal != P2Reveal(again.eta, steps=again.steps):
        raise PolicyError(
            f"{part_text(again)} plans together with {part_text(P2Reveal(again.eta, steps=again.steps))}, not with "
            f"{part_text(reveal)}; take the preset p2, or another revision"
        )


def _one_choice_a_slot(constraints: tuple[Constraint, ...]) -> None:
    slots = [constraint.slot for constraint in constraints if isinstance(constraint, Choices)]
    if twice := [slot for slot in slots if slots.count(slot) > 1]:
        raise PolicyError(f"two lists of choices for slot {twice[0]!r}; keep the texts that are in both, in one list")


def _no_choice_cut_off(policy: CompletePolicy, tokenizer: Tokenizer) -> None:
    for stop in policy.stops:
        for constraint in policy.constraints:
            if not (isinstance(stop, Ended) and isinstance(constraint, Choices)):
                continue
            for text in constraint.texts:
                if stop.ending(tokenizer) in tokenizer.encode(text)[:-1]:
                    raise PolicyError(
                        f"ended({stop.token!r}) would cut off {text!r}, a choice for slot {constraint.slot!r}; "
                        "leave one of them out"
                    )


def _feasible(restriction: Restriction, canvas: Canvas) -> None:
    empty = ~somewhere(restriction.sets)
    bad = np.argwhere(canvas.blank & empty[restriction.index])
    if len(bad):
        row, position = bad[0].tolist()
        raise PolicyError(
            f"the constraints leave no token for position {position} of row {canvas.ids[row]!r}; loosen one of them"
        )

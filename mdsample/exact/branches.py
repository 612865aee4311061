"""Branches: every way in which one step can go on from each of N states, with its probability.

M choices are made before any token is drawn: which set of places, in which order. An order with noise is a
Plackett-Luce law: the next place of the ranking is drawn among those left with weights exp(−rank / spread). Orderings
are followed place by place; those that have chosen the same set are merged as soon as nothing can tell them apart.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Indices, Ints, any_in_row
from mdsample.core.language import turns
from mdsample.exact.states import Branches, Walk, at, distinct, joined, pooled
from mdsample.models.denoiser import Prediction
from mdsample.policy.draw import Draw, Temperature
from mdsample.policy.revise import RandomRevise
from mdsample.policy.selection import RandomSelection, Selection
from mdsample.policy.view import Ranked, View
from mdsample.sampling.languages import now
from mdsample.sampling.life import revisable
from mdsample.sampling.sampler import in_rank_order, prefix, rank, ranked


@runtime_checkable
class OpenPrediction(Protocol):
    """A look that tells the probabilities it draws with."""

    def probabilities(self, rows: Ints, positions: Ints, how: Draw, tokens: Ints | None = None) -> Doubles:
        """`[N, V]` float64, at the N places given as to `Prediction.draw`, when `tokens [B, L]` are written."""
        ...


@attrs.frozen(eq=False)
class PlacementChoices:
    """M choices of places."""

    #: the state it is a choice in, `[M]`
    state: Indices
    #: `[M, L]`, as `mdsample.sampling.sampler.rank` gives it
    ranking: Ints
    #: how many of the ranking the selection takes, `[M]`
    count: Ints
    #: given the state, `[M]`
    probability: Doubles


@attrs.frozen(eq=False)
class Placements:
    """M sets of places to fill, after selection and stop rules had their say."""

    state: Indices
    ranking: Ints
    #: `[M, L]`
    chosen: Bools
    #: number of the stop rule because of which the row leaves after this, −1 if it stays, `[M]`
    leaves: Ints
    probability: Doubles


@attrs.frozen(eq=False)
class Drawn:
    """Branches: a set of places and the tokens drawn for them."""

    #: which of the commits, `[K]`
    commit: Indices
    #: the whole row, `[K, L]`
    tokens: Ints
    blank: Bools
    #: of the drawn tokens under the model, `[K, L]`
    probability: Floats
    #: of the branch, given the commit, `[K]`
    weight: Doubles


class _RankingRead(Exception):
    """A selection wanted to see the ranking."""


class _Unseen(Ranked):
    """A ranking of which only the length may be seen."""

    @staticmethod
    def of(number: Ints) -> Ranked:
        """`number [B]` places are ranked, somehow."""
        nothing = np.zeros((len(number), 0), np.float32)
        return _Unseen(number, nothing.astype(np.int32), nothing, nothing, nothing)

    def __getattribute__(self, name: str) -> Any:
        if name in ("position", "confidence", "margin", "entropy"):
            raise _RankingRead
        return super().__getattribute__(name)


def placements(walk: Walk, view: View) -> Placements:
    """The sets of places that may be committed now."""
    policy, jointly = walk.plan.policy, bool(walk.plan.restriction.spans)
    choices = _choices(walk, view)
    chosen, leaving, outcomes = prefix(policy, view.take(choices.state), choices.ranking, choices.count)
    names = [stop.name for stop in policy.stops]
    leaves = np.full(len(chosen), -1, np.int32)
    leaves[leaving] = [names.index(outcome.name) for outcome in outcomes]
    # places of a slot that holds a language are drawn in rank order, so then the order is part of the choice
    turn = np.where(chosen, np.argsort(choices.ranking, 1), -1) if jointly else chosen
    first, which = distinct([choices.state[:, None], turn])
    probability = pooled(choices.probability, which)
    return Placements(choices.state[first], choices.ranking[first], chosen[first], leaves[first], probability)


def _choices(walk: Walk, view: View) -> PlacementChoices:
    order, selection = walk.plan.policy.order, walk.plan.policy.selection
    everyone = np.arange(len(view.eligible))
    number = view.eligible.sum(1, dtype=np.int32)
    if not number.all():  # a window without blanks, which a revision holds: nothing is chosen
        without, rest = np.flatnonzero(number == 0), np.flatnonzero(number)
        length = np.arange(view.eligible.shape[1], dtype=np.int32)
        nothing = PlacementChoices(
            without, np.tile(length, (len(without), 1)), np.zeros(len(without), np.int32), np.ones(len(without))
        )
        if not len(rest):
            return nothing
        some = _choices(walk, view.take(rest))
        return joined([nothing, attrs.evolve(some, state=rest[some.state])])

    def counted(state: Indices, ranking: Ints, probability: Doubles) -> PlacementChoices:
        seen = view if np.array_equal(state, everyone) else view.take(state)
        chances = _chances(selection, seen, ranked(seen, ranking))
        which, count = np.nonzero(chances)
        return PlacementChoices(
            state[which], ranking[which], count.astype(np.int32), probability[which] * chances[which, count]
        )

    if not order.noise_scale:
        return counted(everyone, rank(walk.plan.policy, view), np.ones(len(everyone)))
    score = np.where(view.eligible, order.rank(view), 0.0)
    if not np.isfinite(score).all():
        raise ValueError(f"{order.name}: an order with noise must rank by finite numbers for its law to be known")
    logits = np.where(view.eligible, -score / order.noise_scale, -np.inf)
    first = selection.first(view) & view.eligible
    try:
        # does the count depend on the ranking? Ask with a ranking that cannot be looked at
        stops = _chances(selection, view, _Unseen.of(number))
    except _RankingRead:
        whole = _plackett_luce(walk, logits, first, np.eye(int(number.max()) + 1)[number], merge=False)
        return counted(whole.state, whole.ranking, whole.probability)
    return _plackett_luce(walk, logits, first, stops, merge=not walk.plan.restriction.spans)


def _chances(selection: Selection, view: View, order: Ranked) -> Doubles:
    """Probability of each count as the loop clips it, `[N, 1 + most]`."""
    most = int(order.number.max(initial=1))
    if not isinstance(selection, RandomSelection):
        return np.eye(most + 1)[np.clip(selection.count(view, order), 1, order.number)]
    chances = selection.chances(view, order).copy()
    chances[:, 1] += chances[:, 0]
    chances[:, 0] = 0
    return chances


def _plackett_luce(walk: Walk, logits: Doubles, first: Bools, stops: Doubles, merge: bool) -> PlacementChoices:
    """Prefixes of a noised order, of the lengths whose probabilities `stops [N, 1 + most]` gives.

    `logits [N, L]` are −inf where nothing is on offer; `first [N, L]` go before the others. With `merge`, prefixes with
    the same members are one.
    """
    beyond = np.iinfo(np.int32).max
    state = np.arange(len(logits))
    turn = np.full(logits.shape, beyond, np.int32)  # of each position in the prefix so far
    probability = np.ones(len(logits))
    choices: list[PlacementChoices] = []
    for length in range(1, stops.shape[1]):
        left: Bools = turn == beyond
        early = left & first[state]
        score = np.where(early | (left & ~any_in_row(early)[:, None]), logits[state], -np.inf)
        share = np.exp(score - score.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        which, position = np.nonzero(share)
        walk.spend(len(which))
        state, turn, probability = state[which], turn[which], probability[which] * share[which, position]
        turn[np.arange(len(which)), position] = length
        if merge:
            unique, same = distinct([state[:, None], turn < beyond])
            state, turn, probability = state[unique], turn[unique], pooled(probability, same)
        stopping = stops[state, length]
        ranking = np.argsort(turn, 1, kind="stable").astype(np.int32)
        ready = PlacementChoices(state, ranking, np.full(len(state), length, np.int32), probability * stopping)
        choices.append(at(ready, np.flatnonzero(stopping > 0)))
        more = stops[state, length + 1 :].any(1)
        state, turn, probability = state[more], turn[more], probability[more]
    return joined(choices)


def tables(walk: Walk, prediction: Prediction, needed: Bools, how: Draw) -> tuple[Doubles, Doubles]:
    """The model's conditional and the law that `how` draws from, where `needed [N, L]`; both `[N, L, V]`, else 0."""
    rows, positions = (index.astype(np.int32) for index in np.nonzero(needed))
    model = np.zeros((*needed.shape, walk.plan.denoiser.vocab_size))
    model[rows, positions] = probabilities(prediction, rows, positions, Temperature())
    if how == Temperature():
        return model, model
    law = np.zeros_like(model)
    law[rows, positions] = probabilities(prediction, rows, positions, how)
    return model, law


def probabilities(
    prediction: Prediction, rows: Ints, positions: Ints, how: Draw, tokens: Ints | None = None
) -> Doubles:
    """The law that `look` draws from, `[N, V]`; `TypeError` if it does not tell."""
    if not isinstance(prediction, OpenPrediction):
        raise TypeError(
            "an exact law needs a look with `probabilities`, as toys and the reference backend have it; "
            f"{type(prediction).__name__} has none"
        )
    return prediction.probabilities(rows, positions, how, tokens)


def draws(
    walk: Walk, start: Branches, placed: Placements, model: Doubles, law: Doubles, how: Draw, shown: Ints
) -> Drawn:
    """Every token that `how` may draw for every set of places.

    `model` and `law` as `tables` gives them, `shown` as `Walk.noised` does.
    """
    row, position = in_rank_order(placed.ranking, placed.chosen)
    wave = np.zeros(len(row), np.int32)
    begun = start.take(placed.state)
    blank = begun.state.blank | begun.state.held if walk.plan.redraws else begun.state.blank
    if walk.plan.restriction.spans:
        spans = now(walk.plan.restriction.spans, np.zeros(len(begun), np.int32), begun.state.tokens, blank)
        wave = np.maximum(turns(spans, row, position), 0)
    tokens = begun.state.tokens
    none = np.full(tokens.shape, np.nan, np.float32)
    drawn = Drawn(np.arange(len(tokens)), tokens, blank, none, np.ones(len(tokens)))
    for turn in range(int(wave.max(initial=0)) + 1):
        these = wave == turn
        places = _columns(row[these], position[these], len(tokens))
        if not walk.plan.restriction.spans:
            state = placed.state[:, None]
            drawn = _expanded(walk, drawn, places, model[state, places], law[state, places])
            continue
        # like the loop: the prediction before the draws, what is written as it is after those of the earlier turns
        prediction = walk.see(begun.take(drawn.commit), shown[placed.state[drawn.commit]]).prediction
        written = np.where(drawn.blank, np.int32(-1), drawn.tokens)
        targets = places[drawn.commit]
        i, k = (index.astype(np.int32) for index in np.nonzero(targets >= 0))
        both: list[Doubles] = []
        for drawing in (Temperature(), how):
            both.append(np.zeros((*targets.shape, walk.plan.denoiser.vocab_size)))
            both[-1][i, k] = probabilities(prediction, i, targets[i, k], drawing, written)
        drawn = _expanded(walk, drawn, targets, *both)
    return drawn


def revisions(walk: Walk, view: View, spent: Ints, state: Indices) -> tuple[Indices, Bools, Doubles]:
    """What a `RandomRevise` may mask again after each of K draws: R branches.

    `view` and `spent [N]` are those of the N states before the step, `state [K]` says from which of them each draw
    comes. Returns which of the K each branch belongs to `[R]`, what it masks `[R, L]`, and its probability `[R]`.
    """
    part = walk.plan.policy.revise
    assert isinstance(part, RandomRevise)
    chances = np.where(revisable(walk.plan, view), np.clip(part.chances(view), 0.0, 1.0), 0.0)
    row, again = np.arange(len(chances)), np.zeros(chances.shape, np.bool_)
    share: Doubles = np.ones(len(chances))
    for position in np.flatnonzero(chances.any(0)).tolist():
        p: Doubles = chances[row, position]
        both = np.concatenate([np.flatnonzero(p < 1), np.flatnonzero(p > 0)])
        heads = np.arange(len(both)) >= (p < 1).sum()
        walk.spend(len(both))
        row, again, share = row[both], again[both], share[both] * np.where(heads, p[both], 1 - p[both])
        again[:, position] = heads
    again &= np.cumsum(again, 1) <= (part.budget - spent[row])[:, None]
    first, same = distinct([row[:, None], again])
    row, again, share = row[first], again[first], pooled(share, same)
    order = np.argsort(row, kind="stable")
    number = np.bincount(row, minlength=len(chances))
    start = np.cumsum(number) - number
    # each of the K as often as its state has branches
    which = np.repeat(np.arange(len(state)), number[state])
    walk.spend(len(which))
    turn = np.arange(len(which)) - np.repeat(np.cumsum(number[state]) - number[state], number[state])
    branch = order[start[state[which]] + turn]
    return which, again[branch], share[branch]


def _columns(row: Ints, position: Ints, rows: int) -> Ints:
    """The positions of each row side by side, `[rows, most of any row]`, −1 where a row has fewer."""
    number = np.bincount(row, minlength=rows)
    out = np.full((rows, int(number.max(initial=0))), -1, np.int32)
    out[np.arange(out.shape[1])[None] < number[:, None]] = position
    return out


def _expanded(walk: Walk, drawn: Drawn, places: Ints, model: Doubles, law: Doubles) -> Drawn:
    """One branch per combination of tokens at `places [K, P]`; `model` and `law` `[K, P, V]` belong to them."""
    origin = np.arange(len(drawn.tokens))
    for turn in range(places.shape[1]):
        has_place = places[origin, turn] >= 0
        share: Any = law[origin, turn]
        share[~has_place] = np.eye(share.shape[1])[0]  # nothing to draw: one branch, as it was
        which, token = np.nonzero(share)
        walk.spend(len(which))
        drawn, origin, has_place = at(drawn, which), origin[which], has_place[which]
        drawn = attrs.evolve(drawn, weight=drawn.weight * share[which, token])
        place = (np.flatnonzero(has_place), places[origin[has_place], turn])
        drawn.tokens[place], drawn.blank[place] = token[has_place], False
        drawn.probability[place] = model[origin[has_place], turn, token[has_place]]
    return drawn

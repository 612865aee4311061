"""Law: the exact distribution of what a policy makes of one row, by following everything that can happen.

The walk runs the loop's own functions (`observe`, `rank`, `prefix`, `remask`, `apply_stops` of `mdsample.sampling`) on
all states of a step at once; only where the loop throws dice, all faces are followed instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Ints, Longs
from mdsample.core.bounds import parallel_bounds
from mdsample.core.canvas import Canvas
from mdsample.exact.branches import Drawn, Placements, draws, placements, revisions, tables
from mdsample.exact.states import Branches, Walk, at, distinct, joined, pooled
from mdsample.exact.toy import LARGEST_TABLE, Toy
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Part, Policy
from mdsample.policy.complete import CompletePolicy
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import NoGuide
from mdsample.policy.holding import Holding
from mdsample.policy.revise import RandomRevise
from mdsample.policy.stop import Converged
from mdsample.policy.view import View
from mdsample.sampling.life import blanked, ends, rewritten
from mdsample.sampling.observe import Kept, Observation
from mdsample.sampling.sampler import Sampler, apply_stops, in_rank_order
from mdsample.sampling.state import Commits, Event, Outcome, State

#: states that are looked at in one forward pass
_CHUNK = 1024


@attrs.frozen(eq=False, slots=False)
class Law:
    """The distribution of the final row, K different ones. `outcomes`, `table` and `marginal` are views of it."""

    canvas: Canvas
    #: `[K, L]` int32, the mask token where a stop rule left a blank
    tokens: Ints
    #: `[K]` float64, sums to 1
    probability: Doubles
    #: expected forward passes, guidance counted twice
    expected_nfe: float
    #: KL(joint ‖ law) is at most this, nats: E Σ b over the joint's visits, b = ΣH − max H of a step's commits.
    #: inf where that theorem does not speak: at other draws than temperature(1), under a guide, a constraint, a
    #: revision or `converged`, where a stop rule wrote tokens by itself, where the denoiser has no joint, and where its
    #: noise is uniform
    kl_bound: float
    #: TV(joint, law) is at most this, the least of 1, E Σ d over the sampler's visits (d: `parallel_bounds`) and
    #: √(kl_bound/2); 1 where the theorem does not speak
    tv_bound: float
    #: probability of leaving because of each stop rule, or `filled`
    left: Mapping[str, float]
    #: V, the number of tokens a blank may become
    size: int
    mask_id: int

    @cached_property
    def outcomes(self) -> dict[tuple[int, ...], float]:
        """Final row -> probability."""
        rows = (tuple(row) for row in self.tokens.tolist())
        return dict(zip(rows, self.probability.tolist(), strict=True))

    @cached_property
    def table(self) -> Doubles:
        """Probability of every row, shape `(V,) * L`; `ValueError` if outcomes have blanks, or it would be huge."""
        return self.marginal(range(self.tokens.shape[1]))

    @cached_property
    def filled(self) -> Bools:
        """The positions to fill that are filled in every outcome, `[L]`."""
        return self.canvas.blank[0] & self._known(np.arange(self.tokens.shape[1], dtype=np.int64))

    def marginal(self, where: str | Sequence[int]) -> Doubles:
        """Probabilities of the tokens in a slot or at given positions, shape `(V,) * number of positions`."""
        if isinstance(where, str):
            if where not in self.canvas.names:
                raise ValueError(f"there is no slot {where!r}; slots here: {', '.join(self.canvas.names)}")
            where = np.flatnonzero(self.canvas.slot[0] == self.canvas.names.index(where)).tolist()
        positions = np.array(where, np.int64)
        if not self._known(positions).all():
            raise ValueError(
                "some outcomes leave blanks there; ask for law.marginal(positions) of law.filled, or read law.outcomes"
            )
        if self.size ** len(positions) > LARGEST_TABLE:
            raise ValueError(f"a table of {self.size}^{len(positions)} numbers is too large; read law.outcomes")
        out = np.zeros((self.size,) * len(positions))
        np.add.at(out, tuple(self.tokens[:, positions].T), self.probability)
        return out

    def _known(self, where: Longs) -> Bools:
        return (self.tokens[:, where] != self.mask_id).all(0)


def law(policy: Policy | Part, denoiser: Denoiser, canvas: Canvas | None = None, *, limit: int = 5_000_000) -> Law:
    """The exact law of what `Sampler(policy)` makes of a canvas of one row (default: the toy's own).

    Follows every draw and every die of the policy: noised orders, random counts, early exits. `denoiser` is a toy, or
    any model whose looks tell their `probabilities`. Raises `PolicyError` as `Sampler.plan` does, `LawTooLarge` if more
    than `limit` branches would have to be followed, and `ValueError` for a part whose law cannot be followed and for
    fixed text that cannot occur.
    """
    tally = _begun(policy, denoiser, canvas, limit)
    for _ in tally.follow():
        pass
    return tally.law()


def visits(
    policy: Policy | Part, denoiser: Denoiser, canvas: Canvas | None = None, *, limit: int = 5_000_000
) -> Iterator[tuple[Doubles, View]]:
    """All that the policy can come to see, step by step: views of B rows, and how likely it sees each, `[B]`.

    Arguments and errors as for `law`. The views keep neither histories nor random numbers.
    """
    return _begun(policy, denoiser, canvas, limit).follow()


def _begun(policy: Policy | Part, denoiser: Denoiser, canvas: Canvas | None, limit: int) -> _Tally:
    if canvas is None:
        if not isinstance(denoiser, Toy):
            raise ValueError(f"{denoiser.name} is not a toy and has no canvas of its own; pass one of one row")
        canvas = denoiser.canvas()
    if len(canvas) != 1:
        raise ValueError(f"a law is that of one row; the canvas has {len(canvas)}: take one, as in canvas.take([0])")
    if isinstance(denoiser, Toy) and np.isneginf(denoiser.log_prob(denoiser.padded(canvas.tokens))).any():
        raise ValueError(f"the canvas's fixed text has probability zero under {denoiser.name}; change it")
    sampler, canvas = Sampler(policy), canvas.take([0])
    return _Tally(Walk(sampler.policy, sampler.plan(denoiser, canvas), canvas, limit))


@attrs.define(eq=False)
class _Tally:
    """What has been found out so far."""

    walk: Walk
    nfe: float = 0.0
    kl: float = 0.0
    tv: float = 0.0
    by_rule: bool = False
    #: rows that have left, `[n, L]`, and their probabilities, `[n]`
    rows: list[Ints] = attrs.Factory(list[Ints])
    weights: list[Doubles] = attrs.Factory(list[Doubles])
    left: dict[str, float] = attrs.Factory(dict[str, float])

    def follow(self) -> Iterator[tuple[Doubles, View]]:
        """Follows the run to its end, a step at a time, and shows what was seen in each."""
        walk = self.walk
        now = self.left_out(Branches.begin(State.begin(walk.canvas)), Event.none())
        while len(now):
            after, kept = list[Branches](), list[Kept]()
            for part in np.array_split(np.arange(len(now)), -(-len(now) // _CHUNK)):
                chunk, shown = walk.noised(now.take(part))
                seen = walk.see(chunk, shown)
                yield chunk.weight, seen.view
                number = np.full(len(chunk), -1, np.int64)
                if any(seen.kept):
                    number = len(kept) + np.arange(len(chunk))
                    kept += seen.kept
                after.append(self.step(chunk, seen, number, shown).merged(walk.remembers))
            walk.kept = kept
            now = Branches.joined(after).merged(walk.remembers)

    def step(self, now: Branches, seen: Observation, number: Longs, shown: Ints) -> Branches:
        """One step from all states; those from which the run goes on. `number [N]`: of what was kept of each.

        `shown`: as `Walk.noised` gives it.
        """
        walk, plan, view = self.walk, self.walk.plan, seen.view
        placed = placements(walk, view)
        # what follows from a set of places without dice
        here = view.take(placed.state)
        leaving = np.flatnonzero(placed.leaves >= 0).astype(np.int32)
        end = ends(plan.policy, here, placed.chosen, leaving)
        placed = attrs.evolve(placed, chosen=np.where(end.best[:, None], here.eligible, placed.chosen))
        drawn = self._drawn(now, seen, placed, end.best, shown)
        which, share = np.arange(len(drawn.commit)), drawn.weight
        parent = placed.state[drawn.commit]
        if isinstance(plan.policy.revise, RandomRevise):
            which, again, coins = revisions(walk, view, now.state.remasked, parent)
            share, parent = share[which] * coins, parent[which]
        else:
            coins = np.ones(len(which))
            remasked = np.zeros_like(placed.chosen)
            remasked[blanked(plan, here, placed.chosen, leaving, now.state.remasked[placed.state])] = True
            again = remasked[drawn.commit]
        commit = drawn.commit[which]
        outcomes = [Outcome(stop.name, stop.sentence) for stop in plan.policy.stops]
        row, position = in_rank_order(placed.ranking[commit], placed.chosen[commit])
        token, probability = drawn.tokens[which[row], position], drawn.probability[which[row], position]
        new, where, instead = rewritten(plan, here, np.zeros(len(placed.chosen), np.int32), placed.chosen)
        if len(new):
            table, stated = np.full(placed.chosen.shape, -1, np.int32), np.zeros(placed.chosen.shape, np.float32)
            table[new, where] = instead
            logged = seen.prediction.log_probabilities(placed.state[new].astype(np.int32), where, instead)
            stated[new, where] = np.exp(logged)
            line, there = (index.astype(np.int32) for index in np.nonzero(table[commit] >= 0))
            row, position = np.concatenate([row, line]), np.concatenate([position, there])
            token = np.concatenate([token, table[commit[line], there]])
            probability = np.concatenate([probability, stated[commit[line], there]])
        holding = plan.holding is not None
        again_row, again_position = np.nonzero(again)
        leaves: list[int] = placed.leaves[commit].tolist()
        event = Event.of(
            np.arange(len(commit), dtype=np.int32),
            seen.passes[parent],
            Commits(
                row,
                position,
                token,
                probability,
                view.marginals.entropy[parent[row], position],
                view.marginals.confidence[parent[row], position],
            ),
            (again_row.astype(np.int32), again_position.astype(np.int32)),
            np.flatnonzero(np.array(leaves) >= 0).astype(np.int32),
            tuple(outcomes[stop] for stop in leaves if stop >= 0),
            np.full(len(row), holding),
            np.flatnonzero(holding & end.settled[commit]).astype(np.int32),
        )
        come = placed.probability[commit]
        before = Branches(
            now.state.take(parent),
            now.weight[parent] * come * share,
            now.policy_probability[parent] * come * coins,
            number[parent],
        )
        return self.left_out(before, event)

    def _drawn(self, now: Branches, seen: Observation, placed: Placements, best: Bools, shown: Ints) -> Drawn:
        """The tokens that may be drawn for each set of places: those of `best [M]` are the most probable."""
        parts = list[Drawn]()
        for group, how in ((~best, self.walk.plan.policy.draw), (best, Greedy())):
            which = np.flatnonzero(group)
            if not len(which):
                continue
            some = at(placed, which)
            needed = np.zeros_like(now.state.blank)
            np.logical_or.at(needed, some.state, some.chosen)
            model, law = tables(self.walk, seen.prediction, needed, how)
            self._count(now, some, model)
            drawn = draws(self.walk, now, some, model, law, how, shown)
            parts.append(attrs.evolve(drawn, commit=which[drawn.commit]))
        self.nfe += float((now.weight * seen.passes).sum())
        return joined(parts)

    def left_out(self, before: Branches, event: Event) -> Branches:
        """Applies an event with what stop rules do, as the loop does, and takes out the rows that leave."""
        every = np.arange(len(before), dtype=np.int32)
        state, event = apply_stops(self.walk.plan, before.state, every, event, np.zeros_like(every))
        self.by_rule |= bool(event.by_rule.any())
        for row, outcome in zip(event.left.tolist(), event.outcomes, strict=True):
            self.left[outcome.name] = self.left.get(outcome.name, 0.0) + float(before.weight[row])
        first, which = distinct([state.tokens[event.left]])
        self.rows.append(state.tokens[event.left][first])
        self.weights.append(pooled(before.weight[event.left], which))
        return attrs.evolve(before, state=state).take(np.flatnonzero(state.active))

    def _count(self, states: Branches, placed: Placements, model: Doubles) -> None:
        """Adds a step to the expectations: b over the joint's visits, d over the sampler's."""
        logarithm = np.log(model, out=np.zeros_like(model), where=model > 0)
        which, position = np.nonzero(placed.chosen)
        there = placed.state[which], position
        b, d = parallel_bounds(which, -(model * logarithm).sum(2)[there], model.max(2)[there], len(placed.chosen))
        self.tv += float((states.weight[placed.state] * placed.probability * d).sum())
        toy = self.walk.plan.denoiser
        if isinstance(toy, Toy):
            # how likely the joint itself deals the tokens of a state, given the fixed text
            rows, given = toy.padded(states.state.tokens), toy.padded(self.walk.canvas.tokens)
            dealt = np.exp(toy.log_prob(rows) - toy.log_prob(given))
            self.kl += float(((dealt * states.policy_probability)[placed.state] * placed.probability * b).sum())

    def law(self) -> Law:
        """The sum of it all."""
        walk, tokens = self.walk, np.concatenate(self.rows)
        first, which = distinct([tokens])
        model = walk.plan.denoiser
        speaks = isinstance(model, Toy) and not self.by_rule and model.noise == "mask" and _plain(walk.plan.policy)
        mask = model.tokenizer.mask_id
        return Law(
            walk.canvas,
            tokens[first],
            pooled(np.concatenate(self.weights), which),
            self.nfe,
            self.kl if speaks else math.inf,
            min(1.0, self.tv, math.sqrt(self.kl / 2)) if speaks else 1.0,
            self.left,
            mask if mask == model.vocab_size - 1 else model.vocab_size,
            mask,
        )


def _plain(policy: CompletePolicy) -> bool:
    """Whether draws are the model's own conditionals, and what is committed stays."""
    return (
        policy.draw == Temperature()
        and policy.guide == NoGuide()
        and not policy.constraints
        and not policy.revise.budget
        and not isinstance(policy.revise, Holding)
        and not any(isinstance(stop, Converged) for stop in policy.stops)
    )

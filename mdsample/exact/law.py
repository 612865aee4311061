"""Law: the exact distribution of what a policy makes of one row, by following everything that can happen.

The walk runs the loop's own functions (`see`, `rank`, `prefix`, `remask`, `stop_decisions` of `mdsample.sampling`) on
all states of a step at once; only where the loop throws dice, all faces are followed instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Ints, Longs
from mdsample.core.canvas import Canvas
from mdsample.exact.branches import Commits, commits, draws, revisions, tables
from mdsample.exact.states import States, Walk, at, distinct, joined, pooled
from mdsample.exact.toy import LARGEST_TABLE, Toy
from mdsample.models.denoiser import Denoiser, Prediction
from mdsample.policy.base import Part, Policy
from mdsample.policy.complete import CompletePolicy
from mdsample.policy.draw import Temperature
from mdsample.policy.guide import NoGuide
from mdsample.policy.revise import RandomRevise
from mdsample.policy.view import View
from mdsample.sampling.previous import Glance, glances_of
from mdsample.sampling.sampler import Sampler, in_order, remask, stop_decisions
from mdsample.sampling.state import FILLED, parallel_bound

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
    #: inf where that theorem does not speak: at other draws than temperature(1), under a guide, a constraint or a
    #: revision, where a stop rule wrote tokens by itself, and where the denoiser has no joint
    kl_bound: float
    #: TV(joint, law) is at most this: min(1, E Σ √(b/2)) over the sampler's visits; 1 where the theorem does not speak
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
        """Probabilities of what stands in a slot or at given positions, shape `(V,) * number of positions`."""
        if isinstance(where, str):
            if where not in self.canvas.names:
                raise ValueError(f"there is no slot {where!r}; slots here: {', '.join(self.canvas.names)}")
            where = np.flatnonzero(self.canvas.slot[0] == self.canvas.names.index(where)).tolist()
        here = np.array(where, np.int64)
        if not self._known(here).all():
            raise ValueError(
                "some outcomes leave blanks there; ask for law.marginal(positions) of law.filled, or read law.outcomes"
            )
        if self.size ** len(here) > LARGEST_TABLE:
            raise ValueError(f"a table of {self.size}^{len(here)} numbers is too large; read law.outcomes")
        out = np.zeros((self.size,) * len(here))
        np.add.at(out, tuple(self.tokens[:, here].T), self.probability)
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
            raise ValueError(f"{denoiser.name} is no toy, so it has no canvas of its own; pass one of one row")
        canvas = denoiser.canvas()
    if len(canvas) != 1:
        raise ValueError(f"a law is that of one row; the canvas has {len(canvas)}: take one, as in canvas.take([0])")
    if isinstance(denoiser, Toy) and np.isneginf(denoiser.log_prob(denoiser.padded(canvas.tokens))).any():
        raise ValueError(f"the canvas's fixed text has probability zero under {denoiser.name}; change it")
    sampler = Sampler(policy)
    return _Tally(Walk(sampler.policy, sampler.plan(denoiser, canvas), denoiser, canvas, limit))


@attrs.define(eq=False)
class _Tally:
    """What has been found out so far."""

    walk: Walk
    nfe: float = 0.0
    kl: float = 0.0
    tv: float = 0.0
    by_rule: bool = False
    final: list[States] = attrs.Factory(list[States])
    left: dict[str, float] = attrs.Factory(dict[str, float])

    def follow(self) -> Iterator[tuple[Doubles, View]]:
        """Follows the run to its end, a step at a time, and shows what was seen in each."""
        walk = self.walk
        states, step = self.settled(States.begin(walk.canvas), np.full(1, -1, np.int32), 0), 0
        while len(states):
            after, glances = list[States](), list[Glance]()
            for part in np.array_split(np.arange(len(states)), -(-len(states) // _CHUNK)):
                now = at(states, part)
                view, prediction = walk.see(now, step)
                yield now.weight, view
                number = np.full(len(now), -1, np.int64)
                if walk.plan.shifts:
                    number = len(glances) + np.arange(len(now))
                    glances += glances_of(walk.denoiser, prediction, view.eligible, view.shifts)
                after.append(self.step(now, view, prediction, step, number).merged(walk.remembers))
            walk.glances = glances
            states, step = joined(after).merged(walk.remembers), step + 1

    def step(self, states: States, view: View, prediction: Prediction, step: int, number: Longs) -> States:
        """One step from all states; those from which the run goes on. `number [N]`: of each state's look."""
        walk, plan = self.walk, self.walk.plan
        made = commits(walk, states, view, step)
        needed = np.zeros_like(states.blank)
        np.logical_or.at(needed, made.state, made.chosen)
        model, law = tables(walk, prediction, needed)
        self._count(states, made, model)
        drawn = draws(walk, states, step, made, model, law)
        state, chosen = made.state[drawn.commit], made.chosen[drawn.commit]
        share = made.probability[drawn.commit]
        again = np.zeros_like(states.blank)
        coins = isinstance(plan.policy.revise, RandomRevise)
        if not coins:
            again[remask(plan, view, states.remasked)] = True
        again = again[state]
        mask = np.int32(walk.denoiser.tokenizer.mask_id)
        past = at(states, state)
        row, position = in_order(made.ranking, made.chosen)
        spent = parallel_bound(row, view.marginals.entropy[made.state[row], position], len(made.state))
        after = States(
            np.where(again, mask, drawn.tokens),
            drawn.blank | again,
            np.where(again, -1, np.where(chosen, step, past.written)).astype(np.int32),
            np.where(again, np.nan, np.where(chosen, drawn.probability, past.probability)).astype(np.float32),
            past.error_bound + spent[drawn.commit],
            past.remasked + again.sum(1, dtype=np.int32),
            past.weight * share * drawn.weight,
            past.chance * share,
            number[state],
        )
        leaves = made.leaves[drawn.commit]
        if coins:
            after, which = revisions(walk, view, states.remasked, after, state)
            leaves = leaves[which]
        return self.settled(after, leaves, step + 1)

    def settled(self, states: States, leaves: Ints, step: int) -> States:
        """Writes what stop rules write without a look, and takes out the rows that leave."""
        names = [*(stop.name for stop in self.walk.plan.policy.stops), FILLED.name]
        staying = at(states, leaves < 0)
        fill, over = stop_decisions(self.walk.plan.policy, self.walk.batch(staying, step))
        written = fill >= 0
        if written.any():
            self.by_rule = True
            staying = attrs.evolve(
                staying,
                tokens=np.where(written, fill, staying.tokens),
                blank=staying.blank & ~written,
                written=np.where(written, max(step - 1, 0), staying.written).astype(np.int32),
                probability=np.where(written, 1, staying.probability).astype(np.float32),
            )
        done = np.full(len(staying), -1, np.int32)
        done[list(over)] = [names.index(outcome.name) for outcome in over.values()]
        gone = joined([at(states, leaves >= 0), at(staying, done >= 0)])
        why = np.concatenate([leaves[leaves >= 0], done[done >= 0]])
        for number, total in enumerate(np.bincount(why, gone.weight, len(names))):
            if total:
                self.left[names[number]] = self.left.get(names[number], 0.0) + float(total)
        self.final.append(gone.merged(remembers=False))
        return at(staying, done < 0)

    def _count(self, states: States, made: Commits, model: Doubles) -> None:
        """Adds a step to the expectations: its price, b over the joint's visits, √(b/2) over the sampler's."""
        self.nfe += self.walk.plan.passes * float(states.weight.sum())
        logarithm = np.log(model, out=np.zeros_like(model), where=model > 0)
        entropy = -(model * logarithm).sum(2)[made.state] * made.chosen
        b = np.maximum(entropy.sum(1) - entropy.max(1), 0)
        self.tv += float((states.weight[made.state] * made.probability * np.sqrt(b / 2)).sum())
        toy = self.walk.denoiser
        if isinstance(toy, Toy):
            # how likely the joint itself deals the tokens of a state, given the fixed text
            dealt = np.exp(toy.log_prob(toy.padded(states.tokens)) - toy.log_prob(toy.padded(self.walk.canvas.tokens)))
            self.kl += float(((dealt * states.chance)[made.state] * made.probability * b).sum())

    def law(self) -> Law:
        """The sum of it all."""
        walk, final = self.walk, joined(self.final)
        first, which = distinct([final.tokens])
        speaks = isinstance(walk.denoiser, Toy) and not self.by_rule and _plain(walk.plan.policy)
        mask = walk.denoiser.tokenizer.mask_id
        return Law(
            walk.canvas,
            final.tokens[first],
            pooled(final.weight, which),
            self.nfe,
            self.kl if speaks else math.inf,
            min(1.0, self.tv) if speaks else 1.0,
            self.left,
            mask if mask == walk.denoiser.vocab_size - 1 else walk.denoiser.vocab_size,
            mask,
        )


def _plain(policy: CompletePolicy) -> bool:
    """Whether draws are the model's own conditionals, and what is committed stays."""
    return (
        policy.draw == Temperature()
        and policy.guide == NoGuide()
        and not policy.constraints
        and not policy.revise.budget
    )

"""What a step is likely to make of a text, if what the model says of it is only nearly known."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Floats, Indices, Ints
from mdsample.core.marginals import Marginals
from mdsample.core.uniforms import Uniforms
from mdsample.models.denoiser import Prediction
from mdsample.policy.complete import CompletePolicy
from mdsample.policy.draw import Draw, Greedy, Temperature
from mdsample.policy.view import View
from mdsample.sampling.observe import Asking, Observation
from mdsample.sampling.picked import Picked
from mdsample.sampling.plan import Plan
from mdsample.sampling.state import Event, Outcome, State

#: which places go, which rows leave and why
Choice = tuple[Bools, Ints, tuple[Outcome, ...]]

#: how much doubt changes from a text to the next, as powers of e: mean, deviation, deviation in common; and the share
#: of positions where it all but goes, to what range of powers. As seen on tiny-gsm and tiny-sudoku under `eb`
_MEAN, _OWN, _COMMON, _SETTLED, _RANGE = -0.15, 0.3, 0.2, 0.05, (-8.0, -1.0)
#: how likely it is that the step is what it would be if nothing changed, and nothing comes of chance
_STILL = 0.3
#: by how many nats the two most probable tokens of a place drift apart or together, as a deviation
_DRIFT = 0.7


@attrs.frozen(eq=False)
class Step:
    """How a step is taken: `advance`, `rank`, `choose` and `follow` of `mdsample.sampling.sampler`."""

    advance: Callable[[Plan, State, Ints], Asking[tuple[State, Event]]]
    rank: Callable[[CompletePolicy, View], Ints]
    choose: Callable[[CompletePolicy, View, Ints], Choice]
    follow: Callable[[Plan, State, Ints, Observation, Ints, Choice], tuple[State, Event]]


@attrs.frozen(eq=False)
class Drift:
    """M ways in which what the model says may change, `[M, L]`; the first is no change."""

    #: the power of e by which doubt grows
    doubt: Doubles
    #: by how much the second most probable token gains on the first, nats
    second: Doubles
    #: how likely each is, `[M]`
    chance: Doubles

    @staticmethod
    def of(copies: int, length: int, seed: int) -> Drift:
        """Random ones, the same for the same seed."""
        rng = np.random.default_rng(seed)
        shape = copies, length
        doubt = rng.normal(_MEAN, _OWN, shape) + rng.normal(0, _COMMON, (copies, 1))
        doubt = np.where(rng.random(shape) < _SETTLED, rng.uniform(*_RANGE, shape), doubt)
        second = rng.normal(0, _DRIFT, shape)
        doubt[0] = second[0] = 0
        chance = np.full(copies, (1 - _STILL) / max(copies - 1, 1))
        chance[0] = _STILL if copies > 1 else 1
        return Drift(doubt, second, chance)


def likely(
    step: Step,
    plan: Plan,
    state: State,
    seen: Observation,
    drift: Drift,
    keep: Callable[[Indices, Doubles], Bools],
) -> tuple[Indices, Doubles, State]:
    """What a step may make of T rows of which `seen` is a guess; a plan and state of these rows.

    The policy chooses once for each `drift` of what was seen. Returns the row that each of N outcomes comes from, the
    share of the drifts that gives it, and the outcomes; only those that `keep` keeps, told rows and shares. Nothing is
    written where nothing was seen.
    """
    copies, rows = len(drift.doubt), len(state.active)
    line = np.repeat(np.arange(rows), copies)
    view, length = seen.view, seen.view.eligible.shape[1]
    if copies > 1:
        view = view.take(line)
        marginals = view.marginals.shifted(np.tile(drift.doubt[:, :length], (rows, 1)))
        keys = [plan.keys[row] for row in line.tolist()]
        view = attrs.evolve(view, marginals=marginals, uniforms=Uniforms(keys, view.batch.step, length))
    visible = np.isfinite(view.marginals.entropy)
    ranking = step.rank(plan.policy, view)
    chosen, leaving, outcomes = step.choose(plan.policy, view, ranking)
    chosen &= visible
    # the other token, where it would come to lead
    gained = np.tile(drift.second[:, :length], (rows, 1))
    with np.errstate(invalid="ignore"):
        lead = (seen.view.marginals.log_probability - seen.view.marginals.second)[line]
    swapped = chosen & (lead < gained)
    leaves = np.isin(np.arange(len(line)), leaving)
    marks = [np.packbits(which, axis=1) for which in (chosen, swapped, leaves[:, None])]
    key = np.concatenate([line[:, None].astype(np.int32).view(np.uint8), *marks], 1)
    _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    share = np.bincount(group.reshape(-1), np.tile(drift.chance, rows)).astype(np.float64)
    which = keep(line[first], share)
    first, share = first[which], share[which]
    line, everything = line[first], np.arange(len(first), dtype=np.int32)
    plan, state = plan.take(line), state.take(line)
    why = dict(zip(leaving.tolist(), outcomes, strict=True))
    out = [n for n, copy in enumerate(first.tolist()) if copy in why]
    source = np.where(visible[first], line[:, None], -1).astype(np.int32)
    picked = Picked([(seen.prediction, row) for row in range(rows)], source, bool(plan.restriction.spans))
    prediction = Swapped(picked, swapped[first]) if swapped.any() else picked
    view = attrs.evolve(view.take(first), uniforms=Uniforms(plan.keys, view.batch.step[first], length))
    choice = chosen[first], np.array(out, np.int32), tuple(why[int(first[n])] for n in out)
    passes, kept = seen.passes[line], [seen.kept[int(row)] for row in line]
    seen = Observation(view, prediction, passes, kept)
    after, _ = step.follow(plan, state, everything, seen, ranking[first], choice)
    return line, share, after


@attrs.frozen(eq=False)
class Swapped(Prediction):
    """A prediction from which some places draw the other of the two most probable tokens."""

    of: Picked
    #: `[B, L]`
    where: Bools

    @property
    def marginals(self) -> Marginals:
        """Those of what it is made of."""
        return self.of.marginals

    @property
    def credits(self) -> None:
        """Unknown, as in what it is made of."""

    def draw(self, rows: Ints, positions: Ints, uniforms: Doubles, how: Draw) -> tuple[Ints, Floats]:
        """As it draws, but for those places."""
        token, probability = self.of.draw(rows, positions, uniforms, how)
        other = np.flatnonzero(self.where[rows, positions])
        pair = Temperature(1.0, top_k=2)
        for edge in (1e-9, 1 - 1e-9) if len(other) else ():
            at = rows[other], positions[other]
            found, chance = self.of.draw(*at, np.full(len(other), edge), pair)
            differs = found != self.of.marginals.token[at] if isinstance(how, Greedy) else found != token[other]
            token[other[differs]], probability[other[differs]] = found[differs], chance[differs]
        return token, probability

    def log_probabilities(self, rows: Ints, positions: Ints, tokens: Ints) -> Floats:
        """As it."""
        return self.of.log_probabilities(rows, positions, tokens)

    def divergence(self, rows: Ints, positions: Ints, before: Prediction, before_rows: Ints) -> Floats:
        """As it."""
        return self.of.divergence(rows, positions, before, before_rows)

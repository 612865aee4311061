"""Slots of unknown length: a row has a candidate for each length, all run side by side, and the best one is kept.

A candidate is the run of a template in which its lengths are written out: same seed, same row id, so also the same
random numbers. The score of one is log p(its text), nats: the sum over its written tokens of log p(token | what was
written before), in the order in which they were written, which is the chain rule in the policy's order. The tokens of
one step count as independent, as the step took them. A text and the same text with end tokens after it are nearly
equals, as a model is sure of the end tokens; the mean over tokens would take the longer one for the better. What the
fixed text after a slot makes of a length is not counted, so that short texts are at an advantage.

The run itself knows these probabilities, but where a slot holds a language or a set of tokens they are those *given*
that, at a length where one text alone is allowed 1. And where tokens were masked again or replaced they are of texts
that are not there any more. Then the text that stands is read once more, without constraints, in the same order: a
forward pass for each step and for each token that followed without one, which do not depend on one another. Guides that
hang on the steps before (`annealing`, `repetition`, `credit`) are left out there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import log

import attrs
import numpy as np

from mdsample.core.arrays import Bools
from mdsample.core.restriction import Restriction
from mdsample.core.rows import Rows
from mdsample.errors import PolicyError
from mdsample.models.denoiser import Query
from mdsample.policy.guide import Credit, NoGuide, Tuned
from mdsample.policy.revise import Never
from mdsample.sampling.plan import Plan
from mdsample.sampling.row import Commit, Row, Tried
from mdsample.sampling.state import Outcome

#: nats of a token of probability 0; JSON has no infinity
_LEAST = -1e4


@attrs.frozen(eq=False)
class Candidate:
    """A row that is done, and under which plan it ran."""

    lengths: Mapping[str, int]
    row: Row
    plan: Plan


def require_scores(plan: Plan) -> None:
    """`PolicyError` where texts have no score: of random tokens, or where the cache does not stand a second reading."""
    cache, name = plan.denoiser.cache, plan.denoiser.name
    if plan.denoiser.noise != "mask":
        raise PolicyError(
            f"slots of unknown length are compared by the probabilities of their texts, but what {name} says of a "
            "blank depends on the random tokens that it is shown there; write one length"
        )
    if _read_again(plan) and cache is not None and cache.approximate:
        raise PolicyError(
            f"slots of unknown length are compared by passes that the cache {str(cache)!r}, which is approximate, "
            "would mix with those of other rows; leave out the cache or the constraints, or write one length"
        )


def best(candidates: Sequence[Candidate], batch_size: int) -> Row:
    """The candidate of the best score, the first among equals; its costs are those of all, and it says what was tried.

    `batch_size`: rows in one forward pass, where texts are read once more.
    """
    candidates = sorted(candidates, key=lambda candidate: tuple(candidate.lengths.values()))
    if len(candidates) == 1:
        row = candidates[0].row
        return attrs.evolve(row, tried=(Tried(candidates[0].lengths, row.text, None, row.nfe),))
    scores = [_score(candidate, batch_size) for candidate in candidates]
    tried = tuple(
        Tried(candidate.lengths, candidate.row.text, score, candidate.row.nfe + passes)
        for candidate, (score, passes) in zip(candidates, scores, strict=True)
    )
    chosen = max(range(len(tried)), key=lambda number: scores[number][0])
    again = int(any(passes for _, passes in scores))
    return attrs.evolve(
        candidates[chosen].row,
        nfe=sum(one.nfe for one in tried),
        rounds=max(candidate.row.rounds for candidate in candidates) + again,
        tried=tried,
    )


def removed(candidates: Sequence[Candidate], outcome: Outcome) -> Row:
    """A row that was taken out before its candidates could be compared: the first of them, at the cost of all."""
    first, *_ = sorted(candidates, key=lambda candidate: tuple(candidate.lengths.values()))
    return attrs.evolve(
        first.row,
        outcome=outcome,
        nfe=sum(candidate.row.nfe for candidate in candidates),
        rounds=max(candidate.row.rounds for candidate in candidates),
    )


def _read_again(plan: Plan) -> bool:
    return bool(plan.policy.constraints) or not isinstance(plan.policy.revise, Never)


def _score(candidate: Candidate, batch_size: int) -> tuple[float, int]:
    """The score, nats, and the forward passes that it took."""
    row, plan = candidate.row, candidate.plan
    if not _read_again(plan):
        chances = [commit.probability for commit in row.written.values() if not commit.by_rule]
        return sum(max(log(chance), _LEAST) if chance else _LEAST for chance in chances), 0
    groups: dict[tuple[int, int, int], list[Commit]] = {}
    for commit in row.written.values():
        groups.setdefault(_turn(commit, plan.tokenizer.ends), []).append(commit)
    states = [groups[turn] for turn in sorted(groups)]
    logs = [
        each
        for first in range(0, len(states), batch_size)
        for each in _logs(row, plan, states, range(first, min(first + batch_size, len(states))))
    ]
    return sum(logs), len(states) * plan.policy.guide.passes


def _turn(commit: Commit, ends: Collection[int]) -> tuple[int, int, int]:
    """When a token has its turn: its step; after it what followed without a pass, one by one, and then the end."""
    if not commit.by_rule:
        return commit.step, 0, 0
    return (commit.step, 2, 0) if commit.token in ends else (commit.step, 1, commit.position)


def _logs(row: Row, plan: Plan, groups: Sequence[Sequence[Commit]], which: range) -> list[float]:
    """log p of the tokens of some groups, each group given those before it; one pass for each."""
    mask_id = plan.tokenizer.mask_id
    tokens = np.tile(row.tokens, (len(which), 1))
    wanted = np.zeros(tokens.shape, np.bool_)
    opened: Bools = row.blank.copy()
    opened[list(row.written)] = True
    for line, number in enumerate(which):
        later = [commit.position for group in groups[number:] for commit in group]
        tokens[line, later] = mask_id
        wanted[line, [commit.position for commit in groups[number]]] = True
    every = np.ones_like(wanted)
    allowed = np.arange(plan.denoiser.vocab_size) < plan.tokenizer.size
    allowed[mask_id] = False
    free = Restriction(allowed[None], np.zeros(tokens.shape, np.int32))
    names = Rows([(0, number) for number in which], np.zeros(len(which), np.int32))
    fixed = every & ~opened[None]
    guide = NoGuide() if isinstance(plan.policy.guide, Tuned | Credit) else plan.policy.guide
    prediction = plan.denoiser.predict(Query(tokens, every, wanted, fixed, free, guide, names))
    line, position = (index.astype(np.int32) for index in np.nonzero(wanted))
    logs = prediction.log_probabilities(line, position, row.tokens[position]).tolist()
    return [max(each, _LEAST) for each in logs]

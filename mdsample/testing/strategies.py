"""Strategies and suites with which a user's own part or backend can be tested; needs Hypothesis (`mdsample[test]`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mdsample.policy.base import MANY, SEATS, Part, Policy, Seat
from mdsample.policy.catalog import PARTS
from mdsample.policy.constraint import Allow, Ban, Characters, Choices
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import Cfg, NoGuide
from mdsample.policy.order import (
    Confidence,
    Entropy,
    Fixed,
    LeftToRight,
    Lookahead,
    Margin,
    PositionBiased,
    Random,
    RightToLeft,
)
from mdsample.policy.remdm import KINDS
from mdsample.policy.revise import BelowConfidence, Never, P2Remask, RemdmRemask
from mdsample.policy.selection import (
    AboveConfidence,
    BelowEntropy,
    CumulativeConfidence,
    EntropyBound,
    ErrorBudget,
    Factor,
    Frechet,
    LinearTime,
    P2Reveal,
    RemdmReveal,
    Stable,
    Steps,
    Top,
)
from mdsample.policy.stop import Budget, EarlyExit, Ended
from mdsample.policy.window import Blocks, Dilated, Whole

T = TypeVar("T")
_TEXT = st.text(min_size=1)


def parts() -> SearchStrategy[Part]:
    """Any part of the catalogue with any settings that it accepts; they may fit no canvas and no model."""
    table = _table(
        positive=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        natural=st.integers(1, 2**31 - 1),
        slot=_TEXT,
        token=st.integers(min_value=0) | _TEXT,
        allowed=_few(st.integers(min_value=0) | _TEXT),
        permutation=st.integers(1, 8).map(range).flatmap(st.permutations),
        end=_TEXT,
        choice=_TEXT,
    )
    return st.sampled_from(sorted(table)).flatmap(table.__getitem__)


def policies(
    slots: Sequence[str] = ("answer",),
    vocab: int | None = None,
    blanks: int | None = None,
    texts: Sequence[str] = (),
    end: bool = True,
) -> SearchStrategy[Policy]:
    """Policies that fit a canvas, with every part of the catalogue that can fit it and settings of usual size.

    `slots`: its slot names. `vocab`: number of tokens; without it there is no `ban` and no `allow`, and never are
    more than half of the tokens banned. `blanks`: how many each row has; without it there is no `fixed`. `texts`: texts
    that fit each slot; without them there are no `choices` and no `characters`. `end`: whether the model has an end
    token; without one there is no `ended`. Constraints leave each position some token, so bans never meet the others.
    """
    table = _table(
        positive=st.floats(0.01, 8),
        natural=st.integers(1, 64),
        slot=st.sampled_from(slots) if slots else st.nothing(),
        token=st.integers(0, vocab // 2 - 1) if vocab and vocab > 1 else st.nothing(),
        # one of two may be the mask, which is never written
        allowed=st.sets(st.integers(0, vocab // 2 - 1), min_size=2, max_size=3).map(tuple)
        if vocab and vocab > 3
        else st.nothing(),
        permutation=st.permutations(range(blanks)) if blanks else st.nothing(),
        end=st.just("end") if end else st.nothing(),
        choice=st.sampled_from(texts) if texts else st.nothing(),
    )

    def seated(seat: Seat) -> SearchStrategy[Part]:
        return st.one_of([table[name] for name, part in PARTS.items() if part.seat == seat])

    slotted = st.one_of(table["choices"], table["characters"], table["allow"])
    constraints = st.one_of(
        st.lists(table["ban"], max_size=2),
        # two sets of texts or characters for one slot may have nothing in common
        st.lists(slotted, max_size=2, unique_by=_slot),
    )
    held = {seat: st.lists(seated(seat), max_size=2 if seat in MANY else 1) for seat in SEATS}
    held["constraint"] = constraints
    return st.tuples(*held.values()).map(lambda groups: _planned_together(Policy.of(*chain(*groups))))


def _planned_together(policy: Policy) -> Policy:
    """P2's revision goes with P2's selection of the same settings only."""
    match policy.at("revise"):
        case [P2Remask(eta=eta, steps=steps)]:
            return policy.replace(P2Reveal(eta, steps=steps))
        case _:
            return policy


def _slot(part: Part) -> str:
    assert isinstance(part, Allow | Characters | Choices)
    return part.slot


def _few(members: SearchStrategy[T]) -> SearchStrategy[tuple[T, ...]]:
    """One to three; unlike `st.lists(min_size=1)` it is merely empty if there are no members."""
    return st.one_of([st.tuples(*[members] * number) for number in (1, 2, 3)])


def _table(
    *,
    positive: SearchStrategy[float],
    natural: SearchStrategy[int],
    slot: SearchStrategy[str],
    token: SearchStrategy[int | str],
    allowed: SearchStrategy[tuple[int | str, ...]],
    permutation: SearchStrategy[Sequence[int]],
    end: SearchStrategy[str],
    choice: SearchStrategy[str],
) -> dict[str, SearchStrategy[Part]]:
    """A strategy for each part of the catalogue, made of strategies for its settings."""
    amount = st.just(0.0) | positive
    share = st.floats(0, 1, exclude_min=True)
    cap = st.none() | natural
    kind, eta = st.sampled_from(KINDS), st.none() | st.floats(0, 1)
    table: dict[str, SearchStrategy[Part]] = {
        "whole": st.just(Whole()),
        "blocks": st.builds(Blocks, natural),
        "dilated": st.builds(Dilated, natural, base=natural.filter(lambda n: n > 1)),
        "confidence": st.builds(Confidence, noise=amount),
        "margin": st.builds(Margin, noise=amount),
        "entropy": st.builds(Entropy, noise=amount),
        "position-biased": st.builds(PositionBiased, amount),
        "lookahead": st.builds(Lookahead, st.integers(2, 9), own=amount),
        "left-to-right": st.just(LeftToRight()),
        "right-to-left": st.just(RightToLeft()),
        "random": st.just(Random()),
        "fixed": st.builds(Fixed, permutation),
        "top": st.builds(Top, natural),
        "steps": st.builds(Steps, natural),
        "below-entropy": st.builds(BelowEntropy, positive, k=cap),
        "entropy-bound": st.builds(EntropyBound, amount, k=cap),
        "error-budget": st.builds(ErrorBudget, amount),
        "above-confidence": st.builds(AboveConfidence, share),
        "cumulative-confidence": st.builds(CumulativeConfidence, share),
        "factor": st.builds(Factor, positive),
        "frechet": st.builds(Frechet, positive | positive.map(lambda x: -x)),
        "linear-time": st.builds(LinearTime, natural),
        "remdm-reveal": st.builds(RemdmReveal, kind, eta=eta, steps=natural),
        "p2-reveal": st.builds(P2Reveal, amount, steps=natural),
        "stable": st.builds(Stable, share, shift=positive, looks=natural),
        "greedy": st.just(Greedy()),
        "temperature": st.builds(
            Temperature,
            positive,
            top_p=share,
            top_k=st.just(0) | natural,
            min_p=st.floats(0, 1, exclude_max=True),
        ),
        "early-exit": st.builds(EarlyExit, positive, slot=slot),
        "budget": st.builds(Budget, natural),
        "ended": st.builds(Ended, end),
        "ban": st.builds(Ban, _few(token)),
        "allow": st.builds(Allow, allowed, slot=slot),
        "characters": st.builds(Characters, choice, slot=slot),
        "choices": st.builds(Choices, _few(choice), slot=slot),
        "never": st.just(Never()),
        "remdm-remask": st.builds(RemdmRemask, kind, eta=eta, steps=natural, limit=st.integers(1, 12)),
        "below-confidence": st.builds(BelowConfidence, share, limit=st.integers(1, 12)),
        "p2-remask": st.builds(P2Remask, amount, steps=natural, limit=st.integers(1, 12)),
        "none": st.just(NoGuide()),
        "cfg": st.builds(Cfg, amount),
    }
    if unequal := table.keys() ^ PARTS.keys():
        raise LookupError(f"mdsample.testing and the catalogue differ in: {', '.join(sorted(unequal))}")
    return table

"""Strategies for parts and policies, made from the domains of their settings. Needs `mdsample[testing]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from mdsample.core.tokens import Tokenizer
from mdsample.policy.base import MANY, SEATS, Part, Policy
from mdsample.policy.budget import TvBudget
from mdsample.policy.catalog import PARTS
from mdsample.policy.language import Expression, Language, Regex
from mdsample.policy.revise import P2Remask
from mdsample.policy.selection import P2Reveal
from mdsample.policy.settings import Domain, domains
from mdsample.policy.stop import Budget, Converged, Until

_TEXT = st.text(min_size=1)
_LARGEST = 2**31 - 1
#: a setting of usual size lies within so much of its limit
_REALS, _INTEGERS = 8.0, 15


def parts(of: Iterable[type[Part]] | None = None) -> SearchStrategy[Part]:
    """Any part of the catalogue, or of these, with any settings it accepts; they may fit no canvas and no model."""
    token = st.integers(min_value=0) | _TEXT
    named = {
        **{"slot": _TEXT, "special token": _TEXT, "characters": _TEXT, "tokens": _few(token), "texts": _few(_TEXT)},
        "endings": _few(_TEXT),
        "permutation": st.integers(1, 8).map(range).flatmap(st.permutations),
    }
    classes = PARTS.values() if of is None else of
    return st.one_of([_part(part, named, usual=False) for part in classes])


def fitting(
    part: type[Part],
    slots: Sequence[str] = ("answer",),
    vocab: int | None = None,
    blanks: int | None = None,
    texts: Sequence[str] = (),
    end: bool = True,
) -> SearchStrategy[Part]:
    """One part, with settings of usual size that fit a canvas; arguments as of `policies`. Empty if it cannot fit."""
    few = st.sets(st.integers(0, vocab // 2 - 1), min_size=2, max_size=3) if vocab and vocab > 3 else st.nothing()
    text = st.sampled_from(texts) if texts else st.nothing()
    named: dict[str, SearchStrategy[Any]] = {
        "slot": st.sampled_from(slots) if slots else st.nothing(),
        "special token": st.just("end") if end else st.nothing(),
        "characters": text,
        "tokens": few.map(tuple),  # at least two: one may be the mask, which is never written
        "texts": _few(text),
        "endings": _few(st.sampled_from(texts or ("a",))) if end else st.nothing(),
        # of any length from theirs on, as a slot may have to be filled to its end
        "expression": _few(text).map(lambda texts: f"(?:{'|'.join(map(re.escape, texts))}).*"),
        "permutation": st.permutations(range(blanks)) if blanks else st.nothing(),
    }
    if issubclass(part, Expression) and part is not Regex:
        # what they say by themselves, a number or a day, is no text of most toys
        spelled = bool(texts) and all(re.fullmatch(part().expression, each) for each in texts)
        return st.builds(part, slot=named["slot"]) if spelled else st.nothing()
    return _part(part, named, usual=True)


def policies(
    slots: Sequence[str] = ("answer",),
    vocab: int | None = None,
    blanks: int | None = None,
    texts: Sequence[str] = (),
    end: bool = True,
    parts: Iterable[type[Part]] = (),
) -> SearchStrategy[Policy]:
    """Policies that fit a canvas, with every part of the catalogue that can fit it and settings of usual size.

    `slots`: its slot names. `vocab`: number of tokens; without it there is no `ban` and no `allow`, and never are
    more than half of the tokens banned. `blanks`: how many each row has; without it there is no `fixed`. `texts`: texts
    that fit each slot; without them there are no `choices` and no `characters`. `end`: whether the model has an end
    token; without one there is no `ended` and no `until`. `parts`: parts of your own to be among them. Constraints
    leave each position some token, so bans never meet the others.
    """
    classes = [*PARTS.values(), *parts]
    strategies = {part: fitting(part, slots, vocab, blanks, texts, end) for part in classes}

    def seated(chosen: Iterable[type[Part]]) -> SearchStrategy[Part]:
        return st.one_of([strategies[part] for part in chosen])

    held: dict[str, SearchStrategy[list[Part]]] = {}
    for seat in SEATS:
        members = [part for part in classes if part.seat == seat]
        held[seat] = st.lists(seated(members), max_size=2 if seat in MANY else 1)
        if seat == "constraint":
            slotted = [part for part in members if _slot_field(part)]
            held[seat] = st.one_of(
                st.lists(seated(part for part in members if part not in slotted), max_size=2),
                # two sets of texts or characters for one slot may have nothing in common
                st.lists(seated(slotted), max_size=2, unique_by=_slot),
            )
    return st.tuples(*held.values()).map(lambda groups: _going_together(Policy.of(*chain(*groups))))


def around(policy: Policy, part: Part, tokenizer: Tokenizer) -> Policy:
    """The policy with this part in its seat, without the parts that it does not go with."""
    rest = policy.without("constraint") if part.seat == "constraint" else policy
    others = [
        other
        for other in rest.replace(part).parts
        if other == part or not (part.conflict(other, tokenizer) or other.conflict(part, tokenizer))
    ]
    return _going_together(Policy.of(*others))


def _going_together(policy: Policy) -> Policy:
    """P2's revision goes with P2's selection of the same settings only, and a budget of passes with none of TV.

    What ends a slot by its text goes with no language.
    """
    if any(isinstance(part, Language) for part in policy.parts):
        policy = Policy(part for part in policy.parts if not isinstance(part, Until))
    match policy.at("selection", "revise"):
        case [*_, P2Remask(eta=eta, steps=steps, scores=scores)]:
            return policy.replace(P2Reveal(eta, steps=steps, scores=scores))
        case [TvBudget(), *_]:
            return Policy(part for part in policy.parts if not isinstance(part, Budget | Converged))
        case _:
            return policy


def _slot_field(part: type[Part]) -> str | None:
    """The name of the setting that is a slot."""
    return next((name for name, domain in domains(part).items() if domain and domain.of == "slot"), None)


def _slot(part: Part) -> object:
    return getattr(part, _slot_field(type(part)) or "")


def _few(members: SearchStrategy[Any]) -> SearchStrategy[tuple[Any, ...]]:
    """One to three; unlike `st.lists(min_size=1)` it is merely empty if there are no members."""
    return st.one_of([st.tuples(*[members] * number) for number in (1, 2, 3)])


def _part(part: type[Part], named: Mapping[str, SearchStrategy[Any]], usual: bool) -> SearchStrategy[Part]:
    """A part with settings out of their domains; `named` has those that mean something in a canvas or a model."""
    settings: dict[str, SearchStrategy[Any]] = {}
    for name, domain in domains(part).items():
        if domain is None:
            raise LookupError(
                f"{part.name}({name}=…) does not say what it accepts, so none can be made up; write it with "
                "mdsample.policy.settings, or give a strategy for the whole part"
            )
        if domain.of in named:
            settings[name] = named[domain.of]
        elif domain.kind in ("text", "list") and domain.values:
            settings[name] = st.sampled_from(domain.values)
        elif domain.kind == "list":
            raise LookupError(f"{part.name}({name}=…) is a list of no known kind; give examples with values=")
        else:
            settings[name] = _setting(domain, usual)
    return st.builds(part, **settings)


def _setting(domain: Domain, usual: bool) -> SearchStrategy[Any]:
    match domain.kind:
        case "number":
            strategy = _reals(domain, usual)
        case "whole number":
            low = int(domain.at_least) if domain.at_least is not None else 0 if usual else -_LARGEST
            high = _LARGEST if domain.at_most is None else int(domain.at_most)
            strategy = st.integers(low, min(high, low + _INTEGERS) if usual else high)
        case "choice":
            strategy = st.sampled_from(domain.values)
        case _:
            strategy = _TEXT
    return st.none() | strategy if domain.optional else strategy


def _reals(domain: Domain, usual: bool) -> SearchStrategy[float]:
    low = domain.above if domain.above is not None else domain.at_least
    high = domain.below if domain.below is not None else domain.at_most
    if not usual:
        return st.floats(
            low,
            high,
            allow_nan=False,
            allow_infinity=False,
            exclude_min=domain.above is not None,
            exclude_max=domain.below is not None,
        )
    start = (high or 0.0) - _REALS if low is None else low
    stop = start + _REALS if high is None else high
    # what is nearly a limit is left to it: a noise of 1e-300 differs from none by rounding only
    inner = st.floats(start + (stop - start) / 800, stop, exclude_max=domain.below is not None)
    return st.just(low) | inner if domain.above is None and low is not None else inner

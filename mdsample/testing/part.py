"""The suite for a part of your own: all that the loop promises of a policy that has it, on random worlds."""

from __future__ import annotations

import re

import attrs
import numpy as np
from hypothesis import HealthCheck, Phase, assume, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from hypothesis.strategies import SearchStrategy

from mdsample.core.canvas import Canvas
from mdsample.errors import LawTooLarge
from mdsample.exact.divergence import kl, tv
from mdsample.exact.joint import Joint
from mdsample.exact.law import law
from mdsample.policy.base import SEATS, Part, Policy, part_text
from mdsample.policy.draw import Temperature
from mdsample.policy.parsing import parse
from mdsample.policy.toml import from_toml, to_toml
from mdsample.sampling.sampler import Sampler
from mdsample.testing.promises import keeps_its_promises
from mdsample.testing.strategies import around, fitting, parts, policies
from mdsample.testing.toys import ScriptedDenoiser, Symbols
from mdsample.testing.worlds import LETTERS, TEXTS, canvases, denoisers, joints

_SLOTS = ("reasoning", "answer")
_POLICIES = policies(_SLOTS, vocab=LETTERS, texts=TEXTS)
#: how many pairs of settings are tried before it is said that one changes nothing
_TRIES = 800


def check_part(part: type[Part], made: SearchStrategy[Part] | None = None) -> None:
    """Raises `AssertionError` for the first promise that a part does not keep.

    It is a frozen value whose text and TOML read back. Policies with it end in time, leave fixed text alone, treat
    every row as if it were alone, repeat, replay and resume. Each of its settings changes some result. The exact law
    of a window, an order or a selection is within the bounds that the run reports. `made`: a strategy for the part
    with settings that fit a slot of three positions, where those cannot be had from the settings' domains.
    Hypothesis' profile says how many examples are tried; those are always the same ones.
    """
    _is_a_value(part)
    usual = made if made is not None else _usual(part)
    _reads_back(part, parts([part]) if made is None else made)
    _keeps_promises(usual)
    every_setting_matters(part, made)
    if part.seat in ("window", "order", "selection"):
        _law_is_within_bounds(usual)


_STEADY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,  # several would come as a group, which is not an AssertionError
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

_SEARCH = settings(_STEADY, max_examples=_TRIES, phases=[Phase.generate])


def _usual(part: type[Part]) -> SearchStrategy[Part]:
    return fitting(part, _SLOTS, LETTERS, None, TEXTS)


def _is_a_value(part: type[Part]) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", part.name), f"its name must be kebab case; got {part.name!r}"
    assert part.seat in SEATS, f"there is no seat {part.seat!r}; seats: {', '.join(SEATS)}"
    assert attrs.has(part) and part.__setattr__ is not object.__setattr__, f"{part.__name__} must be @attrs.frozen"
    assert vars(part).get("__doc__"), f"{part.__name__} needs a docstring: it is what the menu shows"
    free = [field.name for field in attrs.fields(part)[1:] if not field.kw_only]
    assert not free, f"all settings but the first must be kw_only: {', '.join(free)}"


def _reads_back(part: type[Part], any_part: SearchStrategy[Part]) -> None:
    @_STEADY
    @given(any_part)
    def reads_back(value: Part) -> None:
        policy = Policy.of(value)
        for full in (False, True):
            text = part_text(value, full)
            assert parse(text, parts=[part]) == policy, f"{text} reads back as another part"
        assert from_toml(to_toml(policy), parts=[part]) == policy

    reads_back()


def _keeps_promises(usual: SearchStrategy[Part]) -> None:
    @_STEADY
    @given(usual, _POLICIES, denoisers(), canvases(least=3), st.integers(0, 3))
    def keeps(value: Part, policy: Policy, denoiser: ScriptedDenoiser, canvas: Canvas, seed: int) -> None:
        keeps_its_promises(around(policy, value, denoiser.tokenizer), denoiser, canvas, seed)

    keeps()


def every_setting_matters(part: type[Part], made: SearchStrategy[Part] | None = None) -> None:
    """Asserts that, for each setting, some policy on some toy model gives another result if it alone is changed."""
    usual = made if made is not None else _usual(part)
    symbols = Symbols(LETTERS)
    slots = [-1, -1, 0, 0, 0, 0, 0, -1, 1, 1, 1]
    tokens = [0, 1, *[symbols.mask_id] * 5, 2, *[symbols.mask_id] * 3]
    canvas = Canvas.of_rows([tokens] * 4, [slots] * 4, _SLOTS, symbols.mask_id)

    def commits(value: Part, policy: Policy, toy: ScriptedDenoiser) -> list[object]:
        rows = Sampler(around(policy, value, symbols)).run(toy, canvas).rows
        return [(row.tokens.tolist(), [commit.step for commit in row.commits]) for row in rows]

    for field in attrs.fields(part):

        def matters(
            case: tuple[Part, Part, Policy, ScriptedDenoiser], name: str = field.name, alias: str = field.alias
        ) -> bool:
            value, other, policy, toy = case
            if getattr(value, name) == getattr(other, name):
                return False
            try:
                changed = attrs.evolve(value, **{alias: getattr(other, name)})
            except ValueError:
                return False  # the two settings do not go together
            return commits(value, policy, toy) != commits(changed, policy, toy)

        try:
            find(
                st.tuples(usual, usual, _POLICIES, denoisers()),
                matters,
                settings=_SEARCH,
            )
        except NoSuchExample:
            raise AssertionError(f"{part.name}({field.name}=…) changed nothing in {_TRIES} tries") from None


def _law_is_within_bounds(usual: SearchStrategy[Part]) -> None:
    @_STEADY
    @given(usual, _POLICIES, joints())
    def within(value: Part, policy: Policy, joint: Joint) -> None:
        plain = around(policy, value, joint.tokenizer).without("draw", "stop", "constraint", "revise", "guide")
        try:
            exact = law(plain + Temperature(1.0), joint, limit=200_000)
        except LawTooLarge:
            assume(False)
            return
        np.testing.assert_allclose(exact.probability.sum(), 1, atol=1e-9)
        assert kl(joint, exact) <= exact.kl_bound + 1e-9, f"{plain}: the law is further off than its bound, in KL"
        assert tv(joint, exact) <= exact.tv_bound + 1e-9, f"{plain}: the law is further off than its bound, in TV"

    within()

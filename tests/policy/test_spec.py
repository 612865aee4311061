"""Policies as text and as TOML: what is written reads back, what is wrong is pointed at."""

import gc
import pickle
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, final

import attrs
import numpy as np
import pytest
from hypothesis import Phase, example, find, given, settings
from hypothesis import strategies as st

from mdsample import testing
from mdsample.core.arrays import Ints
from mdsample.errors import PolicyError, SpecError
from mdsample.policy import presets
from mdsample.policy.base import SEATS, Part, Policy, part_text, policy_text
from mdsample.policy.catalog import PARTS
from mdsample.policy.complete import as_run, complete, in_full
from mdsample.policy.constraint import Ban
from mdsample.policy.guide import NoGuide
from mdsample.policy.language import Choices
from mdsample.policy.order import Confidence, Entropy, Fixed
from mdsample.policy.parsing import parse
from mdsample.policy.presets import PRESETS
from mdsample.policy.selection import AboveConfidence, BelowEntropy, EntropyBound, Frechet, Selection, Top
from mdsample.policy.settings import real
from mdsample.policy.stop import EarlyExit, Ended
from mdsample.policy.toml import from_toml, policy_from_toml_value, to_toml
from mdsample.policy.view import Ranked, View
from mdsample.policy.window import Blocks, LedBlocks, Whole

PARTS_ANY = testing.parts()
POLICIES = testing.policies(("answer", "reasoning"), vocab=20, blanks=5, texts=("yes", "no", "it's\n"))
#: a text for each part that has a required setting
REQUIRED = {
    "fixed": "fixed([2,0,1])",
    "budget": "budget(8)",
    "error-budget": "error-budget(2.5)",
    "ban": "ban([7,'yes'])",
    "allow": "allow([7,'yes'])",
    "characters": "characters('0123456789')",
    "choices": "choices(['yes','no'])",
    "until": "until(['.'])",
    "regex": "regex('[ab]+')",
}


def completed(policy: Policy) -> Policy:
    return Policy(complete(policy).parts)


# Text and back


@pytest.mark.slow
@given(POLICIES)
def test_a_policy_is_the_policy_its_text_describes(policy: Policy) -> None:
    assert parse(str(policy)) == policy
    assert str(parse(str(policy))) == str(policy) == policy_text(policy)


@given(PARTS_ANY)
@example(EntropyBound(-0.0))
@example(Frechet(-0.0))
@example(Frechet(1e16))
@example(Frechet(5e-324))
@example(EarlyExit(slot="\ud800'\"\\\x00\x7f\x85\u2028\U0001f600\n\r\t{}"))
@example(Ban(("none", 10**30)))
def test_a_part_with_any_settings_is_the_part_its_text_describes(part: Part) -> None:
    for full in (False, True):
        text = part_text(part, full)
        assert list(parse(text).parts) == [part]
        assert part_text(parse(text).parts[0], full) == text
        assert text.isprintable()
    assert len(part_text(part)) <= len(part_text(part, full=True))


@pytest.mark.slow
@given(POLICIES)
def test_the_text_in_full_is_that_of_the_completed_policy(policy: Policy) -> None:
    assert parse(in_full(policy)) == completed(policy)
    assert in_full(parse(in_full(policy))) == in_full(policy)


def test_the_text_in_full_names_every_setting() -> None:
    text = "blocks(size=32)+entropy(noise=0)+below-entropy(entropy=0.2,k=none)+greedy+never+none"
    assert as_run(presets.med(), None) == text
    assert in_full(presets.med()) == text.replace("32", "none")
    assert as_run(presets.med(), 4) == as_run(parse("blocks+med"), 4) == text.replace("32", "4")
    assert as_run(parse("blocks(8)+med"), 4) == text.replace("32", "8")
    for name in PARTS:
        [part] = parse(REQUIRED.get(name, name)).parts
        assert re.findall(r"(\w+)=", part_text(part, full=True)) == [f.name for f in attrs.fields(type(part))]


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Blocks(), "blocks"),
        (Blocks(64), "blocks(64)"),
        (EarlyExit(1), "early-exit(1)"),
        (EarlyExit(0.1, slot="x"), "early-exit(slot='x')"),
        (BelowEntropy(0.00001, k=3), "below-entropy(1e-05,k=3)"),
        (Confidence(noise=0.5), "confidence(noise=0.5)"),
        (Fixed([1, 0]), "fixed([1,0])"),
        (Ban([3, "it's"]), """ban([3,"it's"])"""),
        (Choices(("yes", "no"), slot="verdict"), "choices(['yes','no'],slot='verdict')"),
    ],
)
def test_the_text_is_short(part: Part, text: str) -> None:
    assert part_text(part) == str(Policy.of(part)) == text


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (
            "med(0.2)+blocks(32)+early-exit(0.1,slot='answer')",
            presets.med(0.2) + Blocks(32) + EarlyExit(0.1, slot="answer"),
        ),
        ("med+early-exit", presets.med() + EarlyExit()),
        ("med( entropy = 2e-1 , k = none )\n+ blocks ( )", presets.med() + Blocks()),
        ("med(.5)", presets.med(0.5)),
        ("fast-dllm-v2(1)", LedBlocks() + Confidence() + Top(1) + Ended(when="reached")),
        ("fixed([ 0 , 1 ])", Policy.of(Fixed((0, 1)))),
        ("none", Policy.of(NoGuide())),
        ("llada2", Confidence() + AboveConfidence(0.95, at_least=1) + Ended(when="reached")),
        (r"""ended("\x41\u00e9\U0001f600\"\'\\\n\t\r")""", Policy.of(Ended("A\u00e9\U0001f600\"'\\\n\t\r"))),
        ("whole+whole", Policy.of(Whole())),
        ("", Policy()),
        (" \t\n\u00a0", Policy()),
    ],
)
def test_text_mirrors_python(text: str, policy: Policy) -> None:
    assert parse(text) == policy


def test_integers_are_no_floats_and_floats_are_no_integers() -> None:
    assert parse("early-exit(1)") == parse("early-exit(1.0)") == parse("early-exit(10e-1)")
    assert parse("top(2)") == Policy.of(Top(2))
    for text in ("top(2.0)", "top(2e0)", "ban([2.0])", "blocks(true)", "early-exit(true)"):
        with pytest.raises(SpecError):
            parse(text)


# Sums


@pytest.mark.slow
@given(POLICIES, POLICIES, POLICIES)
def test_sums_are_associative_refusals_included(a: Policy, b: Policy, c: Policy) -> None:
    def outcome(total: Callable[[], Policy]) -> Policy | None:
        try:
            return total()
        except PolicyError:
            return None

    assert outcome(lambda: (a + b) + c) == outcome(lambda: a + (b + c))


@given(POLICIES)
def test_the_empty_policy_is_the_identity_of_sums(policy: Policy) -> None:
    assert Policy() + policy == policy + Policy() == policy + policy == policy


@pytest.mark.slow
@given(POLICIES, POLICIES)
def test_text_adds_up_as_policies_do(a: Policy, b: Policy) -> None:
    text = "+".join(filter(None, (str(a), str(b))))
    try:
        total = a + b
    except PolicyError as error:
        with pytest.raises(SpecError) as refused:
            parse(text)
        assert refused.value.message.partition(";")[0] == str(error).partition(";")[0]
        parse(refused.value.message.rpartition(": ")[2])  # what it says to write instead
        assert refused.value.column is not None and refused.value.column > len(str(a))
    else:
        assert parse(text) == total


# Any text


def parses_or_points(text: str) -> None:
    try:
        policy = parse(text)
    except SpecError as error:
        assert error.text == text
        assert error.column is not None and 0 <= error.column <= len(text)
        *message, shown, caret = str(error).split("\n")
        assert message == [error.message] and error.message
        assert len(shown) == len(text) + 2 and shown.startswith("  ") and shown.isprintable()
        assert caret == " " * (error.column + 2) + "^"
    else:
        assert parse(str(policy)) == policy


SOUP = st.sampled_from(
    [
        *PARTS,
        *PRESETS,
        *("entropy=", "k=", "slot=", "size=", "k", "size", "true", "false", "none", "inf", "nan", "é", "_", "-", "."),
        *("(", ")", "[", "]", ",", "=", "+", "'", '"', "\\", "'a'", '"b"', "''", r"'\u12'", r"'\q'", " ", "\n", "#"),
        *("0", "1", "-1", "2.0", "1e-3", "0.2", "1e999", "-1e999", "1" + "0" * 400, "9" * 5000, "٣", "1_0", "0x1"),
    ]
)


@given(st.text())
def test_any_text_parses_or_is_pointed_at(text: str) -> None:
    parses_or_points(text)


@given(st.lists(SOUP, max_size=12).map("".join))
def test_any_words_of_the_grammar_parse_or_are_pointed_at(text: str) -> None:
    parses_or_points(text)


@given(st.sampled_from([*PARTS, *PRESETS]), st.lists(SOUP, max_size=6).map("".join))
def test_any_settings_parse_or_are_pointed_at(name: str, given: str) -> None:
    parses_or_points(f"{name}({given})")


@pytest.mark.slow
@given(POLICIES, st.data())
def test_any_slip_in_a_text_parses_or_is_pointed_at(policy: Policy, data: st.DataObject) -> None:
    text = str(policy) if data.draw(st.booleans()) else in_full(policy)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 3, len(text))))
    parses_or_points(text[:start] + data.draw(st.text(max_size=2) | SOUP) + text[end:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "fixed(" + "[" * 100_000,
        "med(" * 100_000,
        "+" * 100_000,
        "whole+" * 10_000,
        "a" * 100_000,
        "ended('" + "\\'" * 100_000,
        "med(" + "1" * 100_000 + ")",
        "med(" + "1" * 100_000 + ".0)",
        "med(" + "1" * 4000 + ")",
        "blocks(" + "1" * 4000 + ")",
        "med(-1e999)",
        "ended('" + "x" * 100_000 + "')",
        "ban([" + "1," * 10_000 + "1])",
    ],
    ids=lambda text: text[:12],
)
def test_absurd_text_parses_or_is_pointed_at(text: str) -> None:
    parses_or_points(text)


# Error messages

NAMES = ", ".join([*PARTS, *PRESETS])


@pytest.mark.parametrize(
    "message",
    [
        """\
med has no setting 'kk'; it has: entropy, k
  med(entropy=2,kk=8)
                ^""",
        """\
temperature has no setting 'top-p'; it has: t, top_p, top_k, min_p
  temperature(1,top-p=0.9)
                ^""",
        """\
whole has no setting 'size'; it has: none
  med+whole(size=3)
            ^""",
        """\
whole has no setting without a name; it has: none
  med+whole(3)
            ^""",
        """\
confidence has no setting without a name; it has: noise, ends
  confidence(0.5)
             ^""",
        """\
med has the setting 'entropy' twice
  med(0.2,entropy=0.3)
          ^""",
        """\
only the first setting may go without a name
  med(0.2,8)
          ^""",
        """\
only the first setting may go without a name
  med(k=8,0.2)
          ^""",
        """\
budget needs its setting 'nfe'
  med+budget
      ^""",
        """\
budget needs its setting 'nfe'
  budget()
  ^""",
        """\
choices needs its setting 'texts'
  choices(slot='answer')
  ^""",
        """\
two parts want the selection seat: below-entropy and top(3); keep one, or swap them: entropy+top(3)
  med+top(3)
      ^""",
        """\
two parts want the window seat: blocks(64) and whole; keep one, or swap them: whole+left-to-right+below-entropy
  blocks(64) + ar-med
               ^""",
        """\
unknown policy 'mde'; did you mean 'med'?
  mde
  ^""",
        """\
unknown policy 'Early_Exit'; did you mean 'early-exit'?
  med+Early_Exit(0.1)
      ^""",
        f"""\
unknown policy 'quixotic'; there are: {NAMES}
  quixotic
  ^""",
        """\
below-entropy(entropy=…) must be a number, above 0; got -1.0
  below-entropy(-1)
                ^""",
        """\
below-entropy(k=…) must be a whole number, at least 1, or none; got 0
  med(0.2,k=0)
          ^""",
        """\
steps(n=…) must be a whole number, at least 1; got 0
  llada(0)
        ^""",
        """\
early-exit(slot=…) must be a text that is not empty; got None
  early-exit(0.1,slot=none)
                 ^""",
        """\
fixed(permutation=…) must hold each of 0..1 once; got (1, 1)
  fixed([1,1])
        ^""",
        """\
'answer' is not a value; a text goes in quotes
  early-exit(0.1,slot=answer)
                      ^""",
        """\
this text has no closing quote
  early-exit(0.1,slot="answer)
                      ^""",
        r"""unknown escape; there are: \\ \' \" \n \t \r \xHH \uHHHH \UHHHHHHHH
  ended('a\q')
          ^""",
        r"""unknown escape; there are: \\ \' \" \n \t \r \xHH \uHHHH \UHHHHHHHH
  ended('\UFFFFFFFF')
         ^""",
        """\
this number is too large
  med(1e999)
      ^""",
        """\
expected a number, a text in quotes, true, false, none or a list of these
  med(k=)
        ^""",
        """\
expected a number, a text in quotes, true, false, none or a list of these
  ban([1,[2]])
         ^""",
        """\
expected ',' or ']'
  ban([1 2])
         ^""",
        """\
expected ',' or ')'
  med(0.2
         ^""",
        """\
expected '+' or the end
  med 0.2
      ^""",
        """\
expected the name of a part or preset
  med+
      ^""",
    ],
    ids=lambda message: message.split("\n")[1].strip(),
)
def test_an_error_says_what_is_wrong_and_points_at_it(message: str) -> None:
    text = message.split("\n")[1].removeprefix("  ")
    with pytest.raises(SpecError) as refused:
        parse(text)
    assert str(refused.value) == message
    assert str(pickle.loads(pickle.dumps(refused.value))) == message


def test_the_caret_stays_under_its_column_when_the_text_has_line_breaks() -> None:
    with pytest.raises(SpecError) as refused:
        parse("med\t+\nmde")
    assert str(refused.value) == "unknown policy 'mde'; did you mean 'med'?\n  med + mde\n        ^"


def test_a_number_with_too_many_digits_is_an_error() -> None:
    with pytest.raises(SpecError, match="this number has too many digits"):
        parse(f"top({'1' * 5000})")


# TOML


@pytest.mark.slow
@given(POLICIES)
def test_a_policy_is_the_policy_its_toml_describes(policy: Policy) -> None:
    assert from_toml(to_toml(policy)) == policy
    assert policy_from_toml_value(tomllib.loads(to_toml(policy))["policy"]) == policy
    assert policy_from_toml_value(str(policy)) == policy


@given(PARTS_ANY)
@example(EarlyExit(1e22))
@example(EarlyExit(slot="'\"\\\x00\x1f\x7f\x85\u2028\U0001f600\n\r\t\b\f{}"))
def test_a_part_with_any_settings_is_the_part_its_toml_describes(part: Part) -> None:
    assert list(from_toml(to_toml(Policy.of(part))).parts) == [part]


def test_toml_is_a_table_of_seats() -> None:
    policy = presets.med(k=8) + Whole() + EarlyExit(slot='"') + Ended() + Ban((1, "a"))
    assert (
        to_toml(policy)
        == r"""[policy]
window = { whole = {} }
order = { entropy = { noise = 0 } }
selection = { below-entropy = { entropy = 0.2, k = 8 } }
stops = [{ early-exit = { entropy = 0.1, slot = "\"" } }, { ended = { token = "end", when = "seen" } }]
constraints = [{ ban = { tokens = [1,"a"] } }]
"""
    )
    assert to_toml(Policy()) == "[policy]\n"


@pytest.mark.parametrize(
    "text",
    [
        """policy = "med(0.2,k=8)+blocks(64)+ended" """,
        """
        [policy]
        window = "blocks(64)"
        order = { entropy = {} }
        selection = { below-entropy = { entropy = 0.2, k = 8 } }
        stops = ["ended"]
        """,
        """
        [policy]
        order = "entropy"
        stops = [{ ended = {} }, "ended('end')"]
        [policy.window.blocks]
        size = 64
        [policy.selection.below-entropy]
        k = 8
        """,
    ],
)
def test_toml_may_be_short_or_long(text: str) -> None:
    assert from_toml(text) == presets.med(k=8) + Blocks(64) + Ended()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the one key 'policy'; there is: nothing; write it as in policy = 'med(0.2)+early-exit'"),
        (
            "polcy = 'med'",
            "expected the one key 'policy'; there is: polcy; write it as in policy = 'med(0.2)+early-exit'",
        ),
        (
            "policy = 'med'\nmodel = 'x'",
            "expected the one key 'policy'; there is: policy, model; write it as in policy = 'med(0.2)+early-exit'",
        ),
        ("policy = 3", "policy: expected a text or a table; got 3"),
        ("policy = 'mde'", "unknown policy 'mde'; did you mean 'med'?\n  mde\n  ^"),
        (
            "[policy]\nselect = 'med'",
            "policy has no key 'select'; it has: window, order, selection, draw, stops, constraints, revise, guide",
        ),
        ("[policy]\nselection = 'med'", "policy.selection: expected one part; got entropy+below-entropy"),
        ("[policy]\nselection = { med = {} }", "policy.selection: expected one part; got entropy+below-entropy"),
        ("[policy]\nguide = ''", "policy.guide: expected one part; got none"),
        ("[policy]\norder = 'blocks(2)'", "policy.order: blocks belongs under 'window'"),
        ("[policy]\nwindow = { ended = {} }", "policy.window: ended belongs under 'stops'"),
        ("[policy]\norder = { entrpy = {} }", "policy.order: unknown policy 'entrpy'; did you mean 'entropy'?"),
        (
            "[policy]\nwindow = { blocks = { length = 2 } }",
            "policy.window: blocks has no setting 'length'; it has: size",
        ),
        (
            "[policy]\nwindow = { blocks = { size = 0 } }",
            "policy.window: blocks(size=…) must be a whole number, at least 1, or none; got 0",
        ),
        ("[policy]\nwindow = { blocks = 2 }", "policy.window: expected blocks = { setting = value, … }; got 2"),
        (
            "[policy]\nwindow = { blocks = {}, whole = {} }",
            "policy.window: expected one part, as in { blocks = { size = 32 } } or 'blocks(32)'; "
            "got {'blocks': {}, 'whole': {}}",
        ),
        ("[policy]\nstops = 'ended'", "policy.stops: expected an array of parts; got 'ended'"),
        ("[policy]\nstops = ['ended', { budget = {} }]", "policy.stops[1]: budget needs its setting 'nfe'"),
        (
            "[policy]\nstops = ['budget(8']",
            "policy.stops[0]: expected ',' or ')'\n  budget(8\n          ^",
        ),
        ("policy = ", "this is not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_toml_error_says_where_and_what_there_is(text: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        from_toml(text)
    assert str(refused.value) == message


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([*PARTS, "med", "x", ""]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["window", "order", "stops", "constraints", *PARTS, "noise", "size", "k"]), inner
            )
        ),
    )
)
def test_any_toml_value_is_a_policy_or_an_error(value: object) -> None:
    try:
        policy = policy_from_toml_value(value)
    except SpecError as error:
        assert str(error)
    else:
        assert from_toml(to_toml(policy)) == policy


@pytest.mark.parametrize(
    "text",
    ["policy=" + "[" * 100_000, "policy=" + "1" * 5000, "policy.order.confidence.noise" + ".a" * 2000 + "=1"],
    ids=["brackets", "digits", "keys"],
)
def test_absurd_toml_is_an_error(text: str) -> None:
    with pytest.raises(SpecError):
        from_toml(text)


# The catalogue


def descendants(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def parts_of_mdsample() -> list[type]:
    gc.collect()  # attrs rebuilds classes with slots; this forgets the ones it replaced
    return sorted(
        {part for part in descendants(Part) if part.__module__.startswith("mdsample.policy.")},
        key=lambda part: part.__name__,
    )


def test_every_final_part_is_in_the_catalogue_once() -> None:
    final = [part for part in parts_of_mdsample() if getattr(part, "__final__", False)]
    assert sorted(PARTS.values(), key=lambda part: part.__name__) == final
    assert all(name == part.name for name, part in PARTS.items())
    assert not PARTS.keys() & PRESETS.keys()


def test_every_part_is_final_or_a_role() -> None:
    for part in parts_of_mdsample():
        assert getattr(part, "__final__", False) != bool(part.__subclasses__()), part


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_is_a_frozen_value_with_a_name_a_seat_and_a_rule(part: type[Part]) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z]+)*", part.name)
    assert part.seat in SEATS
    rule = vars(part).get("__doc__") or ""
    assert len(rule.split()) >= 4 and re.search(r"[.:]", rule), "its docstring says its rule"
    more = {"selection": "budget", "constraint": "language", "revise": "holding"}
    also = f"mdsample.policy.{more[part.seat]}" if part.seat in more else ""
    assert part.__module__ in {f"mdsample.policy.{part.seat}", also}
    assert [field.kw_only for field in attrs.fields(part)[1:]] == [True] * len(attrs.fields(part)[1:])
    [made] = parse(REQUIRED.get(part.name, part.name)).parts
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.anything = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_made_by_its_text(name: str) -> None:
    part = PARTS[name]
    required = [field.name for field in attrs.fields(part) if field.default is attrs.NOTHING]
    assert bool(required) == (name in REQUIRED)
    if required:
        with pytest.raises(SpecError, match=f"^{name} needs its setting '{required[0]}'"):
            parse(name)
        text = REQUIRED[name]
    else:
        assert list(parse(name).parts) == [part()]
        text = name
    [made] = parse(text).parts
    assert type(made) is part and part_text(made) == text


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_made_by_its_name(name: str) -> None:
    assert parse(name) == PRESETS[name]()
    assert PRESETS[name].__doc__ and PRESETS[name].__name__ == name.replace("-", "_")


# The strategies


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_the_strategies_reach_every_part(name: str) -> None:
    quick = settings(phases=[Phase.generate], max_examples=5000, database=None)
    find(PARTS_ANY, lambda part: part.name == name, settings=quick)
    if name not in ("integer", "number", "date"):  # written in digits, which the texts of these slots are not
        find(POLICIES, lambda policy: any(part.name == name for part in policy.parts), settings=quick)


@pytest.mark.slow
@given(testing.policies(slots=(), end=False))
def test_what_may_not_fit_is_left_out_unless_asked_for(policy: Policy) -> None:
    assert not {part.name for part in policy.parts} & {
        *("fixed", "ban", "choices", "characters", "regex", "integer", "number", "date", "ended", "until", "early-exit")
    }


# A user's own part


@final
@attrs.frozen
class Half(Selection):
    """A share of what is on offer."""

    name: ClassVar[str] = "half"
    share: float = real(default=0.5, above=0, at_most=1)

    def count(self, view: View, ranked: Ranked) -> Ints:
        return np.ceil(self.share * ranked.number).astype(np.int32)


def calm(share: float = 0.25) -> Policy:
    """Half of a preset."""
    return Entropy() + Half(share)


PARTS_OWN = {"half": Half, "calm": calm}


def test_a_part_of_ones_own_is_read_where_it_is_given() -> None:
    policy = Entropy() + Half(0.25)
    assert str(policy) == "entropy+half(0.25)"
    assert parse(str(policy), parts=[Half]) == parse("calm", parts=PARTS_OWN) == policy
    assert from_toml(to_toml(policy), parts=[Half]) == policy
    assert from_toml("[policy]\nselection = 'half(0.25)'\norder = { entropy = {} }", parts=[Half]) == policy
    with pytest.raises(SpecError, match="unknown policy 'half'; there are: whole"):
        parse(str(policy))
    with pytest.raises(SpecError, match=r"did you mean 'half'\?"):
        parse("halff", parts=[Half])
    with pytest.raises(SpecError, match=r"^half\(share=…\) must be a number, above 0 and at most 1; got 2.0"):
        parse("half(2)", parts=[Half])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"top": Half}, "parts=: 'top' is a built-in name; give the part another name"),
        ({"med": calm}, "parts=: 'med' is a built-in name"),
        ({"third": Half}, "parts=: the part 'half' is given as 'third'; use its own name"),
        ({"half": 3}, "parts=: 'half' must be a class of parts or a function that returns a policy; got 3"),
        ({"half": int}, "'half' must be a class of parts"),
    ],
)
def test_parts_that_cannot_be_given_are_refused(parts: Any, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse("whole", parts=parts)
    assert parse("top", parts={"top": Top}) == Policy.of(Top())


def test_stops_keep_their_order_and_are_there_once() -> None:
    assert str(parse("ended+early-exit+budget(3)+ended")) == "ended+early-exit+budget(3)"

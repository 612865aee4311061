"""A slot that grows: the run of a template with the length that is found, and the length is that of the stated rule."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from commands import is_refused
from counting import Counter
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_cli.main import main
from templates import LETTERS

import mdsample
from mdsample import testing
from mdsample.core.arrays import Doubles, Ints
from mdsample.core.rows import Rows
from mdsample.core.template import Slot, Template
from mdsample.errors import PolicyError, TemplateError
from mdsample.exact.joint import Joint
from mdsample.models.cache import Dual
from mdsample.models.denoiser import Denoiser, Query
from mdsample.policy.base import Policy
from mdsample.policy.complete import complete
from mdsample.policy.guide import NoGuide
from mdsample.sampling.growth import end_seen
from mdsample.testing import ScriptedDenoiser

POLICIES = testing.policies(("text", "answer"), vocab=6, texts=("a", "bc"))
GROWS = Template.parse("ab{prompt}{text:4-11+}c{answer:2}d")


class Ending(ScriptedDenoiser):
    """Wants end tokens from a place on that hangs on the row's text: three a letter of its fixed text before `c`."""

    def _scores(self, tokens: Ints, query: Query) -> Doubles:
        scores = super()._scores(tokens, query)
        rows, positions = np.nonzero(query.wanted)
        after = 3 * query.fixed[:, :6].sum(1)
        scores[positions >= after[rows], LETTERS.end_id] += 12
        return scores


MODEL = Ending(LETTERS, max_length=40)


def essence(row: mdsample.Row) -> object:
    return row.id, row.tokens.tolist(), row.slots, row.nfe, row.rounds, row.commits, row.outcome, row.grown


def written_out(length: int) -> Template:
    (slot,) = GROWS.ranged
    one = attrs.evolve(slot, length=length, shortest=None, grows=False)
    return Template(tuple(one if piece is slot else piece for piece in GROWS.pieces))


# the template


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 99), st.integers(1, 99), st.booleans())
def test_it_parses_back_and_says_its_lengths(fewest: int, more: int, blind: bool) -> None:
    text = f"x{{a:{fewest}-{fewest + more}+{':blind' * blind}}}{{b:2}}"
    template = Template.parse(text)
    assert str(template) == text and template.growing == template.pieces[1]
    lengths = list(template.pieces[1].lengths)  # pyright: ignore[reportAttributeAccessIssue]
    assert lengths[0] == fewest and lengths[-1] == fewest + more and lengths == sorted(set(lengths))
    step = max(1, min(8, fewest // 8))
    assert {later - before for before, later in pairwise(lengths[:-1])} <= {step}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a:64+}", "slot 'a' grows, but how far? Write the fewest and the most positions, as in {a:64-256+}"),
        ("{a:9-4+}", "goes from 9 to 4 positions"),
        ("{a:4-x+}", "{a:1-6}, the fewest and the most positions"),
        ("{a:4-8++}", "{a:1-6}, the fewest and the most positions"),
        ("{a:4-8+}{b:1-3}", "slot 'a' grows, and then all others need one length; 'b' has none, {b:1-3}"),
        ("{b:4-8+}{a:4-8+}", "slot 'b' grows, and then all others need one length; 'a' has none, {a:4-8+}"),
    ],
)
def test_what_does_not_grow_is_refused(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as refused:
        Template.parse(text)
    assert message in str(refused.value)


def test_what_needs_one_length_says_so() -> None:
    with pytest.raises(TemplateError, match=r"slot 'text' has no one length, \{text:4-11\+\}"):
        GROWS.canvas(LETTERS, [{"prompt": ""}])
    canvas = GROWS.canvas(LETTERS, [{"prompt": ""}], given=[{"text": "abcab"}])
    assert canvas.slot_length("text") == 5
    row = mdsample.sample(MODEL, "b", template=GROWS, policy="med", given={"text": "abcab"})
    assert row.slots["text"] == "abcab" and not row.grown


# the run


@settings(max_examples=10, deadline=None)
@given(POLICIES, st.integers(0, 5), st.sampled_from([1, 2, 64]), st.sampled_from([None, "2"]))
def test_a_row_is_the_run_of_its_length(policy: Policy, seed: int, batch_size: int, speculate: str | None) -> None:
    """Alone and in a batch; nothing but its passes tells that the length was found."""
    prompts = ["", "b", "abc"]
    given: dict[str, Any] = {"policy": policy, "seed": seed, "speculate": speculate}
    try:
        rows = mdsample.sample(MODEL, prompts, template=GROWS, batch_size=batch_size, **given)
    except PolicyError as fault:
        assert str(fault)
        return
    passes = 2 if "cfg" in str(policy) else 1
    for number, row in enumerate(rows):
        alone = mdsample.sample(MODEL, [prompts[number]], template=GROWS, ids=[number], **given)[0]
        assert essence(alone) == essence(row)
        length = int((row.slot == 0).sum())
        (fixed,) = mdsample.sample(MODEL, [prompts[number]], template=written_out(length), ids=[number], **given)
        assert (fixed.tokens.tolist(), fixed.commits, fixed.outcome) == (row.tokens.tolist(), row.commits, row.outcome)
        assert fixed.slot.tolist() == row.slot.tolist() and 4 <= length <= 11
        assert row.nfe == fixed.nfe + passes * len(row.grown) and row.rounds == fixed.rounds + len(row.grown)
        assert all(look.end < 0.5 for look in row.grown[:-1])
        if row.grown:
            assert row.grown[-1].length == length
            # a language may have no longer text
            assert row.grown[-1].end >= 0.5 or length == 11 or complete(policy).constraints


def test_it_grows_by_the_published_rule() -> None:
    """The loop of DAEDAL's first stage over whole tables, at its own numbers: 64 positions, window 32, 8 more."""
    model = Ending(LETTERS, seed=3, sharpness=2.0, max_length=400)
    template = Template.parse("{prompt}{text:64-200+}")
    for prompt in ("a", "abcab", "abcab" * 6, "abcabcab" * 12):
        row = mdsample.sample(model, prompt, template=template, policy="whole+steps(2)")
        length = 64
        while True:
            layout = Template((template.pieces[0], Slot("text", length)))
            canvas = layout.canvas(LETTERS, [{"prompt": prompt}])
            state, plan = mdsample.Sampler("whole").start(model, canvas), mdsample.Sampler("whole").plan(model, canvas)
            blank = np.flatnonzero(canvas.blank[0])
            batch = plan.batch(state, np.zeros(1, np.int32))
            query = Query(
                batch.tokens, batch.valid, batch.blank, canvas.valid & ~canvas.blank, plan.restriction, NoGuide(),
                Rows(plan.keys, batch.step),
            )  # fmt: skip
            count = LETTERS.size
            places = np.repeat(blank, count).astype(np.int32)
            asked = np.tile(np.arange(count, dtype=np.int32), len(blank))
            logs = model.predict(query).log_probabilities(np.zeros_like(places), places, asked)
            table = np.exp(logs.reshape(len(blank), count).astype(np.float64))
            confidences: list[float] = []
            for line in table[::-1]:
                if len(confidences) >= 32:
                    break
                if line.argmax() == LETTERS.end_id:
                    confidences.append(float(line[LETTERS.end_id]))
            if sum(confidences) / 32 >= 0.5 or length >= 200:
                break
            length = min(length + 8, 200)
        assert [look.length for look in row.grown] == [*range(64, length, 8), length]
        assert row.grown[-1].end == pytest.approx(sum(confidences) / 32, abs=1e-5)


def test_which_end_tokens_count() -> None:
    ends, chance = {7, 8}, np.array([0.9, 0.8, 0.7, 0.6])
    assert end_seen(np.array([7, 1, 8, 7]), chance, ends, 2) == pytest.approx((0.6 + 0.7) / 2)
    assert end_seen(np.array([7, 1, 8, 7]), chance, ends, 8) == pytest.approx((0.6 + 0.7 + 0.9) / 8)
    assert end_seen(np.array([1, 1, 1, 1]), chance, ends, 2) == 0


def test_every_pass_is_counted() -> None:
    for policy in (
        "one-by-one",
        "med+regex('[a-c]+', slot='text')",
        "one-by-one+cfg(1)",
        "med+credit",
        "med+annealing",
    ):
        counter = Counter(MODEL)
        rows = mdsample.sample(counter, ["", "abc"], template=GROWS, policy=policy, batch_size=3)
        assert sum(row.nfe for row in rows) == counter.rows * (2 if "cfg" in policy else 1)
        assert len(rows[1].grown) > 1


def test_lengths_without_a_text_are_passed_over() -> None:
    row = mdsample.sample(MODEL, "abc", template=GROWS, policy="med+regex('(abc)+', slot='text', end='never')")
    assert [look.length for look in row.grown] == [6, 9] and row.slots["text"] == "abcabcabc"
    counter = Counter(MODEL)
    with pytest.raises(PolicyError, match="at no length of row 0 there is a text"):
        mdsample.sample(counter, "a", template=GROWS, policy="regex('a{20}', slot='text')")
    assert not counter.rows


def test_where_it_cannot_work_it_is_refused_before_a_pass() -> None:
    def refused(model: Denoiser, said: str, kind: type[Exception] = PolicyError, policy: str = "med") -> None:
        counter = Counter(model)
        with pytest.raises(kind, match=said):
            mdsample.sample(counter, "b", template=GROWS, policy=policy)
        assert not counter.rows

    refused(Ending(LETTERS, cache=Dual()), "the cache 'dual' is approximate")
    refused(Ending(LETTERS, noise="uniform"), "is drawn anew for every pass")
    refused(Ending(LETTERS, max_length=12), "may grow to 18 tokens", TemplateError)
    refused(MODEL, "there is no slot 'nothing'", policy="regex('a', slot='nothing')")
    joint = Joint(np.full((3,) * 4, 3.0**-4))
    with pytest.raises(PolicyError, match=r"has no token that ends a text; write one length, as in \{text:3\}"):
        mdsample.sample(joint, {}, template="{text:1-3+}2", policy="med")


def test_watch_shows_the_run() -> None:
    row = mdsample.sample(MODEL, "abc", template=GROWS, policy="med", seed=3)
    steps = list(mdsample.watch(MODEL, "abc", template=GROWS, policy="med", seed=3))
    assert essence(steps[-1].row) == essence(row) and len(row.grown) > 1


def test_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = ScriptedDenoiser(mdsample.load("tiny-gsm", "reference").tokenizer)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("mdsample.backend.load.load", lambda *_, **__: model)  # pyright: ignore[reportUnknownLambdaType]
    job = ["-t", "{prompt}{answer:2-5+} coins", "-p", "one-by-one"]
    assert main(["run", "Ann", *job, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["template"] == "{prompt}{answer:2-5+} coins"
    assert [look["length"] for look in record["grown"]] == [2, 3, 4, 5] and record["nfe"] == 4 + 5
    assert main(["run", "Ann", *job]) == 0
    assert "grown to 5" in " ".join(capsys.readouterr().out.split())
    is_refused(["run", "Ann", *job, "--trace", str(tmp_path / "t")], "--trace records one canvas", capsys)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Ann"}\n{"prompt": "Ben"}\n')
    command = ["run", "-i", str(rows), *job, "-o", str(tmp_path / "out")]
    assert main(command) == 0
    whole = (tmp_path / "out").read_bytes()
    (tmp_path / "out").write_bytes(whole[: len(whole) // 2])
    assert main(command) == 0
    assert sorted((tmp_path / "out").read_bytes().splitlines()) == sorted(whole.splitlines())

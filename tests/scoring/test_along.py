"""A watched slot: the same results, and what it said in every pass is what the model says there."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import is_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_cli.main import main
from templates import LETTERS

import mdsample
from mdsample import exact, testing
from mdsample.core.template import Template
from mdsample.errors import TemplateError, WatchError
from mdsample.models.cache import Dual
from mdsample.policy.base import Policy
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import prepare
from mdsample.scoring.watch import SlotWatcher
from mdsample.testing import ScriptedDenoiser, Symbols

MODEL = ScriptedDenoiser(LETTERS, max_length=200)
TEMPLATE = Template.parse("ab{question}c{reasoning:6}d{answer:3}")
POLICIES = testing.policies(("reasoning", "answer"), vocab=6, texts=("a", "bc"))


def filled(model: Any, policy: Policy, rows: Any, batch_size: int = 3) -> dict[Any, Any]:
    sampler = mdsample.Sampler(policy, seed=4)
    return {row.id: row for row in fill(sampler, model, TEMPLATE.slots, rows, batch_size=batch_size)}


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(POLICIES, st.integers(1, 5))
def test_results_stay_what_they_are(policy: Policy, count: int) -> None:
    rows = [prepare(MODEL, TEMPLATE, i, {"question": "abcdef"[: i % 4]}) for i in range(count)]
    along = SlotWatcher(MODEL, TEMPLATE, "answer", 4)
    for row in rows:
        along.track(row, "bc")
    plain, watched = filled(MODEL, policy, rows), filled(along, policy, rows)
    for name, row in plain.items():
        assert (row.tokens == watched[name].tokens).all() and row.nfe == watched[name].nfe
        readings = along.readings(name)
        assert len(readings) <= row.steps and [m.step for m in readings] == sorted({m.step for m in readings})
        # until the slot is filled there is a moment for every step; masked again, it may be filled twice
        last = max((c.step for c in row.commits if row.slot[c.position] == 1 and not c.by_rule), default=-1)
        assert len(readings) >= last + 1 or not row.commits or len(row.commits) > row.filled
        assert all(0 <= m.written <= 1 and m.entropy >= 0 for m in readings)
        assert not along.readings(name), "what was told is forgotten"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99))
def test_it_says_what_the_joint_says(seed: int) -> None:
    """One blank answer beside a reasoning that is written left to right: its marginal given what is written."""
    rng = np.random.default_rng(seed)
    toy = exact.Joint(rng.dirichlet(np.full(3**4, 0.4)).reshape((3,) * 4))
    template = Template.parse("{reasoning:3}{answer:1}")
    row = prepare(toy, template, 0, {})
    along = SlotWatcher(toy, template, "answer", 0)
    along.track(row, "2")
    sampler = mdsample.Sampler(mdsample.parse("left-to-right+top(1)+temperature(1)"), seed=0)
    (found,) = fill(sampler, along, template.slots, [row])
    table = toy.table()
    readings = along.readings(0)
    assert [m.blanks for m in readings] == [3, 2, 1, 0] and [m.written for m in readings][-1] == 1
    for known, reading in enumerate(readings):
        law = table[tuple(found.tokens[:known].tolist())]
        law = law.reshape(-1, 3).sum(0)
        law = law / law.sum()
        assert reading.log_probability == pytest.approx(np.log(law[2]), abs=1e-5)
        assert reading.entropy == pytest.approx(-(law * np.log(law)).sum(), abs=1e-5)
        assert reading.text == str(int(law.argmax()))


def test_a_text_and_the_same_after_a_space_are_one_answer() -> None:
    model = mdsample.load("tiny-gsm")
    template = Template.parse(model.template)
    row = prepare(model, template, 0, {"prompt": "Ann has 3 coins. Ben has 4 more than Ann. How many has Ben?"})
    said: list[float] = []
    for text in ("7", " 7"):
        along = SlotWatcher(model, template, "answer", 0)
        along.track(row, text)
        list(fill(mdsample.Sampler(mdsample.parse("steps(2)")), along, template.slots, [row]))
        first = along.readings(0)[0].log_probability
        assert first is not None
        said.append(first)
    scores = mdsample.score(
        model,
        template,
        [{"prompt": "Ann has 3 coins. Ben has 4 more than Ann. How many has Ben?"}],
        "answer",
        ["7", " 7"],
        method=mdsample.MarginalProduct(),
    )
    one, other = (c.log_probability for c in scores[0].candidates)
    assert said == [pytest.approx(np.logaddexp(one, other), abs=1e-5), pytest.approx(other, abs=1e-5)]


def test_where_the_space_is_nothing_a_text_counts_once() -> None:
    class Unspaced(Symbols):
        def encode(self, text: str) -> list[int]:
            return super().encode(text.replace(" ", ""))

    model, template = ScriptedDenoiser(Unspaced(6)), Template.parse("ab{answer:1}")
    row = prepare(model, template, 0, {})
    along = SlotWatcher(model, template, "answer", 0)
    along.track(row, "c")
    list(fill(mdsample.Sampler("top(1)"), along, template.slots, [row]))
    (score,) = mdsample.score(model, template, [{}], "answer", ["c"])
    assert along.readings(0)[0].log_probability == pytest.approx(score.best.log_probability, abs=1e-6)


def test_what_is_written_already_decides() -> None:
    sampler = mdsample.Sampler(mdsample.parse("right-to-left+top(1)"))
    row = prepare(MODEL, TEMPLATE, 0, {"question": "a"})
    (plain,) = fill(sampler, MODEL, TEMPLATE.slots, [row])
    written = LETTERS.decode(plain.tokens[plain.slot == 1].tolist())
    assert len(written) == 3, "the model ends no text early here"
    # the right end is written first
    for text, expected in ((written, [False] * 3), (written[:2] + "abcdef"[written[2] == "a"], [False, True, True])):
        along = SlotWatcher(MODEL, TEMPLATE, "answer", 0)
        along.track(row, text)
        list(fill(sampler, along, TEMPLATE.slots, [row]))
        assert [m.log_probability == -np.inf for m in along.readings(0)] == expected


@pytest.mark.parametrize("given_", [{}, {"answer": "a"}])
def test_a_given_slot_says_nothing(given_: dict[str, str]) -> None:
    along = SlotWatcher(MODEL, TEMPLATE, "answer", 0)
    row = prepare(MODEL, TEMPLATE, 0, {"question": "a"}, given_)
    along.track(row)
    list(fill(mdsample.Sampler(mdsample.med()), along, TEMPLATE.slots, [row]))
    readings = along.readings(0)
    assert bool(readings) != bool(given_) and all(m.log_probability is None for m in readings)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(WatchError, match="there is no slot 'anwser' to watch; slots here: reasoning, answer"):
        SlotWatcher(MODEL, TEMPLATE, "anwser", 0)
    cached = ScriptedDenoiser(LETTERS, max_length=200, cache=Dual())
    with pytest.raises(WatchError, match="would change what the cache 'dual' keeps"):
        SlotWatcher(cached, TEMPLATE, "answer", 0)
    with pytest.raises(WatchError, match="so a slot cannot be watched; watch nothing"):
        SlotWatcher(ScriptedDenoiser(LETTERS, max_length=200, noise="uniform"), TEMPLATE, "answer", 0)
    with pytest.raises(TemplateError, match="slot 'answer' has 3 positions"):
        SlotWatcher(MODEL, TEMPLATE, "answer", 0).track(prepare(MODEL, TEMPLATE, 0, {"question": "a"}), "abcd")


SHORT = "Question: {prompt}\nReasoning:{reasoning:12}\nAnswer:{answer:4}"


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Ann has {n} coins.", "gold": n}) + "\n" for n in (3, 5)))
    told = ["run", "--json", "-t", SHORT, "-i", str(file), "--policy", "med", "--watch", "answer"]
    plain = told[:-2]
    assert main([*told, "--expect-from", "gold", "-o", str(out)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(plain) == 0
    for row, other in zip(rows, map(json.loads, capsys.readouterr().out.splitlines()), strict=True):
        assert (row["text"], row["nfe"]) == (other["text"], other["nfe"]) and "along" not in other
        assert row["watch"] == "answer" and row["expected"] == str(row["id"] * 2 + 3)
        for before, after in itertools.pairwise(row["along"]):
            assert before["step"] < after["step"] and before["written"] <= after["written"]
        assert set(row["along"][0]) == {"step", "written", "entropy", "text", "log_probability"}
    assert main([*plain, "-o", str(out)]) == 2
    assert "written by another job" in capsys.readouterr().err
    assert main(["run", "Ann has 3 coins.", "-t", SHORT, "--watch", "answer"]) == 0
    assert "0 % written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["--watch", "anwser"], "there is no slot 'anwser' to watch; slots here: reasoning, answer"),
        (["--expect-from", "gold"], "--expect-from takes a key of the rows of --input"),
    ],
)
def test_wrong_commands_are_one_line(told: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    is_refused(["run", "Ann", "-t", SHORT, *told], message, capsys)

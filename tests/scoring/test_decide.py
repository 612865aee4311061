"""Labels of several slots at once: on toys the joint's own probabilities, and all that is left to what is no label."""

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

import mdsample
from mdsample import exact
from mdsample.core.arrays import Doubles, Ints
from mdsample.core.template import Template
from mdsample.errors import MdsampleError
from mdsample.models.denoiser import Prediction, Query
from mdsample.policy.order import Confidence, Entropy, LeftToRight, Random
from mdsample.scoring.decide import decide
from mdsample.scoring.methods import ChainRule, MarginalProduct, MonteCarloBound
from mdsample.scoring.score import score

few = settings(max_examples=40, deadline=None)
V = 3
LENGTHS = {"first": 2, "second": 1, "third": 2}
TEMPLATE = Template.parse("".join(f"{{{name}:{length}}}" for name, length in LENGTHS.items()))
TEXTS = {name: ["".join(text) for text in itertools.product("012", repeat=n)] for name, n in LENGTHS.items()}
labelled = st.fixed_dictionaries(
    {}, optional={name: st.lists(st.sampled_from(texts), min_size=1, unique=True) for name, texts in TEXTS.items()}
).filter(bool)


class Counting(exact.Toy):
    """A joint that counts the rows of its forward passes."""

    def __init__(self, table: Doubles) -> None:
        self.joint, self.passes = exact.Joint(table), 0
        super().__init__("counting", self.joint.length, self.joint.size)

    def predict(self, query: Query) -> Prediction:
        self.passes += len(query.tokens)
        return self.joint.predict(query)

    def weights(self, tokens: Ints) -> Doubles:
        return self.joint.weights(tokens)

    def log_prob(self, tokens: Ints) -> Doubles:
        return self.joint.log_prob(tokens)


def joint(seed: int) -> Counting:
    rng = np.random.default_rng(seed)
    length = sum(LENGTHS.values())
    return Counting(rng.dirichlet(np.full(V**length, 0.3)).reshape((V,) * length))


def law(toy: Counting, slot: str, brought: dict[str, str]) -> Doubles:
    """p(what stands in the slot | what the row brings), by summing the table; an axis for each place."""
    table = toy.table()
    names = [name for name, length in LENGTHS.items() for _ in range(length)]
    rest = {name: list(text) for name, text in brought.items()}
    table = table[tuple(int(rest[name].pop(0)) if name in rest else slice(None) for name in names)]
    names = [name for name in names if name not in brought]
    table = table.sum(tuple(i for i, name in enumerate(names) if name != slot))
    return table / table.sum()


@few
@given(
    st.integers(0, 99),
    st.lists(labelled, min_size=1, max_size=3),
    st.sampled_from([*map(ChainRule, (LeftToRight(), Entropy(), Confidence(), Random())), MarginalProduct()]),
    st.integers(1, 4),
    st.data(),
)
def test_labels_have_the_joints_probability_and_the_rest_is_outside(
    seed: int, rows: list[dict[str, list[str]]], method: Any, size: int, data: st.DataObject
) -> None:
    toy = joint(seed)
    brought: list[dict[str, str]] = []
    for labels in rows:
        free = [name for name in LENGTHS if name not in labels]
        names = data.draw(st.lists(st.sampled_from(free), unique=True)) if free else []
        brought.append({name: data.draw(st.sampled_from(TEXTS[name])) for name in names})
    found = decide(toy, TEMPLATE, [{}] * len(rows), rows, method=method, given=brought, batch_size=size)
    product = isinstance(method, MarginalProduct)
    for row, labels, there in zip(found, rows, brought, strict=True):
        assert [scores.slot for scores in row.slots] == list(labels)
        for slot, texts in labels.items():
            table = law(toy, slot, there)
            if product:
                margins = [table.sum(tuple(j for j in range(table.ndim) if j != i)) for i in range(table.ndim)]
                expected = [np.prod([margins[i][int(c)] for i, c in enumerate(text)]) for text in texts]
            else:
                expected = [table[tuple(map(int, text))] for text in texts]
            scores = row[slot]
            assert [label.text for label in scores.candidates] == texts
            assert ["".join(map(str, label.tokens)) for label in scores.candidates] == texts
            probabilities = np.exp([label.log_probability for label in scores.candidates])
            np.testing.assert_allclose(probabilities, expected, atol=1e-5)
            assert scores.outside == pytest.approx(1 - sum(expected), abs=1e-5) and 0 <= scores.outside <= 1
            assert sum(probabilities) + scores.outside == pytest.approx(1, abs=1e-5)
            assert sum(scores.shares) == pytest.approx(1)
        tokens = sum(LENGTHS[slot] * len(texts) for slot, texts in labels.items())
        assert row.nfe == (1 if product else tokens) and (not product or {scores.nfe for scores in row.slots} == {1})
    assert toy.passes == sum(row.nfe for row in found)


def test_a_decision_is_the_score_of_each_slot_whatever_the_batch() -> None:
    model = mdsample.load("tiny-gsm")
    template = Template.parse("Question: {prompt}\nReasoning:{reasoning:12}\nAnswer:{answer:4}")
    rows = [{"prompt": "Ann has 3 coins."}, {"prompt": "Ben"}, {"prompt": "Ann has 4 coins. Ben has 12 more than Ann."}]
    labels = [{"answer": [" 3", " 12", ""]}, {"reasoning": [" 3."], "answer": [" 4"]}, {"reasoning": ["", " 4 + 12"]}]
    ids = ["a", "b", "c"]
    for method in (ChainRule(Random()), MarginalProduct()):
        whole = decide(model, template, rows, labels, method=method, ids=ids)
        for i, row in enumerate(whole):
            (alone,) = decide(model, template, [rows[i]], labels[i], method=method, ids=[ids[i]], batch_size=1)
            assert row.id == ids[i] and row.nfe == alone.nfe
            for scores, again in zip(row.slots, alone.slots, strict=True):
                texts = labels[i][scores.slot]
                (one,) = score(model, template, [rows[i]], scores.slot, texts, method=method, ids=[ids[i]])
                for a, b, c in zip(scores.candidates, again.candidates, one.candidates, strict=True):
                    assert a.tokens == b.tokens == c.tokens
                    np.testing.assert_allclose([b.log_probability, c.log_probability], a.log_probability, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {}}, "a decision takes slots with their labels"),
        ({"labels": [{}]}, "a decision takes slots with their labels"),
        ({"labels": []}, "1 rows need as many mappings of slots to labels; got 0"),
        ({"labels": {"first": []}}, "slot 'first' has no labels to decide between"),
        ({"labels": {"first": "01"}}, "the labels of slot 'first' are a list of texts; got '01'"),
        ({"labels": {"first": [1]}}, "the labels of slot 'first' are a list of texts"),
        ({"labels": {"first": ["01", "01"]}}, "label '01' of slot 'first' stands there twice; keep one"),
        (
            {"labels": {"fist": ["01"]}},
            "'fist' cannot be decided: it is not a slot of the template; slots here: first, se",
        ),
        ({"labels": {"first": ["01"], "second": ["01"]}}, "slot 'second' has 1 positions, but what is given"),
        ({"labels": {"first": ["01", "0"]}}, "no end token to fill up with"),
        ({"given": [{"first": "01"}]}, "slot 'first' is given and decided; leave one of them out"),
        ({"method": MonteCarloBound()}, "a decision is by ChainRule.. or MarginalProduct"),
    ],
)
def test_what_cannot_be_decided(changes: dict[str, Any], message: str) -> None:
    toy, told = joint(0), {"labels": {"first": ["01"]}, **changes}
    with pytest.raises(MdsampleError, match=message):
        decide(toy, TEMPLATE, [{}], **told)
    assert toy.passes == 0


def test_a_field_is_no_slot_to_decide() -> None:
    model = mdsample.load("tiny-gsm")
    with pytest.raises(MdsampleError, match="'prompt' cannot be decided: it is a field; slots here: reasoning, answer"):
        decide(model, Template.parse(model.template), [{"prompt": "a"}], {"prompt": ["b"]})


PROMPT = "Ann has 3 coins. Ben has 4 more than Ann. How many coins does Ben have?"
LAYOUT = ["--template", "Question: {prompt}\nMore:{more:2}\nAnswer:{answer:4}"]
TWO = ["--choices", "answer= 7, 12", "--choices", "more= yes, no"]


@pytest.mark.parametrize(("name", "method"), [("marginals", MarginalProduct()), ("chain", ChainRule())])
def test_the_command_says_what_the_library_says(name: str, method: Any, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"answer": [" 7", " 12"], "more": ["4"]}
    assert (
        main(
            ["score", PROMPT, *LAYOUT, "--choices", "answer= 7, 12", "--choices", "more=4", "--json", "--method", name]
        )
        == 0
    )
    row = json.loads(capsys.readouterr().out)
    model = mdsample.load("tiny-gsm")
    (found,) = decide(model, Template.parse(LAYOUT[1]), [{"prompt": PROMPT}], labels, method=method)
    assert (row["nfe"], row["method"], list(row["slots"])) == (found.nfe, str(method), ["answer", "more"])
    for scores in found.slots:
        told = row["slots"][scores.slot]
        assert (told["best"], told["outside"]) == (scores.best.text, scores.outside)
        assert [c["text"] for c in told["candidates"]] == labels[scores.slot]
        assert [c["log_probability"] for c in told["candidates"]] == [c.log_probability for c in scores.candidates]
        assert [c["share"] for c in told["candidates"]] == list(scores.shares)


def test_the_command_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", PROMPT, "--choices", "answer= 7, 12", "--method", "marginals"]) == 0
    out = capsys.readouterr().out
    assert "product of marginals; 1 forward pass\n" in out and "' 12'" in out
    (rest,) = [line.split() for line in out.splitlines() if line.startswith("anything else")]
    assert rest[-1] == "%" and 0 < float(rest[-2]) < 100
    assert max(map(len, out.splitlines())) <= 80


def test_rows_bring_texts_or_slots_with_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "in.jsonl"
    options = [{"answer": [" 7"], "reasoning": [""]}, [" 7", " 8"], {"answer": " 7"}, {}, {"x": ["a"]}, {"answer": []}]
    file.write_text("".join(json.dumps({"prompt": PROMPT, "options": each}) + "\n" for each in options))
    assert main(["score", "--json", "-i", str(file), "--choices-from", "options", "--method", "marginals"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(rows[0]["slots"]) == ["answer", "reasoning"] and rows[0]["nfe"] == 1
    assert rows[1]["slot"] == "answer" and "slots" not in rows[1]
    (one,) = rows[0]["slots"]["answer"]["candidates"]
    assert one["log_probability"] == pytest.approx(rows[1]["candidates"][0]["log_probability"], abs=1e-4)
    assert [row["error"] for row in rows[2:]] == [
        "line 3: 'options', the choices of slot 'answer', must be a list of texts; got ' 7'",
        "line 4: 'options', the choices, names no slot; give slots with lists of texts",
        "'x' cannot be decided: it is not a slot of the template; slots here: reasoning, answer",
        "slot 'answer' has no labels to decide between; name one or more",
    ]


def test_a_text_may_hold_an_equals_sign(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", PROMPT, "--choices", "x=7,y=", "--json", "--method", "marginals"]) == 0
    assert [c["text"] for c in json.loads(capsys.readouterr().out)["candidates"]] == ["x=7", "y="]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TWO, "--choices", "anwser=1"], "several --choices take SLOT=TEXT,TEXT each; got 'anwser=1'; slots here: mo"),
        ([*TWO, "--choices", " 7"], "several --choices take SLOT=TEXT,TEXT each; got ' 7'"),
        ([*TWO, "--choices", "more=a"], "--choices sets slot 'more' twice; keep one"),
        ([*TWO, "--slot", "more"], "--slot is for texts without a slot"),
        ([*TWO, "--method", "bound"], "--method bound gives no probabilities"),
        ([*TWO, "--fill", "more=a"], "slot 'more' is given and decided; leave one of them out"),
        ([*TWO, "--choices-from", "x"], "give --choices, or --choices-from"),
        (["--choices", "answer=1,1"], "label '1' of slot 'answer' stands there twice; keep one"),
        (["--choices", "more=a very long answer"], "slot 'more' has 2 positions"),
    ],
)
def test_wrong_commands_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    is_refused(["score", PROMPT, *LAYOUT, *arguments], message, capsys)

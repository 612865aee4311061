"""Scores of texts: on toys the joint's own log-probabilities, in any order; on a model, the same by other means."""

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
from installed import on
from mdsample_cli.main import main

import mdsample
from mdsample import exact
from mdsample.core.template import Template
from mdsample.errors import ScoreError, TemplateError
from mdsample.policy.order import Confidence, Entropy, Fixed, LeftToRight, Margin, Random
from mdsample.scoring.methods import ChainRule, MarginalProduct, MonteCarloBound
from mdsample.scoring.score import score

few = settings(max_examples=25, deadline=None)
V, BEFORE, N = 3, 2, 3
TEMPLATE = Template.parse("{first:2}{answer:3}")
TEXTS = ["".join(text) for text in itertools.product("012", repeat=N)]
ORDERS = [LeftToRight(), Entropy(), Confidence(), Margin(), Random()]


def joint(seed: int) -> exact.Joint:
    rng = np.random.default_rng(seed)
    return exact.Joint(rng.dirichlet(np.full(V ** (BEFORE + N), 0.3)).reshape((V,) * (BEFORE + N)))


def truth(toy: exact.Joint, first: str | None, text: str) -> float:
    """log p(answer = text | first), by summing the table."""
    table = toy.table()
    head = table.sum((0, 1)) if first is None else table[tuple(int(c) for c in first)]
    return float(np.log(head[tuple(int(c) for c in text)] / head.sum()))


@pytest.mark.slow
@few
@given(st.integers(0, 99), st.sampled_from(ORDERS), st.sampled_from([None, "01", "22"]), st.integers(1, 9))
def test_the_chain_rule_is_the_joints_own_in_any_order(seed: int, order: Any, first: str | None, size: int) -> None:
    toy = joint(seed)
    given_ = None if first is None else [{"first": first}]
    (found,) = score(toy, TEMPLATE, [{}], "answer", TEXTS, method=ChainRule(order), given=given_, batch_size=size)
    expected = [truth(toy, first, text) for text in TEXTS]
    np.testing.assert_allclose([c.log_probability for c in found.candidates], expected, atol=2e-5)
    assert sum(np.exp(c.log_probability) for c in found.candidates) == pytest.approx(1, abs=1e-5)
    assert found.nfe == N * len(TEXTS) and found.best.text == TEXTS[int(np.argmax(expected))]
    np.testing.assert_allclose(found.shares, np.exp(expected), atol=1e-5)


@few
@given(st.integers(0, 99), st.sampled_from([None, "01"]))
def test_the_product_is_that_of_the_true_marginals(seed: int, first: str | None) -> None:
    toy = joint(seed)
    given_ = None if first is None else [{"first": first}]
    (found,) = score(toy, TEMPLATE, [{}], "answer", TEXTS, method=MarginalProduct(), given=given_)
    head = toy.table().sum((0, 1)) if first is None else toy.table()[0, 1]
    head = head / head.sum()
    margins = [head.sum(tuple(j for j in range(N) if j != i)) for i in range(N)]
    expected = [sum(np.log(margins[i][int(c)]) for i, c in enumerate(text)) for text in TEXTS]
    np.testing.assert_allclose([c.log_probability for c in found.candidates], expected, atol=2e-5)
    assert found.nfe == 1


def test_the_bound_is_unbiased() -> None:
    """Every l and every set of l masks, weighed as they are drawn, against the estimate and its standard error."""
    toy, text = joint(5), "201"
    (found,) = score(toy, TEMPLATE, [{}], "answer", [text, "000"], method=MonteCarloBound(2000))
    head = toy.table().sum((0, 1))
    head, mean = head / head.sum(), 0.0
    for count in range(1, N + 1):
        for hidden in itertools.combinations(range(N), count):
            known = head[tuple(slice(None) if i in hidden else int(text[i]) for i in range(N))]
            known = known / known.sum()
            for axis, i in enumerate(hidden):
                margin = known.sum(tuple(j for j in range(count) if j != axis))
                mean += (
                    np.log(margin[int(text[i])]) * (N / count) / N / len(list(itertools.combinations(range(N), count)))
                )
    one, other = found.candidates
    # a joint's conditionals belong together, so the bound is tight
    assert mean == pytest.approx(truth(toy, None, text), abs=1e-6)
    assert abs(one.log_probability - mean) < 4 * one.standard_error < 0.2
    assert found.nfe == 4000 and len(one.samples) == len(other.samples) == 2000


@pytest.mark.slow
def test_the_bound_is_the_mean_of_all_orders_where_conditionals_do_not_belong_together() -> None:
    model = mdsample.load("tiny-gsm")
    template = Template.parse("{prompt}{answer:3}")
    rows, text = [{"prompt": "Ann has 3 coins. Ben has 4 more than Ann."}], " 7"
    (found,) = score(model, template, rows, "answer", [text], method=MonteCarloBound(600))
    chains = []
    for order in itertools.permutations(range(3)):
        (one,) = score(model, template, rows, "answer", [text], method=ChainRule(Fixed(order)))
        chains.append(one.best.log_probability)
    assert abs(found.best.log_probability - np.mean(chains)) < 4 * found.best.standard_error


@pytest.mark.slow
def test_rows_and_candidates_are_independent_of_the_batch() -> None:
    model = mdsample.load("tiny-gsm")
    template = Template.parse("Q: {prompt}\nA:{answer:3}")
    rows = [{"prompt": "Ann has 3 coins."}, {"prompt": "Ben"}, {"prompt": "Cem has 12."}]
    lists = [[" 3", " 12"], [" 4"], [" 12", " 3", "", " 7"]]
    for method in (ChainRule(Random()), MarginalProduct(), MonteCarloBound(5)):
        whole = score(model, template, rows, "answer", lists, method=method, ids=["a", "b", "c"])
        for i, one in enumerate(whole):
            (alone,) = score(
                model, template, rows[i : i + 1], "answer", lists[i], method=method, ids=["abc"[i]], batch_size=2
            )
            for a, b in zip(one.candidates, alone.candidates, strict=True):
                assert a.text == b.text and a.tokens == b.tokens
                assert a.log_probability == pytest.approx(b.log_probability, abs=1e-4)
            assert one.nfe == alone.nfe


def test_common_masks_make_differences_surer() -> None:
    (found,) = score(joint(3), TEMPLATE, [{}], "answer", ["000", "001"], method=MonteCarloBound(200))
    one, other = (np.array(c.samples) for c in found.candidates)
    (apart,) = score(joint(3), TEMPLATE, [{}], "answer", ["001"], method=MonteCarloBound(200, seed=1))
    assert (one - other).std() < (one - np.array(apart.best.samples)).std()


@pytest.mark.parametrize("backend", [on("torch", "torch"), on("mlx", "mlx")])
def test_every_backend_scores_alike(backend: str) -> None:
    rows, texts = [{"prompt": "Ann has 3 coins. Ben has 4 more than Ann."}], [" 7", " 12", " 3"]
    template = Template.parse("{prompt}{answer:3}")
    scores = [
        score(model, template, rows, "answer", texts)[0]
        for model in (
            mdsample.load("tiny-gsm"),
            mdsample.load("tiny-gsm", backend, device="cpu", dtype="float32"),
        )
    ]
    one, other = ([c.log_probability for c in found.candidates] for found in scores)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_impossible_is_minus_infinity() -> None:
    model = mdsample.load("tiny-gsm")
    template = Template.parse("{prompt}{answer:3}")
    # the mask's own token can be said, but not be written
    (found,) = score(model, template, [{"prompt": "a"}], "answer", [" 7"], method=MonteCarloBound(4))
    assert np.isfinite(found.best.log_probability) and found.best.standard_error > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": []}, "rows need as many lists of candidates; got 0"),
        ({"candidates": ["0", "0"]}, r"a row needs candidates, all different; got \['0', '0'\]"),
        ({"candidates": "012"}, "candidates are a list of texts; got one text"),
        ({"candidates": ["012", ["0"]]}, "got a mixture"),
        ({"slot": "anwser"}, "'anwser' cannot be given: it is not a slot"),
        ({"given": [{"answer": "012"}]}, "slot 'answer' is given and scored"),
        ({"candidates": ["0123"]}, "is not a token here"),
        ({"candidates": ["0121"]}, "slot 'answer' has 3 positions"),
        ({"candidates": ["01"]}, "no end token to fill up with"),
    ],
)
def test_what_cannot_be_scored(changes: dict[str, Any], message: str) -> None:
    told: dict[str, Any] = {"slot": "answer", "candidates": ["012"]} | changes
    with pytest.raises((ScoreError, TemplateError, ValueError), match=message):
        score(joint(0), TEMPLATE, [{}], **told)


PROMPT = "Ann has 3 coins. Ben has 4 more than Ann. How many coins does Ben have?"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["score", "--json", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chain", "marginals", "bound"])
def test_the_command_says_what_the_library_says(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    samples = ("--samples", "20") if method == "bound" else ()
    (row,) = told(capsys, PROMPT, "--choices", " 7, 12", "--method", method, *samples)
    model = mdsample.load("tiny-gsm")
    how = {"chain": ChainRule(), "marginals": MarginalProduct(), "bound": MonteCarloBound(20)}[method]
    (found,) = score(model, Template.parse(model.template), [{"prompt": PROMPT}], "answer", [" 7", " 12"], method=how)
    assert [c["log_probability"] for c in row["candidates"]] == [c.log_probability for c in found.candidates]
    assert (row["best"], row["nfe"], row["method"]) == (" 7", found.nfe, str(how))
    assert sum(c["share"] for c in row["candidates"]) == pytest.approx(1)


def test_the_command_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", PROMPT, "--choices", " 7, 12, 3"]) == 0
    out = capsys.readouterr().out
    assert "tiny-gsm on reference; chain rule, left-to-right; 12 forward passes" in out
    assert "' 12'" in out and "%" in out and "█" in out


def test_rows_of_a_file_and_what_is_wrong_with_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "in.jsonl"
    lines: list[dict[str, Any]] = [
        {"id": "a", "prompt": PROMPT, "options": [" 7", " 8"], "why": "7."},
        {"id": "b", "prompt": PROMPT, "options": " 7", "why": ""},
        {"id": "c", "prompt": PROMPT, "options": [" 7", " 7"], "why": ""},
        {"id": "d", "prompt": PROMPT, "options": [" 1234567890"], "why": ""},
        {"id": "e", "prompt": PROMPT, "options": [" 3"], "why": "no"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["-i", str(file), "--choices-from", "options", "--fill-from", "reasoning=why", "--method", "marginals"]
    assert main(["score", "--json", *options]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["a", "b", "c", "d", "e"]
    assert rows[0]["given"] == {"reasoning": "7."} and len(rows[0]["candidates"]) == 2 and "best" in rows[4]
    assert rows[1]["error"] == "line 2: 'options', the choices, must be a list of texts; got ' 7'"
    assert rows[2]["error"].startswith("a row needs candidates, all different")
    assert rows[3]["error"].startswith("slot 'answer' has 4 positions")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a PROMPT, or --input with rows; one of them"),
        (["a"], "give --choices, or --choices-from"),
        (["a", "--choices-from", "x"], "--choices-from takes a key of the rows of --input"),
        (["a", "--choices", "1", "--slot", "anwser"], "'anwser' cannot be given: it is not a slot of the template"),
        (["a", "--choices", "1", "--slot", "prompt"], "'prompt' cannot be given: it is a field"),
        (["a", "--choices", "1,1"], "a row needs candidates, all different"),
        (["a", "--choices", "1", "--method", "sum"], "there is no method 'sum'; there are: chain, marginals, bound"),
        (["a", "--choices", "1", "--order", "top(1)"], "--order takes one order"),
        (["a", "--choices", "1", "--order", "upwards"], "upwards"),
        (["a", "--choices", "1", "--fill", "answer=2"], "slot 'answer' is given and scored"),
        (["a", "--choices", "1", "--samples", "1", "--method", "bound"], "samples"),
        (["a", "--choices", "1", "--samples", "4"], "--samples are those of the bound; with --method chain"),
        (["a", "--choices", "1", "--method", "bound", "--order", "random"], "--order is that of the chain rule"),
        (["a", "--choices", "a very long answer that cannot fit"], "slot 'answer' has 4 positions"),
    ],
)
def test_wrong_commands_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    is_refused(["score", *arguments], message, capsys)

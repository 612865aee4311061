"""Posterior traces: on a toy their law is the joint's true posterior; files of them survive a cut at any byte."""

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
from mdsample.core.template import Template
from mdsample.errors import TemplateError, TracesError
from mdsample.jobs.posterior import STAGES, Keep, Tracer
from mdsample.jobs.records import Request
from mdsample.testing import ScriptedDenoiser, Symbols

SHORT = "Question: {prompt}\nReasoning:{reasoning:10}\nAnswer:{answer:4}"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from(["0", "1", "2"]), st.sampled_from(["random", "entropy", "left-to-right"]))
def test_one_by_one_their_law_is_the_true_posterior(seed: int, answer: str, order: str) -> None:
    table = np.random.default_rng(seed).dirichlet(np.full(3**4, 0.4)).reshape((3,) * 4)
    toy, template = exact.Joint(table), Template.parse("{reasoning:3}{answer:1}")
    canvas = template.canvas(toy.tokenizer, [{}], given=[{"answer": answer}])
    found = exact.law(mdsample.parse(f"{order}+top(1)+temperature(1)"), toy, canvas)
    posterior = table[..., int(answer)] / table[..., int(answer)].sum()
    law = np.zeros_like(posterior)
    for row, probability in zip(found.tokens, found.probability, strict=True):
        assert row[3] == int(answer)
        law[tuple(row[:3])] += probability
    assert 0.5 * np.abs(law - posterior).sum() < 1e-9


def test_scores_are_the_joints_own_on_a_toy() -> None:
    """An answer of one place: log p(answer | reasoning so far), by summing the table."""
    table = np.random.default_rng(3).dirichlet(np.full(3**5, 0.4)).reshape((3,) * 5)
    toy, template = exact.Joint(table), Template.parse("{reasoning:4}{answer:1}")
    sampler = mdsample.Sampler(mdsample.parse("random+top(1)+temperature(1)"))
    tracer = Tracer(toy, template, sampler, n=6, batch_size=4)
    (record,) = tracer.records([Request("p", given={"answer": "1"})])
    canvas = template.canvas(toy.tokenizer, [{}] * 6, [f"p#{i}" for i in range(6)], [{"answer": "1"}] * 6)
    rows = sampler.run(toy, canvas).rows
    assert [t["slots"]["reasoning"] for t in record["traces"]] == list(
        dict.fromkeys("".join(map(str, row.tokens[:4])) for row in rows)
    )
    for trace in record["traces"]:
        row = rows[trace["sample"]]
        for stage, found in zip(STAGES, trace["scores"], strict=True):
            known = {c.position: c.token for c in row.commits[: round(stage * 4)]}
            law = table[tuple(known.get(i, slice(None)) for i in range(4))].reshape(-1, 3).sum(0)
            assert found == pytest.approx(np.log(law[1] / law.sum()), abs=2e-5)


def test_ids_that_differ_only_in_type_are_two() -> None:
    model = ScriptedDenoiser(Symbols(6))
    sampler = mdsample.Sampler("random+top(1)+temperature(1)")
    tracer = Tracer(model, Template.parse("{reasoning:2}{answer:1}"), sampler, n=2)
    names: list[int | str] = [1, "1", '"1"', "1#0", "-1", -1, "'1'"]
    records = list(tracer.records([Request(name, given={"answer": "b"}) for name in names]))
    assert [record["id"] for record in records] == names and not any("error" in record for record in records)


def test_keep() -> None:
    class Scored:
        def __init__(self, *scores: float) -> None:
            self.scores = scores

    some: Any = [Scored(0.0, score) for score in (-3.0, -1.0, -1.0, -9.0)]
    assert Keep().choose(some) == [True] * 4
    assert Keep(1, by="last").choose(some) == [False, True, False, False]
    assert Keep(3, -2.0, "last").choose(some) == [False, True, True, False]
    assert Keep(None, -3.0, "last").choose(some) == [True, True, True, False]
    # the first jumps to its answer in the end, the second makes it likely all along
    jump: Any = [Scored(-8.0, 0.0), Scored(-2.0, -0.2), Scored(-2.0, -2.0)]
    assert Keep(1, by="last").choose(jump) == [True, False, False]
    assert Keep(1).choose(jump) == [False, True, False]
    assert Keep(None, -2.0).choose(jump) == [False, True, True]


def test_refusals() -> None:
    model = mdsample.load("tiny-gsm")
    sampler = mdsample.Sampler(mdsample.parse("med+temperature(1)"))
    with pytest.raises(TracesError, match="a trace needs a slot beside 'answer'"):
        Tracer(model, Template.parse("{prompt}{answer:4}"), sampler)
    with pytest.raises(TemplateError, match="'anwser' cannot be given"):
        Tracer(model, Template.parse(SHORT), sampler, answer="anwser")
    (record,) = Tracer(model, Template.parse(SHORT), sampler).records([Request(0, {"prompt": "a"})])
    assert record == {"id": 0, "error": "the row brings nothing for slot 'answer'"}


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    file = tmp_path / "in.jsonl"
    lines: list[dict[str, Any]] = [{"id": f"p{n}", "prompt": f"Ann has {n} coins.", "answer": n} for n in (3, 5, 12)]
    lines.insert(1, {"id": "bad", "prompt": "Ben"})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def told(problems: Path, *more: str) -> list[str]:
    usual = {"-t": SHORT, "-n": "3", "--answer-as": " {}", "--keep": "best:1"}
    options = [word for name, value in usual.items() if name not in more for word in (name, value)]
    return ["traces", "-i", str(problems), *options, *more]


def read(file: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


#: sums whose last bits hang on the batch that a row was in
ROUNDED = ("error_bound", "tv_bound", "scores")


def near(one: Any, other: Any, name: str = "") -> bool:
    """Equal, but for the last bits of what is `ROUNDED`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key], key) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(near(a, b, name) for a, b in zip(one, other, strict=True))
    return one == (pytest.approx(other, abs=1e-5) if name in ROUNDED else other)


@pytest.mark.slow
def test_the_command(problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(told(problems)) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["id"] for row in rows} == {"p3", "p5", "p12", "bad"}
    for row in rows:
        if row["id"] == "bad":
            assert row["error"] == "line 2: the row lacks 'answer', given for slot 'answer'"
            continue
        assert row["given"] == {"answer": f" {row['id'][1:]}"} and row["n"] == 3
        assert [trace["kept"] for trace in row["traces"]].count(True) == 1
        best = max(row["traces"], key=lambda trace: trace["scores"][-1])
        assert best["kept"] and all(len(trace["scores"]) == len(STAGES) for trace in row["traces"])
        assert len({trace["slots"]["reasoning"] for trace in row["traces"]}) == len(row["traces"])
        assert all(trace["slots"]["answer"] == row["id"][1:] for trace in row["traces"])


@pytest.mark.slow
def test_a_file_that_was_cut_anywhere_is_gone_on_with(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(told(problems, "-o", str(out))) == 1
    whole, data = read(out), out.read_bytes()
    for size in np.random.default_rng(0).integers(0, len(data), 12).tolist():
        out.write_bytes(data[:size])
        assert main(told(problems, "-o", str(out))) == 1
        assert near(read(out), whole)
    capsys.readouterr()
    assert main(told(problems, "-o", str(out), "--seed", "1")) == 2
    assert "was written by another job" in capsys.readouterr().err
    assert main(told(problems, "-o", str(out), "--keep", "all")) == 2


def test_equal_traces_are_told_once(problems: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*told(problems), "-p", "med"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [[t["sample"] for t in row["traces"]] for row in rows if "traces" in row] == [[0]] * 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--keep", "best"], "--keep takes all, or best:K as in best:1; got 'best'"),
        (["--keep-by", "sum"], "traces are kept by mean or last; got 'sum'"),
        (["--keep", "best:0"], "--keep takes all, or best:K"),
        (["--min-score", "nan"], "the least score to be kept is a finite number of nats, as -0.1; got nan"),
        (["--answer-as", "18"], "--answer-as needs {} once"),
        (["--slot", "anwser"], "'anwser' cannot be given"),
        (["-n", "0"], "-n"),
        (["-p", "meed"], "meed"),
        (["-t", "{prompt}{answer:3}"], "a trace needs a slot beside 'answer'"),
    ],
)
def test_wrong_commands_are_one_line(
    problems: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    is_refused(told(problems, *more), message, capsys)


@pytest.mark.slow
def test_traces_do_not_depend_on_the_batch(problems: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    for size in ("1", "16"):
        assert main([*told(problems), "--batch-size", size]) == 1
        rows = {row["id"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
        seen.append({name: [t["text"] for t in row.get("traces", ())] for name, row in rows.items()})
    assert seen[0] == seen[1]
    assert len(list(itertools.chain(*seen[0].values()))) >= 3

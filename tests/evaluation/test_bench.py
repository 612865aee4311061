"""Accuracy against forward passes, and the intervals around both."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import cast

import attrs
import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

import mdsample
from mdsample.backend.load import load
from mdsample.core.template import Template
from mdsample.errors import BenchError, PolicyError, RecordError
from mdsample.evaluation.answers import Answers
from mdsample.evaluation.bench import PolicyScore, bench
from mdsample.evaluation.intervals import Interval, mean, paired_difference, share
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.complete import as_run
from mdsample.policy.parsing import parse
from mdsample.sampling.result import Row
from mdsample.sampling.sampler import Sampler
from mdsample.tasks import sudoku
from mdsample.tasks.catalog import TASKS, Problem, Task, task_for
from recipes.tiny_sudoku.board import Board, singles, solutions, valid

PROBLEMS = tuple(Problem(f"p{i}", {"prompt": "the cat " * (i % 3)}, str(i)) for i in range(7))


def judge(answer: str, right: str) -> bool:
    """Something that depends on row and problem both."""
    name, nfe = answer.split()
    return name == f"p{right}" and (int(nfe) + int(right)) % 2 == 0


def told(row: Row) -> str:
    return f"{row.id} {row.nfe}"


TASK = Task("cats", "", "Q {prompt} R{reasoning:9} A{answer:2}", lambda: PROBLEMS, told, same=judge)
POLICIES = [parse("steps(8)"), parse("med(4)+early-exit(9)"), parse("top(4)")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return load(
        write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", config={"max_sequence_length": 400}), "reference"
    )


@pytest.fixture(scope="module")
def scores(model: Denoiser) -> list[PolicyScore]:
    return list(bench(model, TASK, POLICIES, seed=4, batch_size=3))


def test_scores_are_those_of_the_plain_sampler(model: Denoiser, scores: list[PolicyScore]) -> None:
    canvas = Template.parse(TASK.template).canvas(
        model.tokenizer, [p.texts for p in PROBLEMS], [p.id for p in PROBLEMS]
    )
    solved: list[list[bool]] = []
    for policy, score in zip(POLICIES, scores, strict=True):
        rows = Sampler(policy, seed=4).run(model, canvas).rows
        solved.append([judge(told(row), problem.answer) for row, problem in zip(rows, PROBLEMS, strict=True)])
        assert score.accuracy == share(sum(solved[-1]), 7)
        assert score.nfe == mean([row.nfe for row in rows])
        assert score.tokens_per_forward == sum(r.filled for r in rows) / sum(r.nfe for r in rows)
        assert score.error_bound == pytest.approx(sum(r.error_bound for r in rows) / 7)
        assert score.tv_bound == pytest.approx(min(1, sum(r.tv_bound for r in rows) / 7))
        assert score.nfe_ratio == pytest.approx(scores[0].nfe.value / score.nfe.value)
    assert scores[0].difference == Interval(0, 0, 0)
    assert scores[1].difference == paired_difference(solved[1], solved[0])
    assert {score.limit for score in scores} == {7}
    assert scores[2].policy == as_run(POLICIES[2], None)
    assert scores[2].nfe.value == scores[2].nfe.low == 3


def test_a_record_is_flat(scores: list[PolicyScore]) -> None:
    record = scores[1].record()
    assert {"policy", "accuracy", "nfe", "tokens_per_forward", "seconds", "versions"} <= record.keys()
    for name in ("accuracy", "difference", "nfe"):
        low, value, high = (float(str(record[f"{name}{end}"])) for end in ("_low", "", "_high"))
        assert low <= value <= high
    assert record | {"task": "cats", "model": "tiny", "seed": 4, "limit": 7, "backend": "reference"} == record


def test_batches_change_the_time_only(model: Denoiser, scores: list[PolicyScore]) -> None:
    alone = list(bench(model, TASK, POLICIES, seed=4, batch_size=1))
    changed = {"seconds": 0.0, "error_bound": 0.0, "tv_bound": 0.0}  # bounds round differently
    assert [attrs.evolve(s, **changed) for s in alone] == [attrs.evolve(s, **changed) for s in scores]


def test_watch_and_limit(model: Denoiser) -> None:
    seen: list[tuple[Policy, int]] = []
    [score] = bench(model, TASK, POLICIES[:1], limit=3, watch=lambda *told: seen.append(told))
    assert seen == [(POLICIES[0], 0), (POLICIES[0], 1), (POLICIES[0], 2), (POLICIES[0], 3)]
    assert score.limit == 3


def test_revisions_of_a_model_do_not_share_answers(model: Denoiser, tmp_path: Path) -> None:
    for revision, name in ((None, "tiny"), ("v2", "tiny@v2"), ("v2", "tiny@v2")):
        with Answers(tmp_path / "answers.jsonl") as answers:
            [score] = bench(model, TASK, POLICIES[:1], limit=3, answers=answers, revision=revision)
        assert score.model == name
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 6


def test_what_cannot_be_compared_is_refused_at_once(model: Denoiser) -> None:
    with pytest.raises(BenchError, match="limit must lie between 1 and 7, the problems of cats; got 8"):
        bench(model, TASK, POLICIES, limit=8)
    with pytest.raises(BenchError, match="give at least one policy"):
        bench(model, TASK, [])
    with pytest.raises(PolicyError, match="no such slot; slots here: reasoning, answer"):
        bench(model, TASK, [*POLICIES, parse("early-exit(slot='x')")])


def test_wilson() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
    for successes, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        found = share(successes, trials)
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def cells(both: int, mine: int, other: int, neither: int) -> tuple[list[bool], list[bool]]:
    pairs = [(True, True)] * both + [(True, False)] * mine + [(False, True)] * other + [(False, False)] * neither
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_newcombe() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 2635: the example of method 10
    found = paired_difference(*cells(36, 12, 2, 0))
    assert (found.low, found.high) == (pytest.approx(0.0569, abs=5e-5), pytest.approx(0.3404, abs=5e-5))
    # where all agree, Wilson's own limits
    found = paired_difference(*cells(54, 0, 0, 0))
    assert (found.low, found.high) == (pytest.approx(-0.0664, abs=5e-5), pytest.approx(0.0664, abs=5e-5))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_differences_are_fair(pairs: list[tuple[bool, bool]]) -> None:
    mine, other = [a for a, _ in pairs], [b for _, b in pairs]
    found, turned = paired_difference(mine, other), paired_difference(other, mine)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(-turned.value)
    assert (found.low, found.high) == (pytest.approx(-turned.high), pytest.approx(-turned.low))


def test_intervals_hold_what_they_promise() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        kind = draw.choice(4, 80, p=(0.6, 0.15, 0.08, 0.17))
        found = paired_difference([k in (0, 1) for k in kind], [k in (0, 2) for k in kind])
        held += found.low <= 0.07 <= found.high
    assert 0.92 <= held / 400 <= 0.99


def test_a_mean_of_one() -> None:
    assert mean([3.0]) == Interval(3, 3, 3)
    assert mean([1.0, 3.0]).high == pytest.approx(2 + 1.959964 * math.sqrt(2) / math.sqrt(2))


def test_the_menu_of_tasks(model: Denoiser) -> None:
    for name, task in TASKS.items():
        problems = task.read()
        template = Template.parse(task.template)
        assert name == task.name and task.description
        asked = {(*p.texts.items(), *p.given.items()) for p in problems}
        assert len({p.id for p in problems}) == len(problems) == len(asked)
        assert all(set(p.texts) == set(template.fields) for p in problems)
        assert all(set(p.given) < set(template.slots) for p in problems)
    assert len(TASKS["tiny-gsm"].read()) == 1000
    assert all(p.answer.isdigit() for p in TASKS["tiny-gsm"].read())
    assert task_for(model) is None


@pytest.mark.parametrize(
    ("name", "board"),
    [
        ("sudoku6", Board(2, 3)),
        ("sudoku6-hard", Board(2, 3)),
        ("sudoku", Board(3, 3)),
        ("sudoku-hard", Board(3, 3)),
    ],
)
def test_sudoku_puzzles_have_the_solution_that_is_told(name: str, board: Board) -> None:
    problems = TASKS[name].read()
    assert len(problems) == 500
    solutions_told = np.array([[int(digit) for digit in p.answer] for p in problems], np.int8)
    assert valid(board, solutions_told).all()
    clues = [[int(p.given.get(cell, 0)) for cell in sudoku.cells(board.n)] for p in problems]
    found = singles(board, np.array(clues, np.int8))
    assert (found > 0).all(1).tolist() == [not name.endswith("hard")] * 500
    for puzzle, p in zip(clues[:50], problems, strict=False):
        assert solutions(board, puzzle) == [[int(digit) for digit in p.answer]]


def test_a_board_is_right_if_every_cell_is() -> None:
    task = TASKS["sudoku6"]
    problem = task.read()[0]
    slots = dict(zip(sudoku.cells(6), problem.answer, strict=True))

    class Finished:
        def __init__(self, slots: dict[str, str]) -> None:
            self.slots = slots

    assert task.correct(cast("Row", Finished(slots)), problem)
    for cell in slots:
        other = slots | {cell: "1" if slots[cell] != "1" else "2"}
        assert not task.correct(cast("Row", Finished(other)), problem)


def test_answers_to_another_prompt_are_not_taken(tmp_path: Path) -> None:
    from mdsample.tasks.datasets import gsm8k, gsm8k_shots

    def put(name: str, question: str, answer: int) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps({"question": question, "answer": f"#### {answer}"}) + "\n")
        return path

    asked = put("asked.jsonl", "Ann has 2 apples and buys 3. How many?", 5)
    others = put("others.jsonl", "Bob has 9 pears and eats 4. How many?", 5)
    shots = [put(f"shots{n}.jsonl", f"What is 1 + {n}?", 1 + n) for n in range(2)]
    model, layout = mdsample.load("tiny-gsm", "reference"), mdsample.Template.parse("{prompt}{answer:4}")

    def ran(problems: Path, before: Path) -> None:
        task = gsm8k(problems, gsm8k_shots(before, 1))
        with Answers(tmp_path / "answers.jsonl") as answers:
            list(bench(model, task, [parse("med")], template=layout, answers=answers))

    ran(asked, shots[0])
    ran(asked, shots[0])
    for problems, before in ((asked, shots[1]), (others, shots[0])):
        with pytest.raises(RecordError, match="answers problem 0 to another prompt"):
            ran(problems, before)
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1


def test_kept_answers_are_read_again_without_a_pass(tmp_path: Path) -> None:
    from mdsample.tasks.datasets import gsm8k

    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps({"question": f"q{i}", "answer": f"#### {i}"}) + "\n" for i in range(3)))
    model, task, path = mdsample.load("tiny-gsm", "reference"), gsm8k(data), tmp_path / "answers.jsonl"

    def ran(template: str, extract: str | None = None) -> tuple[PolicyScore, int]:
        passes = 0

        def count(_: object) -> None:
            nonlocal passes
            passes += 1

        with Answers(path) as answers:
            layout = mdsample.Template.parse(template)
            policies = [mdsample.parse("med")]
            [score] = bench(
                model, task, policies, template=layout, answers=answers, extract=extract, on_step=count, batch_size=3
            )
        return score, passes

    whole, parted = (
        "Question: {prompt}\nReasoning:{answer:24}",
        "Question: {prompt}\nReasoning:{r:16}\nAnswer:{answer:4}",
    )
    for template, by_rule in ((whole, "marked"), (parted, "first")):
        path.unlink(missing_ok=True)
        score, passes = ran(template)
        assert score.extract == by_rule == score.record()["extract"] and passes
        written = path.read_bytes()
        for way in ("strict", "last", "marked", "first", None):
            again, passes = ran(template, way)
            assert again.extract == (way or by_rule) and not passes and path.read_bytes() == written
        assert ran(template, "strict")[0].accuracy.value == 0
        # a file from before records said how they were read: `first` where there is a slot `answer`
        old = [json.loads(line) for line in written.splitlines()]
        for record in old:
            del record["extract"], record["source"]
        path.write_text("".join(json.dumps(record) + "\n" for record in old))
        assert not ran(template)[1] and not ran(template, "first")[1]
        assert bool(ran(template, "last")[1]) is (template == parted)
    with pytest.raises(
        BenchError, match="tiny-gsm has no way 'last' to read an answer; its answers are read in one way"
    ):
        bench(model, TASKS["tiny-gsm"], [mdsample.parse("med")], extract="last")
    with pytest.raises(
        BenchError, match="gsm8k has no way 'x' to read an answer; there are: first, last, marked, stri"
    ):
        bench(model, task, [mdsample.parse("med")], extract="x")

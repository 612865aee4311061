"""GSM8K, MATH-500 and files of one's own: how answers are read out of rows, and what wrong files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdsample.core.template import Template
from mdsample.errors import RecordError
from mdsample.sampling.result import Row
from mdsample.tasks.catalog import Task
from mdsample.tasks.datasets import gsm8k, math500, own


def row(text: str, **slots: str) -> Row:
    """What a task reads of a finished row."""

    class Finished:
        pass

    made = cast("Any", Finished())
    made.text, made.slots = text, slots
    return made


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def school(tmp_path: Path) -> Task:
    return gsm8k(write(tmp_path / "test.jsonl", {"question": "q?", "answer": "9 + 9 = 18 <<9+9=18>>\n#### 1,018"}))


@pytest.mark.parametrize(
    ("text", "slots", "answer"),
    [
        ("", {"answer": "1,018"}, "1,018"),
        ("12", {"answer": "$1018 dollars"}, "$1018"),
        ("12", {"answer": "no"}, ""),
        ("first 7, so\n#### 1018 and 9", {}, "1018"),
        ("7 and \\boxed{1018} or 3", {}, "1018"),
        ("7 then 1018.", {}, "1018"),
        ("a loss of -3.5", {}, "-3.5"),
        ("none at all", {}, ""),
    ],
)
def test_where_the_number_is_found(school: Task, text: str, slots: dict[str, str], answer: str) -> None:
    assert school.answer(row(text, **slots)) == answer


def test_gsm8k(school: Task) -> None:
    (problem,) = school.read()
    assert (problem.id, problem.texts, problem.answer) == (0, {"prompt": "q?"}, "1,018")
    assert problem.reasoning == "9 + 9 = 18"
    for answer, right in (("1018", True), ("$1,018.00", True), ("1019", False), ("", False), ("18", False)):
        assert school.same(answer, problem.answer) is right
    assert Template.parse(school.template).fields == ("prompt",)


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_compared_as_numbers(school_number: int) -> None:
    from mdsample.tasks.datasets import _number, _same_number

    for written in (str(school_number), f"{school_number:,}", f"{school_number}.0"):
        found = _number(row(f"it is 5, then {written}"))
        assert _same_number(found, str(school_number))
        assert not _same_number(found, str(school_number + 1))


def test_math500(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    path = write(tmp_path / "t.jsonl", {"problem": "p", "answer": "\\frac{1}{2}", "unique_id": "a/1.json"})
    task = math500(path)
    (problem,) = task.read()
    assert (problem.id, problem.texts) == ("a/1.json", {"prompt": "p"})
    for text, slots, right in (
        ("", {"answer": "\\frac12"}, True),
        ("", {"answer": "0.5}. So"}, True),
        ("", {"answer": "\\frac{1}{3}"}, False),
        ("", {"answer": ""}, False),
        ("thus \\boxed{1} or rather \\boxed{\\frac{2}{4}} yes", {}, True),
        ("one half", {}, False),
    ):
        assert task.correct(row(text, **slots), problem) is right
    assert Template.parse(task.template).slots == ("reasoning", "answer")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", {"id": "x", "q": "2+2", "gold": 4}, {"q": "3", "gold": " 3 "})
    task = own(path, "{q} = {r:4} so {answer:2}", "gold")
    assert [(p.id, p.texts, p.answer) for p in task.read()] == [("x", {"q": "2+2"}, "4"), (1, {"q": "3"}, "3")]
    assert (task.name, task.needs) == ("mine", ("answer",))
    assert task.correct(row("", r="1", answer="4"), task.read()[0])
    assert own(path, "{q} = {r:4}", "gold").needs == ("r",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no problems"),
        ("{", "line 1: this is not JSON"),
        ("[1]", "line 1: a row must be a JSON object"),
        ('\n{"answer": "#### 1"}', "line 2: 'question' must be text or a whole number; it is not there"),
        ('{"question": 1.5, "answer": "#### 1"}', r"'question' must be text or a whole number; it is 1\.5"),
        ('{"question": "q", "answer": "1"}', "holds no ####"),
        ('{"question": "q", "answer": "#### one"}', "is not a number: 'one'"),
        ('{"id": 1, "question": "q", "answer": "#### 1"}\n' * 2, "two problems have the id 1"),
        ('{"id": null, "question": "q", "answer": "#### 1"}', "an id must be text or a whole number; got None"),
    ],
)
def test_wrong_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(content)
    with pytest.raises(RecordError, match=message):
        gsm8k(path).read()


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read"):
        gsm8k(tmp_path / "nothing.jsonl").read()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match="not UTF-8"):
        gsm8k(tmp_path / "bytes").read()

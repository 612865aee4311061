"""GSM8K, MATH-500 and files of one's own: how answers are read out of rows, and what wrong files say."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdsample.core.template import Template
from mdsample.errors import RecordError
from mdsample.sampling.result import Row
from mdsample.tasks.catalog import Task
from mdsample.tasks.datasets import EXTRACTS, gsm8k, math500, own


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

    assert _same_number("−1,000.", "-1000")

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


# ways to read a number

REASONED = "Ann has 3 and Ben 4, so 3 + 4 = 7. The answer is 7"


@pytest.mark.parametrize(
    ("text", "first", "last", "marked", "strict"),
    [
        ("5 - 3 = 2", "5", "2", "2", ""),
        (REASONED, "3", "7", "7", ""),
        ("3 + 4 = 7\n#### 1,007.\nNext: 9", "3", "9", "1,007", "1,007"),
        ("#### 1 #### -2.5", "1", "-2.5", "-2.5", "1"),
        ("####7", "7", "7", "7", ""),
        ("half, 1/2 ...", "1/2", "2", "1/2", ""),
        ("it costs $7.", "$7", "$7", "$7", ""),
        ("\\boxed{12} or 3,,", "12", "3", "12", ""),
        ("none ... at,, all", "", "", "", ""),
        # a hyphen between numbers is no sign, and a typographer's minus is one
        ("from 12-16, so 20-12", "12", "-12", "12", ""),
        ("it is −5", "−5", "5", "−5", ""),
        ("#### -$40", "-$40", "-$40", "-$40", ""),
    ],
)
def test_ways_to_read_a_number(text: str, first: str, last: str, marked: str, strict: str) -> None:
    ways = {"first": first, "last": last, "marked": marked, "strict": strict}
    assert {name: read(text) for name, read in EXTRACTS.items()} == ways


@pytest.mark.parametrize(
    ("template", "way"),
    [
        ("{prompt}{reasoning:240}{answer:10}", "first"),
        ("{prompt}{reasoning:240}{answer:16}", "first"),
        ("{prompt}{reasoning:240}{answer:17}", "marked"),
        ("{prompt}{answer:10}", "marked"),
        ("{prompt}{answer:128}", "marked"),
        ("{prompt}{text:256}", "marked"),
    ],
)
def test_the_template_says_how_a_number_is_read(school: Task, template: str, way: str) -> None:
    assert school.suits(Template.parse(template)) == way
    assert school.suits(Template.parse(school.template)) == "first"


def test_equal_numbers(school: Task) -> None:
    same = [
        ["1/2", "0.5", ".50", "2/4", "$.5", "0.50."],
        ["1,000", "1000", "$1000.00", "1000."],
        ["-7", "-$7", "$-7.0"],
    ]
    for group in same:
        for other in same:
            assert all(school.same(one, two) is (group is other) for one in group for two in other)
    # no rounding: floats would call these the same
    assert not school.same("0.1", "0.1000000000000000000001") and not school.same("1/3", "0.3333333333333333")
    for none in ("", "1/0", "1e3", "1.2.3", "-", ".", "$", "NaN", "1/2/3", "9" * 5000, "x7"):
        assert not school.same(none, none)


@given(st.integers(-(10**30), 10**30), st.integers(0, 12), st.integers(0, 3), st.booleans())
def test_a_number_is_its_value_however_it_is_written(digits: int, places: int, zeros: int, dollar: bool) -> None:
    from mdsample.tasks.datasets import _same_number, _value

    exact = Fraction(digits, 10**places)
    whole, part = divmod(abs(digits), 10**places)
    decimals = f"{part:0{places}}" if places else ""
    end = f".{decimals}{'0' * zeros}" if decimals or zeros else ""
    written = f"{'-' * (digits < 0)}{'$' * dollar}{whole:,}{end}"
    assert _value(written) == _value(f"{written}.") == exact
    assert _same_number(written, f"{digits}/{10**places}")
    assert not _same_number(written, f"{digits * 10**40 + 1}/{10 ** (places + 40)}")
    # and it is found in a text, in each way
    text = f"It was 5, so it is\n#### {written.replace('$', '')}"
    for name in ("last", "marked", "strict"):
        assert _value(EXTRACTS[name](text)) == exact, name


@given(st.text("0123456789.,$-/# abé", max_size=30))
def test_any_text_is_read_or_not(text: str) -> None:
    from mdsample.tasks.datasets import _same_number

    for read in EXTRACTS.values():
        found = read(text)
        assert found in text
        _same_number(found, found)


def test_the_option(school: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mdsample_cli.main import main

    assert school.name == "gsm8k"
    template = "Question: {prompt}\nReasoning:{answer:20}"
    on = ["bench", "--task", "gsm8k", "--problems", str(tmp_path / "test.jsonl"), "-p", "med", "-t", template]
    kept = tmp_path / "answers.jsonl"
    for options, way in ((list[str](), "marked"), (["--extract", "last"], "last")):
        assert main([*on, "--backend", "reference", "--json", "-o", str(kept), *options]) == 0
        assert json.loads(capsys.readouterr().out)["extract"] == way
    (record,) = map(json.loads, kept.read_text().splitlines())
    assert record["extract"] == "marked" and record["source"] == record["text"]
    assert main([*on, "--extract", "x"]) == 2
    assert "--extract takes one of first, last, marked, strict; got 'x'" in capsys.readouterr().err
    assert main(["bench", "--extract", "last"]) == 2
    assert "--extract is for gsm8k; leave it out with tiny-gsm" in capsys.readouterr().err

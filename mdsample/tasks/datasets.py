"""Published data sets, and data of one's own, as tasks. The files are the user's; nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, cast

from mdsample.core.template import Slot, Template
from mdsample.errors import RecordError
from mdsample.models.chat import messages_of
from mdsample.sampling.result import Row
from mdsample.tasks.catalog import Problem, Task, source
from mdsample.tasks.columns import column, parted
from mdsample.tasks.files import read_once, rows_of, text_in
from mdsample.tasks.shots import Shots

#: reasoning, delimiter and answer in 256 positions or so, as in arXiv 2510.19990; the whole run: docs/llada.md
_GSM8K = "{prompt}\n{reasoning:240} The answer is \\boxed{{{answer:10}}}."
_MATH500 = "{prompt}\n{reasoning:240} The answer is \\boxed{{{answer:24}}}."
#: what a calculator was asked while GSM8K's solutions were written, as in `9 + 9 = <<9+9=18>>18`
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
#: after a number or a word a hyphen is no sign, as in `12-16`; `−` is the minus of typographers
_NUMBER = re.compile(r"(?:(?<![\w)])[-−])?\$?(?:\d[\d,]*(?:\.\d+)?(?:/\d+)?|\.\d+)")
#: lm-evaluation-harness, gsm8k.yaml: `strict-match` takes the first match, `flexible-extract` the last
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
#: a number without commas and currency; a denominator is whole
_PLAIN = re.compile(r"(-?(?:\d+\.?\d*|\.\d+))(?:/(\d+))?")
_MARKS = {ord(","): None, ord("$"): None, ord("−"): "-"}
#: positions of a slot that holds an answer and no reasoning
_SHORT = 16


def gsm8k(path: Path, shots: Shots | None = None) -> Task:
    """GSM8K: JSON lines `question`, `answer` with the right number after `####`.

    With `shots`, solved problems of such a file stand before each, as `Question: …` and `Answer: …`, and the model goes
    on after `Answer:`.

    The answer is `first`, the first number of the slot `answer`, if that has at most 16 positions and there is another
    slot to reason in; else `marked`: the number after the last `####`, else in the last `\\boxed{}`, else the last one,
    of the slot or, without such a slot, of the text. Two more are those of lm-evaluation-harness: `strict`
    (`strict-match`, the first number after `####`) and `last` (`flexible-extract`, the last match, of those with a
    digit). Numbers are compared by their exact value, without commas and currency. A problem's `reasoning` is the
    solution before `####`, without the calculator's marks (`<<9+9=18>>`).
    """

    def problems() -> Iterator[Problem]:
        for where, row in rows_of(path):
            question, answer = text_in(row, "question", where), text_in(row, "answer", where)
            if "####" not in answer:
                raise RecordError(f"{where}: 'answer' holds no ####, after which GSM8K's files have the right number")
            solution, _, right = (part.strip() for part in answer.rpartition("####"))
            if _value(right) is None:
                raise RecordError(f"{where}: what follows #### is not a number: {right!r:.40}")
            written = _CALCULATOR.sub("", solution).strip()
            text = question if shots is None else f"{shots.before(question)}Question: {question}\nAnswer:"
            yield Problem(row.get("id", where.number), {"prompt": text}, right, reasoning=written)

    name, template = ("gsm8k", _GSM8K) if shots is None else (shots.named("gsm8k"), "{prompt}{solution:256}")
    return Task(
        name,
        "Grade-school word problems (GSM8K).",
        template,
        read_once(problems),
        _number,
        (),
        _same_number,
        extracts={way: partial(_up_to, "Question:", read) for way, read in EXTRACTS.items()},
        suits=_extract_for,
    )


def gsm8k_shots(path: Path, count: int) -> Shots:
    """The first problems of a file of GSM8K, with their solutions as they stand there."""
    found = [(text_in(row, "question", where), text_in(row, "answer", where)) for where, row in rows_of(path)]
    return Shots.of(path, count, [(question, f"Question: {question}\nAnswer: {answer}") for question, answer in found])


def math500_shots(path: Path, count: int) -> Shots:
    """The first problems of a file of MATH, `problem` and `solution`."""
    found = [(text_in(row, "problem", where), text_in(row, "solution", where)) for where, row in rows_of(path)]
    return Shots.of(path, count, [(problem, f"Problem:\n{problem}\n\nSolution: {answer}") for problem, answer in found])


def math500(path: Path, shots: Shots | None = None) -> Task:
    """MATH-500: JSON lines `problem`, `answer` in LaTeX.

    With `shots`, solved problems stand before each, as `Problem:` and `Solution:`, and the model goes on after
    `Solution:`.

    The answer is what stands in the slot `answer`; without such a slot, the last `\\boxed{}` of the text. Whether it is
    as good as the right one is for `math-verify` to say (`pip install 'mdsample[math]'`).
    """

    def problems() -> Iterator[Problem]:
        _math_verify()
        for where, row in rows_of(path):
            name = row.get("unique_id", row.get("id", where.number))
            text = text_in(row, "problem", where)
            if shots is not None:
                text = f"{shots.before(text)}Problem:\n{text}\n\nSolution:"
            yield Problem(name, {"prompt": text}, text_in(row, "answer", where))

    name, template = ("math500", _MATH500) if shots is None else (shots.named("math500"), "{prompt}{solution:512}")
    about = "500 competition problems of MATH, answers in LaTeX."
    return Task(name, about, template, read_once(problems), _latex, (), _same_latex)


def own(path: Path, template: str, answer_field: str | None = "answer") -> Task:
    """Data of one's own: JSON lines with the template's fields, or `messages`, and the right answer in `answer_field`.

    The answer is what stands in the slot `answer`, or else in the last slot; it is right if it is the same text, but
    for white space around it. `answer_field=None`: no right answers are known.
    """
    layout = Template.parse(template)
    slot = "answer" if "answer" in layout.slots else layout.slots[-1]

    def problems() -> Iterator[Problem]:
        for where, row in rows_of(path):
            row = parted(row, (answer_field,))
            try:
                messages = messages_of(row, layout.fields)
            except RecordError as fault:
                raise RecordError(f"{where}: {fault}") from fault
            texts = {} if messages else {field: text_in(row, column(row, field), where) for field in layout.fields}
            key = None if answer_field is None else column(row, answer_field, layout.fields)
            right = "" if key is None else text_in(row, key, where).strip()
            yield Problem(row.get("id", where.number), texts, right, messages=messages)

    about = f"Problems of {path}."
    return Task(path.stem, about, template, read_once(problems), lambda row: row.slots[slot], (slot,))


def _number(row: Row) -> str:
    """The number that a row answers with, as it stands there, empty if there is none; all slots taken to be short."""
    return EXTRACTS["first" if "answer" in row.slots and len(row.slots) > 1 else "marked"](source(row))


def _extract_for(template: Template) -> str:
    """`first` or `marked`, see `gsm8k`."""
    slots = [piece for piece in template.pieces if isinstance(piece, Slot)]
    short = any(slot.name == "answer" and slot.length <= _SHORT for slot in slots)
    return "first" if short and len(slots) > 1 else "marked"


def _first(text: str) -> str:
    number = _NUMBER.search(text)
    return number[0] if number else ""


def _marked(text: str) -> str:
    _, mark, after = text.rpartition("####")
    for part in (after if mark else "", boxed(text)):
        if number := _first(part):
            return number
    return (_NUMBER.findall(text) or [""])[-1]


def _last(text: str) -> str:
    found = [match[0] for match in _FLEXIBLE.finditer(text) if any(map(str.isdigit, match[0]))]
    return found[-1].rstrip(".,") if found else ""


def _strict(text: str) -> str:
    number = _STRICT.search(text)
    return number[1].rstrip(".,") if number else ""


#: how GSM8K's answers are read, see `gsm8k`
EXTRACTS: dict[str, Callable[[str], str]] = {"first": _first, "last": _last, "marked": _marked, "strict": _strict}


def _value(text: str) -> Fraction | None:
    """The exact value of a number as people write it, `None` for what is none: `$1,000.`, `.50`, `-1/2`."""
    plain = _PLAIN.fullmatch(text.translate(_MARKS).strip().rstrip("."))
    try:
        return Fraction(plain[1].removesuffix(".")) / int(plain[2] or 1) if plain else None
    except (ValueError, ZeroDivisionError):  # more digits than Python reads
        return None


def _same_number(answer: str, right: str) -> bool:
    value = _value(answer)
    return value is not None and value == _value(right)


def boxed(text: str) -> str:
    """What the last `\\boxed{}` holds; empty if there is none."""
    _, opening, rest = text.rpartition("\\boxed{")
    return _until_closed(rest) if opening else ""


def _until_closed(text: str) -> str:
    """The text up to the brace that closes what was open before it."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return text[:i]
    return text


def _latex(row: Row) -> str:
    if "answer" in row.slots:
        return _until_closed(row.slots["answer"]).strip()
    return _up_to("Problem:", boxed, row.text).strip()


def _up_to(end: str, read: Callable[[str], str], text: str) -> str:
    """What is read of a text before a stop string: after examples a model may write further problems."""
    return read(text.partition(end)[0])


def _same_latex(answer: str, right: str) -> bool:
    parse, verify = _math_verify()
    if not answer:
        return False
    given, wanted = (parse(f"\\boxed{{{text}}}") for text in (answer, right))
    return bool(verify(wanted, given))


def _math_verify() -> tuple[Callable[[str], Any], Callable[[Any, Any], bool]]:
    try:
        from math_verify import parse, verify  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as fault:
        raise RecordError("answers in LaTeX are compared by math-verify: pip install 'mdsample[math]'") from fault
    return cast("Any", parse), cast("Any", verify)

"""Published data sets, and data of one's own, as tasks. The files are the user's; nothing is fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

from mdsample.core.files import read_whole
from mdsample.core.sources import is_table, open_source
from mdsample.core.template import Slot, Template
from mdsample.errors import RecordError
from mdsample.models.chat import messages_of
from mdsample.sampling.result import Row
from mdsample.tasks.catalog import Problem, Task, source
from mdsample.tasks.columns import column, parted

#: reasoning, delimiter and answer in 256 positions or so, as in arXiv 2510.19990; the whole run: docs/llada.md
_GSM8K = "{prompt}\n{reasoning:240} The answer is \\boxed{{{answer:10}}}."
_MATH500 = "{prompt}\n{reasoning:240} The answer is \\boxed{{{answer:24}}}."
#: what a calculator was asked while GSM8K's solutions were written, as in `9 + 9 = <<9+9=18>>18`
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?|-?\$?\.\d+")
#: lm-evaluation-harness, gsm8k.yaml: `strict-match` takes the first match, `flexible-extract` the last
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
#: a number without commas and currency; a denominator is whole
_PLAIN = re.compile(r"(-?(?:\d+\.?\d*|\.\d+))(?:/(\d+))?")
#: positions of a slot that holds an answer and no reasoning
_SHORT = 16


def gsm8k(path: Path) -> Task:
    """GSM8K: JSON lines `question`, `answer` with the right number after `####`.

    The answer is `first`, the first number of the slot `answer`, if that has at most 16 positions and there is another
    slot to reason in; else `marked`: the number after the last `####`, else in the last `\\boxed{}`, else the last one,
    of the slot or, without such a slot, of the text. Two more are those of lm-evaluation-harness: `strict`
    (`strict-match`, the first number after `####`) and `last` (`flexible-extract`, the last match, of those with a
    digit). Numbers are compared by their exact value, without commas and currency. A problem's `reasoning` is the
    solution before `####`, without the calculator's marks (`<<9+9=18>>`).
    """

    def problems() -> Iterator[Problem]:
        for where, row in _rows(path):
            question, answer = _text(row, "question", where), _text(row, "answer", where)
            if "####" not in answer:
                raise RecordError(f"{where}: 'answer' holds no ####, after which GSM8K's files have the right number")
            solution, _, right = (part.strip() for part in answer.rpartition("####"))
            if _value(right) is None:
                raise RecordError(f"{where}: what follows #### is not a number: {right!r:.40}")
            written = _CALCULATOR.sub("", solution).strip()
            yield Problem(row.get("id", where.number), {"prompt": question}, right, reasoning=written)

    about = "Grade-school word problems (GSM8K)."
    return Task(
        "gsm8k", about, _GSM8K, _reader(problems), _number, (), _same_number, extracts=EXTRACTS, suits=_extract_for
    )


def math500(path: Path) -> Task:
    """MATH-500: JSON lines `problem`, `answer` in LaTeX.

    The answer is what stands in the slot `answer`; without such a slot, the last `\\boxed{}` of the text. Whether it is
    as good as the right one is for `math-verify` to say (`pip install 'mdsample[math]'`).
    """

    def problems() -> Iterator[Problem]:
        _math_verify()
        for where, row in _rows(path):
            name = row.get("unique_id", row.get("id", where.number))
            yield Problem(name, {"prompt": _text(row, "problem", where)}, _text(row, "answer", where))

    about = "500 competition problems of MATH, answers in LaTeX."
    return Task("math500", about, _MATH500, _reader(problems), _latex, (), _same_latex)


def own(path: Path, template: str, answer_field: str | None = "answer") -> Task:
    """Data of one's own: JSON lines with the template's fields, or `messages`, and the right answer in `answer_field`.

    The answer is what stands in the slot `answer`, or else in the last slot; it is right if it is the same text, but
    for white space around it. `answer_field=None`: no right answers are known.
    """
    layout = Template.parse(template)
    slot = "answer" if "answer" in layout.slots else layout.slots[-1]

    def problems() -> Iterator[Problem]:
        for where, row in _rows(path):
            row = parted(row, (answer_field,))
            try:
                messages = messages_of(row, layout.fields)
            except RecordError as fault:
                raise RecordError(f"{where}: {fault}") from fault
            texts = {} if messages else {field: _text(row, column(row, field), where) for field in layout.fields}
            right = "" if answer_field is None else _text(row, column(row, answer_field, layout.fields), where).strip()
            yield Problem(row.get("id", where.number), texts, right, messages=messages)

    about = f"Problems of {path}."
    return Task(path.stem, about, template, _reader(problems), lambda row: row.slots[slot], (slot,))


class _Where:
    """A line of a file, for messages."""

    def __init__(self, path: Path, line: int, number: int, unit: str = "line") -> None:
        self.number = number
        self._said = f"{path}, {unit} {line}"

    def __str__(self) -> str:
        return self._said


def _reader(problems: Callable[[], Iterator[Problem]]) -> Callable[[], tuple[Problem, ...]]:
    """Reads once; ids must differ."""
    kept: list[tuple[Problem, ...]] = []

    def read() -> tuple[Problem, ...]:
        if not kept:
            loaded = tuple(problems())
            names = [problem.id for problem in loaded]
            for name in names:
                if isinstance(name, bool) or not isinstance(name, int | str):  # pyright: ignore[reportUnnecessaryIsInstance]
                    raise RecordError(f"an id must be text or a whole number; got {name!r:.40}")
            if twice := [name for name in names if names.count(name) > 1]:
                raise RecordError(f"two problems have the id {twice[0]!r}")
            kept.append(loaded)
        return kept[0]

    return read


def _rows(path: Path) -> Iterator[tuple[_Where, Mapping[str, Any]]]:
    if is_table(str(path)):
        try:
            for number, raw in enumerate(open_source(str(path))):
                yield _Where(path, number, number, "row"), cast("Mapping[str, Any]", raw.value)
        except OSError as fault:
            raise RecordError(f"cannot read {path}: {fault.strerror or fault}") from fault
        return
    try:
        lines = read_whole(path).decode("utf-8-sig").split("\n")
    except OSError as fault:
        raise RecordError(f"cannot read {path}: {fault.strerror or fault}") from fault
    except UnicodeDecodeError as fault:
        raise RecordError(f"{path} is not UTF-8 (byte {fault.start})") from fault
    filled = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if not filled:
        raise RecordError(f"{path} holds no problems")
    for number, (i, line) in enumerate(filled):
        where = _Where(path, i, number)
        try:
            row = row_object(line)
        except RecordError as fault:
            raise RecordError(f"{where}: {fault}") from fault
        yield where, row


def row_object(line: str | bytes) -> dict[str, Any]:
    """The JSON object that a line of data is; `RecordError` if it is none."""
    try:
        row: object = json.loads(line)
    except (ValueError, RecursionError) as fault:
        raise RecordError(f"this is not JSON: {fault}") from fault
    if not isinstance(row, dict):
        raise RecordError(f"a row must be a JSON object; got {row!r:.40}")
    return cast("dict[str, Any]", row)


def _text(row: Mapping[str, Any], name: str, where: _Where) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        fault = f"is {value!r:.40}" if name in row else f"is not there; there are: {', '.join(row) or 'no keys'}"
        raise RecordError(f"{where}: {name!r} must be text or a whole number; it {fault}")
    return str(value)


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
    for part in (after if mark else "", _boxed(text)):
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
    plain = _PLAIN.fullmatch(text.replace(",", "").replace("$", "").strip().rstrip("."))
    try:
        return Fraction(plain[1].removesuffix(".")) / int(plain[2] or 1) if plain else None
    except (ValueError, ZeroDivisionError):  # more digits than Python reads
        return None


def _same_number(answer: str, right: str) -> bool:
    value = _value(answer)
    return value is not None and value == _value(right)


def _boxed(text: str) -> str:
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
    return (_until_closed(row.slots["answer"]) if "answer" in row.slots else _boxed(row.text)).strip()


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

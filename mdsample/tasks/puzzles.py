"""Countdown and 4 x 4 Sudoku as text, in the layouts of dllm-reasoning/d1. The files are the user's."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from mdsample.errors import RecordError
from mdsample.sampling.result import Row
from mdsample.tasks.catalog import Problem, Task, source
from mdsample.tasks.datasets import boxed
from mdsample.tasks.files import Where, read_once, rows_of, text_in, text_of

#: a model is asked in these words; others are given as a template with the same fields
_COUNTDOWN = (
    "Write an expression with the numbers {numbers} that equals {target}. Use each number once, with +, -, * and /. "
    "Give it inside \\boxed{{}}.\n{solution:128}"
)
_SUDOKU = (
    "Solve this 4 x 4 Sudoku, 16 digits row by row, 0 for an empty cell. Every row, column and 2 x 2 box holds 1 to 4 "
    "once.\nPuzzle: {puzzle}\nSolution: {answer:24}"
)
#: an expression in no more than these many characters and open brackets is worth reading
_LONGEST, _DEEPEST = 200, 20
_TOKEN = re.compile(r"\s*(?:(\d+)|([-+*/()]))")


def countdown(path: Path) -> Task:
    """Countdown: JSON lines `input` (numbers between commas) and `output` (the target).

    The answer is the last `\\boxed{}`, else what stands between `<answer>` tags, else the text; right is an expression
    of the four operations and brackets that uses each number once and has exactly the target's value. LaTeX's
    `\\times`, `\\cdot` and `\\div` are read, and what follows an equals sign is left out.
    """

    def problems() -> Iterator[Problem]:
        for where, row in rows_of(path):
            numbers, target = text_in(row, "input", where), text_in(row, "output", where)
            if not re.fullmatch(r"\d+(,\d+)+", numbers) or not target.isdecimal():
                raise RecordError(
                    f"{where}: 'input' is numbers between commas and 'output' a number; it is {row!r:.80}"
                )
            texts = {"numbers": numbers.replace(",", ", "), "target": target}
            yield Problem(row.get("id", where.number), texts, f"{numbers}={target}")

    about = "Expressions that reach a target (Countdown)."
    return Task("countdown", about, _COUNTDOWN, read_once(problems), _expression, (), _reaches)


def sudoku4(path: Path) -> Task:
    """4 x 4 Sudoku: CSV with `Puzzle` and `Solution`, 16 digits each, 0 for an empty cell.

    The answer is what stands in the slot `answer`, or between the last `<answer>` tags of the text, without all but
    digits; right is the solution in all its cells (d1 counts the share of empty cells that are right).
    """

    def problems() -> Iterator[Problem]:
        rows = csv.DictReader(io.StringIO(text_of(path)))
        found = False
        for number, row in enumerate(rows):
            where = Where(path, rows.line_num, number)
            puzzle, solution = text_in(row, "Puzzle", where), text_in(row, "Solution", where)
            if not re.fullmatch("[0-4]{16}", puzzle) or not re.fullmatch("[1-4]{16}", solution):
                pair = f"{puzzle!r:.40} and {solution!r:.40}"
                raise RecordError(f"{where}: puzzle and solution have 16 digits, of 0 to 4 and 1 to 4; they are {pair}")
            found = True
            yield Problem(number, {"puzzle": puzzle}, solution)
        if not found:
            raise RecordError(f"{path} holds no problems")

    about = "4 x 4 Sudoku puzzles, as 16 digits."
    return Task("sudoku4", about, _SUDOKU, read_once(problems), _digits, ())


def _tagged(text: str) -> str:
    """Between the last `<answer>` tags; all of it where there are none."""
    _, mark, after = text.rpartition("<answer>")
    return after.partition("</answer>")[0] if mark else text


def _digits(row: Row) -> str:
    return re.sub(r"\D", "", _tagged(source(row)))


def _expression(row: Row) -> str:
    text = boxed(row.text) or _tagged(row.text)
    for written, meant in (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/")):
        text = text.replace(written, meant)
    return text.partition("=")[0].strip()


def _reaches(answer: str, right: str) -> bool:
    numbers, _, target = right.partition("=")
    if len(answer) > _LONGEST or Counter(re.findall(r"\d+", answer)) != Counter(numbers.split(",")):
        return False
    try:
        return _value(answer) == int(target)
    except (ValueError, ZeroDivisionError):
        return False


def _value(text: str) -> Fraction:
    """The exact value of an expression of `+ - * /` and brackets; `ValueError` for what is none."""
    tokens: list[str] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(text)
        tokens.append(found[0].strip())
        at = found.end()
    value, rest = _sum(tokens, 0)
    if rest:
        raise ValueError(text)
    return value


def _sum(tokens: list[str], depth: int) -> tuple[Fraction, list[str]]:
    value, tokens = _product(tokens, depth)
    while tokens and tokens[0] in "+-":
        other, rest = _product(tokens[1:], depth)
        value, tokens = (value + other if tokens[0] == "+" else value - other), rest
    return value, tokens


def _product(tokens: list[str], depth: int) -> tuple[Fraction, list[str]]:
    value, tokens = _factor(tokens, depth)
    while tokens and tokens[0] in "*/":
        other, rest = _factor(tokens[1:], depth)
        value, tokens = (value * other if tokens[0] == "*" else value / other), rest
    return value, tokens


def _factor(tokens: list[str], depth: int) -> tuple[Fraction, list[str]]:
    if not tokens or depth > _DEEPEST:
        raise ValueError("an expression ends too early, or is too deep")
    first, *rest = tokens
    if first == "-":
        value, rest = _factor(rest, depth + 1)
        return -value, rest
    if first == "(":
        value, rest = _sum(rest, depth + 1)
        if rest[:1] != [")"]:
            raise ValueError("a bracket is open")
        return value, rest[1:]
    return Fraction(int(first)), rest

"""Tasks: problems with known answers, and what counts as right. A task is data; add one to `TASKS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.resources import files
from operator import eq
from typing import Any

import attrs

from mdsample.core.template import Template
from mdsample.models.chat import MESSAGES, Messages
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.result import Row
from mdsample.tasks import sudoku


@attrs.frozen
class Problem:
    """One problem: what goes into the template's fields, the answer, slots that are given, and a person's solution."""

    id: int | str
    texts: dict[str, str]
    answer: str
    given: dict[str, str] = attrs.field(factory=dict[str, str])
    #: text of the slot `reasoning` as a person wrote it; empty where the data has none
    reasoning: str = ""
    #: a chat in place of the fields' texts
    messages: Messages = ()


@attrs.frozen
class Task:
    """Problems that share a template, and how an answer to one is judged."""

    name: str
    #: one sentence for people
    description: str
    #: text of the template that the problems are put into
    template: str
    #: reads the problems, always in the same order
    read: Callable[[], tuple[Problem, ...]]
    #: the answer that a finished row gives
    answer: Callable[[Row], str]
    #: slots that a template must have for it
    needs: tuple[str, ...] = ("answer",)
    #: whether an answer is as good as the right one
    same: Callable[[str, str], bool] = eq
    #: slots that people see as a board, line by line
    grid: tuple[tuple[str, ...], ...] = ()
    #: ways to read an answer out of the slot `answer`, or all of the text without one; none: only `answer` reads it
    extracts: Mapping[str, Callable[[str], str]] = attrs.field(factory=dict[str, Callable[[str], str]])
    #: which of them suits a template
    suits: Callable[[Template], str] = lambda _: ""

    def correct(self, row: Row, problem: Problem) -> bool:
        """Whether a finished row solves the problem."""
        return self.same(self.answer(row), problem.answer)


def as_row(problem: Problem, answer_as: str = "{}") -> dict[str, object]:
    """The problem as a row of a file, as `run`, `traces`, `score` and `finetune` read them.

    Fields and slots stand under their names, the right answer under `answer`, written as `answer_as` says, `{}` being
    the answer, as in `" {}"`.
    """
    worked = {"reasoning": problem.reasoning} if problem.reasoning else {}
    answer = answer_as.replace("{}", problem.answer)
    chat = {MESSAGES: [dict(message) for message in problem.messages]} if problem.messages else {}
    return {"id": problem.id, **chat, **problem.texts, **problem.given, **worked, "answer": answer}


def in_answer(row: Row) -> str:
    """What the slot `answer` holds (`Row.slots` leaves out surrounding white space)."""
    return row.slots["answer"]


def source(row: Row) -> str:
    """What an answer is extracted from: the slot `answer`, or all that the model wrote where there is none."""
    return row.slots.get("answer", row.text)


def on_board(row: Row) -> str:
    """The cells of a board, row by row."""
    return "".join(row.slots.values())


@cache
def tiny_gsm_problems() -> tuple[Problem, ...]:
    """The 1,000 held-out problems that come with the package."""
    return tuple(Problem(row["id"], {"prompt": row["prompt"]}, row["answer"]) for row in _read("tiny_gsm.jsonl"))


@cache
def sudoku_puzzles(name: str) -> tuple[Problem, ...]:
    """The 500 held-out puzzles in a file of the package."""
    return tuple(Problem(row["id"], {}, row["solution"], sudoku.clues(row["puzzle"])) for row in _read(name))


def _read(name: str) -> Iterator[dict[str, Any]]:
    """JSON lines among the package's data."""
    for line in (files("mdsample") / "tasks" / "data" / name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _sudoku(name: str, n: int, kind: str, about: str) -> Task:
    names = tuple(sudoku.cells(n))
    read = partial(sudoku_puzzles, f"{name.replace('-', '_')}.jsonl")
    return Task(
        name,
        f"500 held-out {kind} Sudoku puzzles, {n} x {n}: {about}.",
        sudoku.board(n),
        read,
        on_board,
        names,
        grid=tuple(names[row : row + n] for row in range(0, n * n, n)),
    )


_ORDINARY = "naked and hidden singles solve them"
_HARD = "one solution each, which singles do not find"


#: the menu of tasks
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "tiny-gsm",
            "1,000 held-out word problems of 3 to 7 arithmetic steps, with a written-out reasoning.",
            "Question: {prompt}\nReasoning:{reasoning:96}\nAnswer:{answer:4}",
            tiny_gsm_problems,
            in_answer,
        ),
        _sudoku("sudoku6", 6, "ordinary", _ORDINARY),
        _sudoku("sudoku6-hard", 6, "hard", _HARD),
        _sudoku("sudoku", 9, "ordinary", _ORDINARY),
        _sudoku("sudoku-hard", 9, "hard", _HARD),
    )
}


def task_for(denoiser: Denoiser) -> Task | None:
    """The task that a model is made for: the first with the model's own template."""
    return task_of(denoiser.template)


def task_of(template: str) -> Task | None:
    """The first task with this template."""
    return next((task for task in TASKS.values() if task.template == template), None)

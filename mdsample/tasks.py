"""Tasks: problems with known answers, and what counts as right. A task is data; add one to `TASKS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files

import attrs

from mdsample.denoiser import Denoiser
from mdsample.result import Row


@attrs.frozen
class Problem:
    """One problem: what goes into the template's fields, and the answer."""

    id: int | str
    texts: dict[str, str]
    answer: str


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
    #: whether a finished row solves the problem
    correct: Callable[[Row, Problem], bool]


def same_answer(row: Row, problem: Problem) -> bool:
    """The slot `answer` holds the answer, character by character (`Row.slots` leaves out surrounding white space)."""
    return row.slots["answer"] == problem.answer


@cache
def tiny_gsm_problems() -> tuple[Problem, ...]:
    """The 1,000 held-out problems that come with the package."""
    return tuple(_read("tiny_gsm.jsonl"))


def _read(name: str) -> Iterator[Problem]:
    """JSON lines `id, prompt, answer` among the package's data."""
    for line in (files("mdsample") / "data" / name).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Problem(row["id"], {"prompt": row["prompt"]}, row["answer"])


#: the menu of tasks
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "tiny-gsm",
            "1,000 held-out word problems of 3 to 7 arithmetic steps, with a written-out reasoning.",
            "Question: {prompt}\nReasoning:{reasoning:96}\nAnswer:{answer:4}",
            tiny_gsm_problems,
            same_answer,
        ),
    )
}


def task_for(denoiser: Denoiser) -> Task | None:
    """The task that a model is made for: the first with the model's own template."""
    return next((task for task in TASKS.values() if task.template == denoiser.template), None)

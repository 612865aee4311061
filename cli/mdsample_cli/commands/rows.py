"""`mdsample rows`: a task's problems as the rows that other commands read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError, note
from mdsample_cli.groups import grouped
from mdsample_cli.task_option import TaskOptions


@grouped
def rows(
    task: TaskOptions,
    template: Annotated[
        str | None, Option("--template", "-t", metavar="TEXT", help="Text with the fields of a .jsonl file, or @FILE.")
    ] = None,
    wrong: Annotated[
        Path | None, Option(metavar="FILE", help="Only problems that a file of `bench --output` answers wrong.")
    ] = None,
    answer_as: options.AnswerAs = "{}",
) -> None:
    """A task's problems as JSON lines on stdout, which run, traces, score and finetune read.

    A row has the template's fields, given slots, the right answer under `answer` and, where the data has a person's
    solution (gsm8k), that under `reasoning`.
    """
    from mdsample.evaluation.answers import solved
    from mdsample.tasks.catalog import TASKS, as_row
    from mdsample_cli.show.json_line import line

    options.check_answer_as(answer_as)
    if template is not None and (task.task in TASKS or task.problems is not None):
        raise UsageError(
            "--template says which fields a .jsonl file of yours has; other tasks have their own, leave it out"
        )
    problems = task.open(template).read()
    if wrong is not None:
        right = solved(wrong, {problem.id: problem.answer for problem in problems})
        note(f"{len(right)} of {len(problems)} problems answered, {sum(right.values())} of them right")
        problems = tuple(problem for problem in problems if not right.get(problem.id, True))
    for problem in problems[: task.limit]:
        print(line(as_row(problem, answer_as)), flush=True)

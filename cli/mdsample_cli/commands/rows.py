"""`mdsample rows`: a task's problems as the rows that other commands read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdsample_cli.options import Wrong
from mdsample_cli.task_option import AnswerField, Problems, Task, open_task


def rows(
    task: Task = "tiny-gsm",
    problems: Problems = None,
    answer_field: AnswerField = "answer",
    template: Annotated[
        str | None,
        typer.Option(
            "--template", "-t", metavar="TEXT", help="Of a .jsonl file: its fields, or @FILE.", show_default=False
        ),
    ] = None,
    wrong: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Only problems that were answered wrong, by `bench --output`.", show_default=False
        ),
    ] = None,
    answer_as: Annotated[
        str, typer.Option(metavar="TEXT", help="How the right answer is written, {} being the answer, as in ' {}'.")
    ] = "{}",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N rows. Default: all.", show_default=False)
    ] = None,
) -> None:
    """A task's problems as JSON lines on stdout, which run, traces, score and finetune read.

    A row has the template's fields, given slots, the right answer under `answer`, and where the data has a person's
    solution (gsm8k) that under `reasoning`.
    """
    from mdsample.evaluation.answers import solved
    from mdsample.jobs.records import line
    from mdsample.tasks.catalog import TASKS, as_row

    if answer_as.count("{}") != 1:
        raise Wrong(f"--answer-as needs {{}} once, where the answer goes; got {answer_as!r}")
    if template is not None and (task in TASKS or problems is not None):
        raise Wrong("--template says which fields a .jsonl file of yours has; other tasks have their own, leave it out")
    some = open_task(task, problems, template, answer_field).read()
    if wrong is not None:
        judged = solved(wrong, {problem.id: problem.answer for problem in some})
        typer.echo(f"{len(judged)} of {len(some)} problems answered, {sum(judged.values())} of them right", err=True)
        some = tuple(problem for problem in some if not judged.get(problem.id, True))
    for problem in some[:limit]:
        print(line(as_row(problem, answer_as)), flush=True)

"""`mdsample bench`: accuracy against forward passes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdsample_cli import options
from mdsample_cli.options import Wrong
from mdsample_cli.task_option import OWN, AnswerField, Problems, Task, open_task

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mdsample.evaluation.bench import PolicyScore
    from mdsample.evaluation.intervals import Interval
    from mdsample.policy.base import Policy

COLUMNS = ["accuracy, %", "difference", "passes", "fewer", "tokens/pass"]
POLICIES = ("entropy+top(1)", "med", "med+early-exit")


def bench(
    task: Task = "tiny-gsm",
    problems: Problems = None,
    answer_field: AnswerField = "answer",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="POLICY",
            help="May be repeated; others are compared with the first. "
            f"Default: {', '.join(POLICIES)} (if there is a slot 'answer').",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N problems. Default: all.", show_default=False)
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            "-t",
            metavar="TEXT",
            help="The task's fields and slots in another text, of other lengths, or @FILE. Default: the task's own.",
            show_default=False,
        ),
    ] = None,
    chat: options.Chat = None,
    system: options.System = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="An embedded model, a folder, or a hub id; may be repeated. Default: the task's own, or tiny-gsm.",
            show_default=False,
        ),
    ] = None,
    revision: options.Revision = None,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    cache: options.Cache = "none",
    compile: options.Compile = False,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Keep every answer as a JSON line; run again to resume.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw accuracy against passes (.svg, .png or .pdf).", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Accuracy and forward passes of policies on the same problems, with 95 % intervals.

    With --json one object per model and policy, as soon as it is known.
    """
    from mdsample.backend.load import load
    from mdsample.core.template import Template
    from mdsample.evaluation.answers import Answers
    from mdsample.evaluation.bench import bench as scores_of
    from mdsample.jobs.records import line
    from mdsample.policy.parsing import parse
    from mdsample_cli.show import render
    from mdsample_cli.show.picture import check, draw
    from mdsample_cli.show.screens import bar

    chosen = open_task(task, problems, template, answer_field)
    models = model or [OWN.get(chosen.name, options.MODEL)]
    options.apart(problems=problems, output=output, plot=plot)
    if plot is not None:
        check(plot)
    layouts = [options.open_template(template, name, revision, chat, system, chosen.template) for name in models]
    # early-exit waits for an answer; boards have none
    answers_in_all = all("answer" in (layout or Template.parse(chosen.template)).slots for layout in layouts)
    policies = [parse(text) for text in policy or (POLICIES if answers_in_all else POLICIES[:-1])]
    if twice := [str(p) or "defaults" for p in policies if policies.count(p) > 1]:
        raise Wrong(f"{twice[0]} is there twice, perhaps by another name; leave one --policy out")
    total = len(chosen.read()) if limit is None else limit
    found: list[PolicyScore] = []
    told = [str(p) or "defaults" for p in policies]
    with ExitStack() as stack:
        answers = None if output is None else stack.enter_context(Answers(output))
        try:
            for name, layout in zip(models, layouts, strict=True):
                denoiser = load(
                    name, backend, revision=revision, device=device, dtype=dtype, cache=cache, compile=compile
                )
                with bar() as progress:
                    tracks = {p: progress.add_task(text, total=total) for p, text in zip(policies, told, strict=True)}

                    def watch(
                        policy: Policy, done: int, tracks: dict[Policy, TaskID] = tracks, progress: Progress = progress
                    ) -> None:
                        progress.update(tracks[policy], completed=done)

                    for score in scores_of(
                        denoiser,
                        chosen,
                        policies,
                        template=layout,
                        limit=limit,
                        seed=seed,
                        batch_size=batch_size,
                        answers=answers,
                        revision=revision,
                        watch=watch,
                    ):
                        found.append(score)
                        if json:
                            print(line(score.record()), flush=True)
        finally:  # an interrupt does not take away what is known
            if not json:
                out = render.console(width=render.WIDEST)
                for start in range(0, len(found), len(policies)):
                    some = found[start : start + len(policies)]
                    rows = [_row(text, score, score is some[0]) for text, score in zip(told, some, strict=False)]
                    first = some[0]
                    said = f"{task}, {total} problems; {first.model} on {first.backend}, seed {seed}; 95 % intervals\n"
                    render.show(out, said)
                    render.show(
                        out, render.table(["accuracy, %", "difference", "passes", "fewer", "tokens/pass"], rows)
                    )
        if plot is not None and found:
            draw(found, told, plot)


def _row(policy: str, score: PolicyScore, first: bool) -> list[str]:
    return [
        policy,
        _interval(score.accuracy, 100),
        "" if first else _interval(score.difference, 100, "+"),
        f"{score.nfe.value:.1f} ± {score.nfe.high - score.nfe.value:.1f}",
        f"{score.nfe_ratio:.2f}",
        f"{score.tokens_per_forward:.2f}",
    ]


def _interval(interval: Interval, scale: float, sign: str = "") -> str:
    value, low, high = (f"{scale * x:{sign}.1f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"

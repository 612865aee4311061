"""`mdsample bench`: accuracy against forward passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mdsample_cli import shared
from mdsample_cli.shared import Wrong

if TYPE_CHECKING:
    from mdsample.bench import Interval

POLICIES = ("entropy+top(1)", "med", "med+early-exit")


def bench(
    task: Annotated[str, typer.Option(metavar="NAME", help="The problems.")] = "tiny-gsm",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="POLICY",
            help=f"May be repeated; others are compared with the first. Default: {', '.join(POLICIES)}.",
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
    chat: shared.Chat = None,
    system: shared.System = None,
    model: shared.Model = shared.MODEL,
    revision: shared.Revision = None,
    backend: shared.Backend = "auto",
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    cache: shared.Cache = "none",
    compile: shared.Compile = False,
    seed: shared.Seed = 0,
    batch_size: shared.BatchSize = 16,
    json: shared.Json = False,
) -> None:
    """Accuracy and forward passes of policies on the same problems, with 95 % intervals.

    With --json one object per policy, as soon as it is known.
    """
    from mdsample import bench as benchmark
    from mdsample.loading import load
    from mdsample.policy import Policy
    from mdsample.records import line
    from mdsample.spec import parse
    from mdsample.tasks import TASKS
    from mdsample_cli import render
    from mdsample_cli.screens import bar

    if task not in TASKS:
        raise Wrong(f"there is no task {task!r}; there are: {', '.join(TASKS)}")
    policies = [parse(text) for text in policy or POLICIES]
    layout = shared.open_template(template, model, revision, chat, system, TASKS[task].template)
    denoiser = load(model, backend, revision=revision, device=device, dtype=dtype, cache=cache, compile=compile)
    total = len(TASKS[task].read()) if limit is None else limit
    rows: list[list[str]] = []
    try:
        with bar() as progress:
            tracks = {p: progress.add_task(str(p) or "defaults", total=total) for p in policies}

            def watch(policy: Policy, done: int) -> None:
                progress.update(tracks[policy], completed=done)

            scores = benchmark.bench(
                denoiser,
                TASKS[task],
                policies,
                template=layout,
                limit=limit,
                seed=seed,
                batch_size=batch_size,
                watch=watch,
            )
            for chosen, score in zip(policies, scores, strict=True):
                if json:
                    print(line(score.record()), flush=True)
                rows.append(
                    [
                        str(chosen) or "defaults",
                        _interval(score.accuracy, 100),
                        _interval(score.difference, 100, "+") if rows else "",
                        f"{score.nfe.value:.1f} ± {score.nfe.high - score.nfe.value:.1f}",
                        f"{score.nfe_ratio:.2f}",
                        f"{score.tokens_per_forward:.2f}",
                    ]
                )
    finally:  # an interrupt does not take away what is known
        if rows and not json:
            out = render.console(width=render.WIDEST)
            render.show(
                out, f"{task}, {total} problems; {denoiser.name} on {denoiser.backend}, seed {seed}; 95 % intervals\n"
            )
            render.show(out, render.table(["accuracy, %", "difference", "passes", "fewer", "tokens/pass"], rows))


def _interval(interval: Interval, scale: float, sign: str = "") -> str:
    value, low, high = (f"{scale * x:{sign}.1f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"

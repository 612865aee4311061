"""`mdsample calibrate`: the cheapest setting of a policy within a stated loss."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdsample_cli import options
from mdsample_cli.options import Wrong
from mdsample_cli.task_option import OWN, AnswerField, Problems, Task, open_task

if TYPE_CHECKING:
    from mdsample.evaluation.calibrate import Kind, Tried
    from mdsample.policy.base import Policy

_WORDS = {"accuracy": "accuracy lost, %", "agreement": "other answers, %", "error-bound": "error bound, nats"}


def calibrate(
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="Its text with ? for the number to be found, as in 'med(?)'.")
    ],
    accuracy_loss: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="At most so much less accurate, as 0.02.", show_default=False),
    ] = None,
    disagreement: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="At most so many answers differ, as 0.05.", show_default=False
        ),
    ] = None,
    error_bound: Annotated[
        float | None,
        typer.Option(min=0, metavar="NATS", help="At most this mean error bound of a row.", show_default=False),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Settings to try, safest first, as 0.05,0.1,0.2.", show_default=False),
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="POLICY", help="What accuracy and answers are compared with.")
    ] = "entropy+top(1)",
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, metavar="P", help="How sure it must be that the loss is kept.")
    ] = 0.95,
    task: Task = "tiny-gsm",
    problems: Problems = None,
    answer_field: AnswerField = "answer",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N problems. Default: all.", show_default=False)
    ] = None,
    template: options.Layout = None,
    chat: options.Chat = None,
    system: options.System = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Default: the task's own, or tiny-gsm.", show_default=False),
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
            "--output", "-o", metavar="FILE", help="Keep every answer; run again to resume.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
) -> int:
    """The cheapest setting of a policy that keeps a stated loss, on your model and your problems.

    Settings are tried from the safest on, until one cannot be shown to keep the loss. Prints the policy's text; exit
    code 1 if not even the safest setting keeps it. Without --accuracy-loss a file needs no right answers.
    """
    from mdsample.backend.load import load
    from mdsample.evaluation.answers import Answers
    from mdsample.evaluation.bench import Runs
    from mdsample.evaluation.calibrate import Loss, settings
    from mdsample.evaluation.calibrate import calibrate as tries
    from mdsample.jobs.records import line
    from mdsample.policy.parsing import parse
    from mdsample_cli.show import render
    from mdsample_cli.show.screens import bar

    allowed: dict[Kind, float | None] = {
        "accuracy": accuracy_loss,
        "agreement": disagreement,
        "error-bound": error_bound,
    }
    asked: list[tuple[Kind, float]] = [(kind, most) for kind, most in allowed.items() if most is not None]
    if len(asked) != 1:
        raise Wrong("say what may be lost, once: --accuracy-loss 0.02, --disagreement 0.05 or --error-bound 1")
    loss = Loss(*asked[0], confidence)
    candidates = settings(policy, None if values is None else _numbers(values))
    base = parse(reference)
    chosen = open_task(task, problems, template, answer_field if loss.kind == "accuracy" else None)
    options.apart(problems=problems, output=output)
    name = model or OWN.get(chosen.name, options.MODEL)
    layout = options.open_template(template, name, revision, chat, system, chosen.template)
    chosen.read()
    denoiser = load(name, backend, revision=revision, device=device, dtype=dtype, cache=cache, compile=compile)
    found: list[Tried] = []
    with ExitStack() as stack:
        answers = None if output is None else stack.enter_context(Answers(output))
        runs = Runs.of(denoiser, chosen, layout, limit, seed, batch_size, answers, revision)
        progress = stack.enter_context(bar())
        track = progress.add_task(reference, total=len(runs.problems))

        def watch(policy: Policy, done: int) -> None:
            progress.update(track, completed=done, description=str(policy))

        for one in tries(runs, base, candidates, loss, watch):
            found.append(one)
            if json:
                told = {"policy": str(one.policy), "value": one.value, "nfe": one.nfe.value, "loss": one.loss}
                print(line({**told, "limit": one.limit, "kept": one.kept}), flush=True)
    kept = [one for one in found if one.kept]
    if not json:
        scale = 1 if loss.kind == "error-bound" else 100
        rows = [
            [str(one.policy), f"{one.nfe.value:.1f}", f"{scale * one.loss:.2f}", f"{scale * one.limit:.2f}", _said(one)]
            for one in found
        ]
        out = render.console(width=render.WIDEST)
        render.show(out, f"{task}, {len(runs.problems)} problems; {denoiser.name} on {denoiser.backend}, seed {seed}\n")
        render.show(out, render.table(["passes", _WORDS[loss.kind], f"at most ({confidence:.0%})", ""], rows))
        last = f"\n{kept[-1].policy}" if kept else "\nno setting keeps it: give more problems, or allow more"
        render.show(out, render.plain(last))
    return 0 if kept else 1


def _said(one: Tried) -> str:
    return "kept" if one.kept else "not shown to be kept"


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as fault:
        raise Wrong(
            f"--values takes numbers with commas between, safest first, as 0.05,0.1,0.2; got {text!r}"
        ) from fault

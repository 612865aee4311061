"""`mdsample calibrate`: the cheapest setting of a policy within a stated loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import attrs
from typer import Argument, Option

from mdsample_cli import options
from mdsample_cli.crew_option import CrewOptions
from mdsample_cli.errors import UsageError
from mdsample_cli.files import require_distinct
from mdsample_cli.groups import Without, grouped
from mdsample_cli.task_option import TaskModel, TaskOptions, default_model

if TYPE_CHECKING:
    from mdsample.evaluation.calibrate import Kind, Loss, Trial

_HEADINGS = {
    "accuracy": "accuracy lost, %",
    "agreement": "other answers, %",
    "error-bound": "error bound, nats",
    "total-variation": "total variation bound, %",
}


@grouped
def calibrate(
    *,
    task: TaskOptions,
    template: options.TemplateOptions,
    model: TaskModel = None,
    runtime: Annotated[options.ModelOptions, Without("model")],
    several: CrewOptions,
    policy: Annotated[
        str, Argument(metavar="POLICY", help="Its text with ? for the number to be found, as in 'med(?)'.")
    ],
    accuracy_loss: Annotated[
        float | None, Option(min=0, max=1, metavar="SHARE", help="Lose at most this much accuracy, as 0.02.")
    ] = None,
    disagreement: Annotated[
        float | None, Option(min=0, max=1, metavar="SHARE", help="Change at most this share of answers, as 0.05.")
    ] = None,
    error_bound: Annotated[
        float | None, Option(min=0, metavar="NATS", help="Keep a row's mean error bound at most this.")
    ] = None,
    total_variation: Annotated[
        float | None,
        Option(min=0, max=1, metavar="SHARE", help="Keep the mean bound on total variation at most this, as 0.05."),
    ] = None,
    values: Annotated[
        str | None, Option(metavar="LIST", help="Settings to try, safest first, as 0.05,0.1,0.2.")
    ] = None,
    reference: Annotated[
        str, Option(metavar="POLICY", help="The policy that accuracy and answers are compared with.")
    ] = "entropy+top(1)",
    confidence: Annotated[
        float, Option(min=0.5, max=0.999, metavar="P", help="Confidence that the loss is kept.")
    ] = 0.95,
    output: options.AnswersFile = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    json: options.JsonLines = False,
) -> int:
    """The cheapest setting of a policy that keeps a stated loss, on your model and your problems.

    Settings are tried from the safest on, until one cannot be certified to keep the loss. Prints the policy's text;
    exit code 1 if not even the safest setting is certified. Without --accuracy-loss a file needs no right answers.
    """
    from mdsample.evaluation.answers import Answers
    from mdsample.evaluation.bench import Runs
    from mdsample.evaluation.calibrate import calibrate as trials
    from mdsample.evaluation.calibrate import settings
    from mdsample.jobs.parquet import as_lines
    from mdsample_cli.show.json_line import line
    from mdsample_cli.show.screens import Bars, bar

    several.check(runtime)
    loss = _loss(accuracy_loss, disagreement, error_bound, total_variation, confidence)
    candidates = settings(policy, None if values is None else _numbers(values))
    base = options.policy_of(reference, "--reference", "leave the option out")
    problems = task.open(template.template, answers=loss.kind == "accuracy")
    require_distinct(problems=task.problems, output=output)
    on = attrs.evolve(runtime, model=model or default_model(problems))
    layout = template.open(on.model, on.revision, problems.template)
    problems.read()
    with several.opened(on) as (denoiser, crew):
        tried: list[Trial] = []
        with ExitStack() as stack:
            answers = None if output is None else stack.enter_context(Answers(stack.enter_context(as_lines(output))))
            chats = template.chats(denoiser.tokenizer, denoiser.name, denoiser.template, problems.template)
            runs = Runs.of(
                denoiser, problems, layout, task.limit, seed, batch_size, answers, on.revision, chats, crew=crew
            )
            progress = stack.enter_context(bar())
            names = [reference, *(policy.replace("?", f"{value:g}") for value, _ in candidates)]
            bars = Bars(progress, [base, *(candidate for _, candidate in candidates)], names, len(runs.problems))
            for trial in trials(runs, base, candidates, loss, bars.count, bars.see):
                tried.append(trial)
                if json:
                    print(line(_record(trial)), flush=True)
    if not json:
        title = f"{task.task}, {len(runs.problems)} problems; {denoiser.name} on {denoiser.backend}, seed {seed}"
        _show(title, policy, loss, tried)
    return 0 if any(trial.kept for trial in tried) else 1


def _loss(
    accuracy: float | None, disagreement: float | None, nats: float | None, variation: float | None, confidence: float
) -> Loss:
    """The one loss that is given."""
    from mdsample.evaluation.calibrate import Loss

    limits: dict[Kind, float | None] = {
        "accuracy": accuracy,
        "agreement": disagreement,
        "error-bound": nats,
        "total-variation": variation,
    }
    given: list[tuple[Kind, float]] = [(kind, limit) for kind, limit in limits.items() if limit is not None]
    if len(given) != 1:
        raise UsageError(
            "say what may be lost, once: --accuracy-loss 0.02, --disagreement 0.05, --total-variation 0.05 or "
            "--error-bound 1"
        )
    return Loss(*given[0], confidence)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--values takes numbers with commas between, safest first, as 0.05,0.1,0.2; got {text!r}"
        ) from error


def _record(trial: Trial) -> dict[str, object]:
    loss = {"loss": trial.loss, "limit": trial.limit, "kept": trial.kept}
    return {"policy": str(trial.policy), "value": trial.value, "nfe": trial.nfe.value, **loss}


def _named(text: str, trial: Trial) -> str:
    """The policy as it was typed, with the setting in its place."""
    return text.replace("?", f"{trial.value:g}")


def _show(title: str, text: str, loss: Loss, tried: Sequence[Trial]) -> None:
    from mdsample_cli.show import render

    scale = 1 if loss.kind == "error-bound" else 100
    rows = [
        [
            _named(text, trial),
            f"{trial.nfe.value:.1f}",
            f"{scale * trial.loss:.2f}",
            f"{scale * trial.limit:.2f}",
            "kept" if trial.kept else "not certified",
        ]
        for trial in tried
    ]
    kept = [trial for trial in tried if trial.kept]
    out = render.console(width=render.WIDEST)
    render.show(out, f"{title}\n")
    render.show(out, render.table(out, ["NFE", _HEADINGS[loss.kind], f"at most ({loss.confidence:.0%})", ""], rows))
    last = f"\n{_named(text, kept[-1])}" if kept else "\nno setting keeps it: give more problems, or allow more"
    render.show(out, render.plain(last))

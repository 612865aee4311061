"""`mdsample bench`: accuracy against forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from typer import Option

from mdsample_cli import options
from mdsample_cli.crew_option import CrewOptions
from mdsample_cli.errors import Interrupted, UsageError
from mdsample_cli.files import require_distinct, require_plot
from mdsample_cli.groups import Without, grouped
from mdsample_cli.task_option import TaskOptions, default_model

if TYPE_CHECKING:
    from mdsample.core.template import Template
    from mdsample.evaluation.bench import PolicyScore
    from mdsample.evaluation.intervals import Interval
    from mdsample.policy.base import Policy

POLICIES = ("entropy+top(1)", "med", "med+early-exit")


@grouped
def bench(
    *,
    task: TaskOptions,
    template: options.TemplateOptions,
    model: Annotated[
        list[str] | None,
        Option(
            "--model",
            "-m",
            metavar="NAME",
            help="An embedded model, a folder, or a hub id; may be repeated. Default: the task's own, or tiny-gsm.",
            rich_help_panel=options.ModelOptions.panel,
        ),
    ] = None,
    runtime: Annotated[options.ModelOptions, Without("model")],
    several: CrewOptions,
    policy: Annotated[
        list[str] | None,
        Option(
            "--policy",
            "-p",
            metavar="POLICY",
            help="May be repeated; others are compared with the first. "
            f"Default: {', '.join(POLICIES)} (if there is a slot 'answer').",
        ),
    ] = None,
    extract: Annotated[
        str | None,
        Option(
            metavar="WAY",
            help="How gsm8k's answers are read: first, last, marked or strict. Default: first in a short slot 'answer' "
            "beside another one, else marked.",
        ),
    ] = None,
    output: options.AnswersFile = None,
    plot: Annotated[
        Path | None, Option(metavar="FILE", help="Draw accuracy against passes (.svg, .png or .pdf).")
    ] = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    speculate: options.Speculate = None,
    json: options.JsonLines = False,
) -> None:
    """Accuracy and forward passes of policies on the same problems, with 95 % intervals.

    With --json one object per model and policy, as soon as it is known.
    """
    from mdsample.evaluation.answers import Answers
    from mdsample.evaluation.bench import bench as scores_of
    from mdsample.jobs.parquet import as_lines
    from mdsample_cli.show.json_line import line
    from mdsample_cli.show.picture import draw
    from mdsample_cli.show.screens import Bars, bar

    guess = options.speculation_of(speculate)
    problems = task.open(template.template)
    if extract is not None and extract not in problems.extracts:
        ways = ", ".join(problems.extracts)
        told = f"takes one of {ways}; got {extract!r}" if ways else f"is for gsm8k; leave it out with {task.task}"
        raise UsageError(f"--extract {told}")
    models = [attrs.evolve(runtime, model=name) for name in model or [default_model(problems)]]
    require_distinct(problems=task.problems, output=output, plot=plot)
    several.check(runtime)
    require_plot(plot, (".svg", ".png", ".pdf"), "takes a file that ends in .svg, .png, .pdf")
    layouts = [template.open(on.model, on.revision, problems.template) for on in models]
    names, policies = _policies(policy, layouts)
    total = len(problems.read()) if task.limit is None else task.limit
    scores: list[PolicyScore] = []
    with ExitStack() as stack:
        answers = None if output is None else stack.enter_context(Answers(stack.enter_context(as_lines(output))))
        try:
            stack.enter_context(several.joined())
            for on, layout in zip(models, layouts, strict=True):
                with several.opened(on) as (denoiser, crew), bar() as progress:
                    bars = Bars(progress, policies, names, total)
                    for score in scores_of(
                        denoiser,
                        problems,
                        policies,
                        template=layout,
                        limit=task.limit,
                        seed=seed,
                        batch_size=batch_size,
                        answers=answers,
                        revision=runtime.revision,
                        extract=extract,
                        chats=template.chats(denoiser.tokenizer, denoiser.name, denoiser.template, problems.template),
                        watch=bars.count,
                        on_step=bars.see,
                        speculate=guess,
                        crew=crew,
                    ):
                        scores.append(score)
                        if json:
                            print(line(score.record()), flush=True)
        except KeyboardInterrupt:
            kept = "run the same command again to resume" if output else "with --output FILE it would resume"
            raise Interrupted(kept) from None
        finally:  # also what an interrupted bench has computed
            if not json:
                for start in range(0, len(scores), len(policies)):
                    _show(f"{task.task}, {total} problems", names, scores[start : start + len(policies)])
        if plot is not None and scores:
            draw(scores, names, plot)


def _policies(texts: Sequence[str] | None, layouts: Sequence[Template]) -> tuple[list[str], list[Policy]]:
    """These texts and their policies, or the usual ones; all different."""
    if not texts:
        # early-exit waits for an answer; boards have none
        has_answer = all("answer" in layout.slots for layout in layouts)
        texts = POLICIES if has_answer else POLICIES[:-1]
    policies = [options.policy_of(text, "--policy", "leave the option out") for text in texts]
    if repeated := [str(policy) or "defaults" for policy in policies if policies.count(policy) > 1]:
        raise UsageError(f"{repeated[0]} is there twice, perhaps by another name; leave one --policy out")
    return [text.strip() for text in texts], policies


def _show(problems: str, names: Sequence[str], scores: Sequence[PolicyScore]) -> None:
    """The table of one model; `scores` may end early."""
    from mdsample_cli.show import render

    first = scores[0]
    rows = [_row(name, score, score is first) for name, score in zip(names, scores, strict=False)]
    out = render.console(width=render.WIDEST)
    guessed = f", {first.speculate} guessed" if first.speculate else ""
    render.show(out, f"{problems}; {first.model} on {first.backend}, seed {first.seed}{guessed}; 95 % intervals\n")
    rounds = ["rounds"] if first.speculate else []
    columns = ["accuracy, %", "difference", "NFE", *rounds, "speed-up", "tokens/pass"]
    render.show(out, render.table(out, columns, rows))


def _row(policy: str, score: PolicyScore, first: bool) -> list[str]:
    costs = (score.nfe, score.rounds) if score.speculate else (score.nfe,)
    return [
        policy,
        _interval(score.accuracy, 100),
        "" if first else _interval(score.difference, 100, "+"),
        *(f"{of.value:.1f} ± {of.high - of.value:.1f}" for of in costs),
        f"{score.nfe_ratio:.2f}",
        f"{score.tokens_per_forward:.2f}",
    ]


def _interval(interval: Interval, scale: float, sign: str = "") -> str:
    value, low, high = (f"{scale * x:{sign}.1f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"

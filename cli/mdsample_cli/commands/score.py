"""`mdsample score`: how probable texts are in a slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from typer import Option

from mdsample_cli import options
from mdsample_cli.crew_option import CrewOptions
from mdsample_cli.errors import Interrupted, UsageError, note, told
from mdsample_cli.files import require_distinct
from mdsample_cli.groups import Without, grouped

if TYPE_CHECKING:
    from mdsample.core.template import Template
    from mdsample.jobs.crew import Crew
    from mdsample.jobs.records import Request
    from mdsample.jobs.scores import ScoreJob
    from mdsample.scoring.methods import Method

METHODS = ("chain", "marginals", "bound")
SAMPLES = 128
SLOT = "answer"


@grouped
def score(
    template: options.TemplateOptions,
    rows: options.InputOptions,
    model: Annotated[options.ModelOptions, Without("compile")],
    several: CrewOptions,
    prompt: options.Prompt = None,
    output: options.Records = None,
    choices: Annotated[
        list[str] | None,
        Option(
            metavar="TEXT,TEXT", help="The texts to score, verbatim, spaces too; or SLOT=TEXT,TEXT, once for each slot."
        ),
    ] = None,
    choices_from: Annotated[
        str | None,
        Option(
            metavar="KEY", help="Instead: the key of a list of texts, or of slots with lists, in each row of --input."
        ),
    ] = None,
    slot: Annotated[str, Option(metavar="NAME", help="The slot that the texts are scored in.")] = SLOT,
    method: Annotated[
        str,
        Option(
            metavar="NAME",
            help="chain: a pass for each token. marginals: one pass, as if independent. bound: LLaDA's Monte Carlo.",
        ),
    ] = "chain",
    order: Annotated[
        str, Option(metavar="ORDER", help="Order of the tokens in the chain rule, as in a policy.")
    ] = "left-to-right",
    samples: Annotated[int, Option(min=2, metavar="N", help="Monte Carlo samples (--method bound).")] = SAMPLES,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    json: options.JsonRows = False,
    trace: Annotated[str | None, Option(hidden=True)] = None,
) -> int:
    """Log-probabilities of whole texts in a slot, in nats; other slots stay blank unless they are filled.

    The rest of the slot after a text is scored as end tokens. With --choices by slot, all these slots are read while
    blank, in one pass with --method marginals, and the mass outside their texts is told too. Exit code 1 if a row could
    not be scored.
    """
    if trace is not None:
        raise UsageError(f"score does not read traces; use: mdsample judge {trace}")
    if method != "chain" and order != "left-to-right":
        raise UsageError(f"--order is that of the chain rule; with --method {method} leave it out")
    if method != "bound" and samples != SAMPLES:
        raise UsageError(f"--samples are those of the bound; with --method {method} leave it out")
    if (prompt is None) == (rows.input is None):
        raise UsageError("give a PROMPT, or --input with rows; one of them")
    if (choices is None) == (choices_from is None):
        raise UsageError("give --choices, or --choices-from with a key of the rows; one of them")
    if choices_from is not None and rows.input is None:
        raise UsageError("--choices-from takes a key of the rows of --input; with a PROMPT say --choices")
    if output is not None and rows.input is None:
        raise UsageError("--output is for the rows of --input; leave it out, or give rows")
    how = _method(method, order, samples, seed)
    rows.check()
    several.check(model)
    several.check_output(output)
    require_distinct(input=rows.input, output=output)
    from mdsample.jobs.job import request_of
    from mdsample.jobs.scores import NO_BOUND, ScoreJob

    with several.crew(model) as crew:
        layout, denoiser, chats = template.open_with(model, None if crew is None else crew.model)
        texts, labels = _asked(layout, choices or [], slot)
        layout.check_given(({slot: ""} if texts else {}) | rows.in_every_row | rows.from_rows)
        many = rows.read(layout, choices=choices_from)
        requests = many or [attrs.evolve(request_of(layout, prompt or ""), given=rows.in_every_row)]
        if any(request.choices for request in requests):
            layout.check_given({slot: ""})
        if (labels or any(request.labels for request in requests)) and method == "bound":
            raise UsageError(NO_BOUND)
        job = ScoreJob(
            denoiser,
            layout,
            chats=chats,
            slot=slot,
            method=how,
            seed=seed,
            batch_size=batch_size,
            texts=texts,
            labels=labels,
            revision=model.revision,
        )
        try:
            if output is None:
                return int(_show(job, requests, many is not None, json))
            return int(_write(job, crew, requests, output))
        except KeyboardInterrupt:
            raise Interrupted("" if output is None else options.RESUME) from None


def _show(job: ScoreJob, requests: Iterable[Request], many: bool, json: bool) -> bool:
    """Prints scores, or records of them; whether a row failed."""
    from mdsample_cli.show import decisions, render
    from mdsample_cli.show.json_line import line

    out, failed = render.console(), False
    for request, scores in job.answers(requests):
        if isinstance(scores, str):
            if not many:
                raise UsageError(scores)
            failed = True
            said = line({"id": request.id, "error": scores}) if json else told(f"{request.id}: {scores}")
            typer.echo(said, err=not json)
        elif json:
            print(line(job.record(request, scores)), flush=True)
        else:
            model, passes = job.denoiser, render.count(scores.nfe, "forward pass", "es")
            title = f"{request.id}\n" if many else ""
            render.show(out, f"{title}{model.name} on {model.backend}; {job.method}; {passes}\n")
            render.show(out, *decisions.tables(out, scores))
    return failed


def _write(job: ScoreJob, crew: Crew | None, requests: Iterable[Request], output: Path) -> bool:
    """Writes records, also to resume from; whether a row failed."""
    from mdsample.jobs.crew import records
    from mdsample.jobs.parquet import as_lines
    from mdsample.jobs.records import Output
    from mdsample_cli.show.screens import bar

    failed = False
    with as_lines(output) as lines, Output(lines, job.fingerprint) as file, bar() as progress:
        left = file.left(job.asking_all(requests))
        if left.answered:
            note(f"{output} already has {left.answered} of {left.total} rows")
        task = progress.add_task("rows", total=len(left), pace="")
        for record in job.records(left) if crew is None else records(crew, job, left):
            failed |= "error" in record
            file.write(record)
            progress.advance(task)
    return failed


def _asked(layout: Template, choices: Sequence[str], slot: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The texts of `--choices`, or its labels by slot; a text alone may hold an = of its own."""
    parted = [choice.partition("=") for choice in choices]
    if len(choices) == 1 and not (parted[0][1] and parted[0][0] in layout.slots):
        return tuple(choices[0].split(",")), {}
    labels: dict[str, tuple[str, ...]] = {}
    for choice, (name, equals, texts) in zip(choices, parted, strict=True):
        if not equals or name not in layout.slots:
            raise UsageError(
                f"several --choices take SLOT=TEXT,TEXT each; got {choice!r:.60}; slots here: {', '.join(layout.slots)}"
            )
        if name in labels:
            raise UsageError(f"--choices sets slot {name!r} twice; keep one")
        labels[name] = tuple(texts.split(","))
    if labels and slot != SLOT:
        raise UsageError(f"--slot is for texts without a slot; leave it out, or say --choices {slot}=TEXT,TEXT")
    return (), labels


def _method(name: str, order: str, samples: int, seed: int) -> Method:
    from mdsample.policy.order import Order
    from mdsample.policy.parsing import parse
    from mdsample.scoring.methods import ChainRule, MarginalProduct, MonteCarloBound

    match name:
        case "chain":
            match parse(order).parts:
                case [Order() as part]:
                    return ChainRule(part, seed=seed)
                case _:
                    raise UsageError(
                        f"--order takes one order, as in 'left-to-right', 'entropy' or 'random'; got {order!r}"
                    )
        case "marginals":
            return MarginalProduct()
        case "bound":
            return MonteCarloBound(samples, seed=seed)
        case _:
            raise UsageError(f"there is no method {name!r}; there are: {', '.join(METHODS)}")

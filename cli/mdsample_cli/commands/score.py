"""`mdsample score`: how probable texts are in a slot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdsample_cli import options
from mdsample_cli.commands.judge import judge_trace
from mdsample_cli.options import Wrong

if TYPE_CHECKING:
    from mdsample.core.template import Template
    from mdsample.jobs.records import Record, Request
    from mdsample.models.denoiser import Denoiser
    from mdsample.scoring.score import Method, Scores

METHODS = ("chain", "marginals", "bound")
SAMPLES = 128
#: columns of a bar for a share of 1
_BAR = 24


def score(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What goes into the template's field.", show_default=False)
    ] = None,
    choices: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT,TEXT", help="The texts to score, as they are written, spaces too.", show_default=False
        ),
    ] = None,
    choices_from: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="A list of texts in each row of --input instead.", show_default=False),
    ] = None,
    slot: Annotated[str, typer.Option(metavar="NAME", help="The slot they might stand in.")] = "answer",
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Judge the reasonings of `run --trace` instead, part by part.", show_default=False
        ),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="With --trace: asked for. Default: what each gave.", show_default=False),
    ] = None,
    by: Annotated[str, typer.Option(metavar="WAY", help="With --trace: sentence, step or token.")] = "sentence",
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="chain: a pass for each token. marginals: one pass, as if independent. bound: LLaDA's Monte Carlo.",
        ),
    ] = "chain",
    order: Annotated[
        str, typer.Option(metavar="ORDER", help="Of the chain rule: an order as in a policy.")
    ] = "left-to-right",
    samples: Annotated[int, typer.Option(min=2, metavar="N", help="Of the bound.")] = SAMPLES,
    input: Annotated[
        str | None, typer.Option("--input", "-i", metavar="FILE", help="Rows, as for run; - is stdin.")
    ] = None,
    fill: options.Fill = None,
    fill_from: options.FillFrom = None,
    template: options.Layout = None,
    chat: options.Chat = None,
    system: options.System = None,
    model: options.Model = options.MODEL,
    revision: options.Revision = None,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    cache: options.Cache = "none",
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object a row on stdout.")] = False,
) -> int:
    """Log-probabilities of whole texts in a slot, in nats; other slots stay blank unless they are filled.

    The rest of the slot after a text is scored as end tokens. Exit code 1 if a row could not be scored. With --trace:
    log p(answer) before and after each part of a recorded reasoning, and where it falls the most.
    """
    if trace is not None:
        if prompt is not None or input is not None or choices is not None or choices_from is not None:
            raise Wrong("--trace is judged by itself; leave out the prompt, --input and choices")
        said = {"--fill": fill, "--fill-from": fill_from, "--template": template, "--chat": chat, "--system": system}
        if unread := [name for name, value in said.items() if value is not None and value != []]:
            raise Wrong(f"--trace brings its own template and slots; leave out {', '.join(unread)}")
        if (method, order, samples) != ("chain", "left-to-right", SAMPLES):
            raise Wrong(
                "--trace is judged by the chain rule from left to right; leave out --method, --order, --samples"
            )
        judge_trace(trace, answer, by, slot, model, revision, backend, device, dtype, cache, batch_size, json)
        return 0
    if answer is not None:
        raise Wrong("--answer goes with --trace; texts to score are --choices")
    if by != "sentence":
        raise Wrong(f"--by {by} parts the reasoning of a --trace; leave it out")
    if method != "chain" and order != "left-to-right":
        raise Wrong(f"--order is that of the chain rule; with --method {method} leave it out")
    if method != "bound" and samples != SAMPLES:
        raise Wrong(f"--samples are those of the bound; with --method {method} leave it out")
    if (prompt is None) == (input is None):
        raise Wrong("give a PROMPT, or --input with rows; one of them")
    if (choices is None) == (choices_from is None):
        raise Wrong("give --choices, or --choices-from with a key of the rows; one of them")
    if choices_from is not None and input is None:
        raise Wrong("--choices-from takes a key of the rows of --input; with a PROMPT say --choices")
    how = _method(method, order, samples, seed)
    everywhere, by_row = options.open_fills(fill, fill_from, input)
    from attrs import evolve

    from mdsample.backend.load import load
    from mdsample.core.template import Template
    from mdsample.jobs.job import request_of
    from mdsample.jobs.records import line, read_requests
    from mdsample_cli.show import render

    asked = options.open_template(template, model, revision, chat, system)
    denoiser = load(model, backend, revision=revision, device=device, dtype=dtype, cache=cache)
    layout = Template.parse(denoiser.template) if asked is None else asked
    layout.check_given({slot: ""} | everywhere | by_row)
    if prompt is not None:
        requests = [evolve(request_of(layout, prompt), given=everywhere)]
    else:
        read = read_requests(options.read_bytes(str(input)), layout, str(input), by_row, choices_from)
        requests = [evolve(request, given={**everywhere, **request.given}) for request in read]
    if choices is not None:
        texts = tuple(choices.split(","))
        requests = [evolve(request, choices=texts) for request in requests]
    out, failed = render.console(), False
    for request, found in _scored(denoiser, layout, requests, slot, how, batch_size):
        if isinstance(found, str):
            if input is None:
                raise Wrong(found)
            failed = True
            typer.echo(line({"id": request.id, "error": found}) if json else f"{request.id}: {found}", err=not json)
        elif json:
            print(line(_record(denoiser, layout, request, found, str(how), seed)), flush=True)
        else:
            title = "" if input is None else f"{request.id}\n"
            render.show(out, title + f"{denoiser.name} on {denoiser.backend}; {how}; {found.nfe} forward passes\n")
            render.show(out, render.table(["log p, nats", "share", ""], _rows(found), first=slot))
    return int(failed)


def _method(name: str, order: str, samples: int, seed: int) -> Method:
    from mdsample.policy.order import Order
    from mdsample.policy.parsing import parse
    from mdsample.scoring.score import ChainRule, MarginalProduct, MonteCarloBound

    match name:
        case "chain":
            match parse(order).parts:
                case [Order() as part]:
                    return ChainRule(part, seed=seed)
                case _:
                    raise Wrong(f"--order takes one order, as in 'left-to-right', 'entropy' or 'random'; got {order!r}")
        case "marginals":
            return MarginalProduct()
        case "bound":
            return MonteCarloBound(samples, seed=seed)
        case _:
            raise Wrong(f"there is no method {name!r}; there are: {', '.join(METHODS)}")


def _scored(
    denoiser: Denoiser, layout: Template, requests: Sequence[Request], slot: str, how: Method, batch_size: int
) -> Iterator[tuple[Request, Scores | str]]:
    """Each request with its scores, or with why there are none, in their order."""
    from mdsample.errors import ScoreError, TemplateError
    from mdsample.scoring.score import score

    good: list[Request] = []

    def flush() -> Iterator[tuple[Request, Scores | str]]:
        yield from zip(
            good,
            score(
                denoiser,
                layout,
                [request.texts for request in good],
                slot,
                [request.choices for request in good],
                method=how,
                given=[request.given for request in good],
                ids=[request.id for request in good],
                batch_size=batch_size,
            ),
            strict=True,
        )
        good.clear()

    for request in requests:
        fault = request.error
        try:
            if not fault:
                _check(denoiser, layout, request, slot)
        except (ScoreError, TemplateError, ValueError) as error:
            fault = str(error)
        if fault:
            yield from flush() if good else ()
            yield request, fault
            continue
        good.append(request)
        if len(good) == batch_size:
            yield from flush()
    yield from flush() if good else ()


def _check(denoiser: Denoiser, layout: Template, request: Request, slot: str) -> None:
    """What is wrong with one row is no fault of the others."""
    from mdsample.sampling.engine import prepare
    from mdsample.scoring.score import check_candidates

    check_candidates(request.choices)
    for text in request.choices:
        prepare(denoiser, layout, request.id, request.texts, {**request.given, slot: text})


def _record(denoiser: Denoiser, layout: Template, request: Request, found: Scores, method: str, seed: int) -> Record:
    from mdsample._version import versions
    from mdsample.jobs.records import asked
    from mdsample.models.cache import cache_text

    return {
        "id": request.id,
        **asked(request),
        "slot": found.slot,
        "best": found.best.text,
        "candidates": [
            {
                "text": candidate.text,
                # JSON has no infinity
                "log_probability": candidate.log_probability if candidate.log_probability > -float("inf") else None,
                "standard_error": candidate.standard_error,
                "share": share,
                "tokens": len(candidate.tokens),
            }
            for candidate, share in zip(found.candidates, found.shares, strict=True)
        ],
        "method": method,
        "nfe": found.nfe,
        "model": denoiser.name,
        "template": str(layout),
        "seed": seed,
        "backend": denoiser.backend,
        "cache": cache_text(denoiser.cache),
        "approximate": denoiser.cache is not None and denoiser.cache.approximate,
        "versions": versions(),
    }


def _rows(found: Scores) -> list[list[str]]:
    return [
        [
            repr(candidate.text),
            f"{candidate.log_probability:.3f}"
            + (f" ± {1.96 * candidate.standard_error:.3f}" if candidate.standard_error else ""),
            f"{100 * share:.1f} %",
            "█" * round(_BAR * share) + "·" * (_BAR - round(_BAR * share)),
        ]
        for candidate, share in zip(found.candidates, found.shares, strict=True)
    ]

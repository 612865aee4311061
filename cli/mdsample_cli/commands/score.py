"""`mdsample score`: how probable texts are in a slot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from typer import Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError, told
from mdsample_cli.groups import Without, grouped

if TYPE_CHECKING:
    from mdsample.core.template import Template
    from mdsample.jobs.records import Record, Request
    from mdsample.models.chat import Chats
    from mdsample.models.denoiser import Denoiser
    from mdsample.scoring.score import Method, Scores

METHODS = ("chain", "marginals", "bound")
SAMPLES = 128
#: columns of a bar for a share of 1
_BAR = 24


@grouped
def score(
    template: options.TemplateOptions,
    rows: options.InputOptions,
    model: Annotated[options.ModelOptions, Without("compile")],
    prompt: options.Prompt = None,
    choices: Annotated[
        str | None, Option(metavar="TEXT,TEXT", help="The texts to score, verbatim, spaces too.")
    ] = None,
    choices_from: Annotated[
        str | None, Option(metavar="KEY", help="Instead: the key of a list of texts in each row of --input.")
    ] = None,
    slot: Annotated[str, Option(metavar="NAME", help="The slot that the texts are scored in.")] = "answer",
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
    json: options.Json = False,
    trace: Annotated[str | None, Option(hidden=True)] = None,
) -> int:
    """Log-probabilities of whole texts in a slot, in nats; other slots stay blank unless they are filled.

    The rest of the slot after a text is scored as end tokens. Exit code 1 if a row could not be scored.
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
    how = _method(method, order, samples, seed)
    rows.check()
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line

    layout, denoiser, chats = template.open_with(model)
    layout.check_given({slot: ""} | rows.in_every_row | rows.from_rows)
    requests = _requests(layout, rows, prompt, choices, choices_from)
    out, failed = render.console(), False
    for request, scores in _scored(denoiser, layout, chats, requests, slot, how, batch_size):
        if isinstance(scores, str):
            if rows.input is None:
                raise UsageError(scores)
            failed = True
            said = line({"id": request.id, "error": scores}) if json else told(f"{request.id}: {scores}")
            typer.echo(said, err=not json)
        elif json:
            print(line(_record(denoiser, layout, request, scores, str(how), seed)), flush=True)
        else:
            title = "" if rows.input is None else f"{request.id}\n"
            render.show(
                out,
                title
                + f"{denoiser.name} on {denoiser.backend}; {how}; {render.count(scores.nfe, 'forward pass', 'es')}\n",
            )
            render.show(out, render.table(out, ["log p, nats", "share", ""], _rows(scores), first=slot))
    return int(failed)


def _requests(
    layout: Template,
    rows: options.InputOptions,
    prompt: str | None,
    choices: str | None,
    choices_from: str | None,
) -> list[Request]:
    """The prompt, or the rows of the input, with the texts to score."""
    from mdsample.jobs.job import request_of

    requests = rows.read(layout, choices=choices_from)
    if requests is None:
        requests = [attrs.evolve(request_of(layout, prompt or ""), given=rows.in_every_row)]
    if choices is None:
        return requests
    return [attrs.evolve(request, choices=tuple(choices.split(","))) for request in requests]


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
                    raise UsageError(
                        f"--order takes one order, as in 'left-to-right', 'entropy' or 'random'; got {order!r}"
                    )
        case "marginals":
            return MarginalProduct()
        case "bound":
            return MonteCarloBound(samples, seed=seed)
        case _:
            raise UsageError(f"there is no method {name!r}; there are: {', '.join(METHODS)}")


def _scored(
    denoiser: Denoiser,
    layout: Template,
    chats: Chats,
    requests: Sequence[Request],
    slot: str,
    how: Method,
    batch_size: int,
) -> Iterator[tuple[Request, Scores | str]]:
    """Each request with its scores, or with why there are none, in their order."""
    from mdsample.scoring.score import score

    for start in range(0, len(requests), batch_size):
        batch = requests[start : start + batch_size]
        placed = [_placed(denoiser, layout, chats, request, slot) for request in batch]
        scores: dict[int, Scores] = {}
        # rows of one template are scored together; chats of other turns are in another
        fitting = {i: where for i, where in enumerate(placed) if not isinstance(where, str)}
        for template in dict.fromkeys(template for template, _ in fitting.values()):
            good = {i: texts for i, (of_row, texts) in fitting.items() if of_row == template}
            done = score(
                denoiser,
                template,
                [*good.values()],
                slot,
                [batch[i].choices for i in good],
                method=how,
                given=[batch[i].given for i in good],
                ids=[batch[i].id for i in good],
                batch_size=batch_size,
            )
            scores.update(zip(good, done, strict=True))
        for i, (request, where) in enumerate(zip(batch, placed, strict=True)):
            yield request, where if isinstance(where, str) else scores[i]


def _placed(
    denoiser: Denoiser, layout: Template, chats: Chats, request: Request, slot: str
) -> tuple[Template, Mapping[str, str]] | str:
    """A row's template and the texts of its fields, or why it cannot be scored; the other rows still are."""
    from mdsample.sampling.engine import prepare
    from mdsample.scoring.score import check_candidates

    if request.error:
        return request.error
    try:
        check_candidates(request.choices)
        template, texts = chats.placed(layout, request.texts, request.messages)
        for text in request.choices:
            prepare(denoiser, template, request.id, texts, {**request.given, slot: text})
    except ValueError as error:
        return str(error)
    return template, texts


def _record(denoiser: Denoiser, layout: Template, request: Request, scores: Scores, method: str, seed: int) -> Record:
    from mdsample._version import versions
    from mdsample.jobs.lines import finite
    from mdsample.jobs.records import asked
    from mdsample.models.cache import cache_text

    return {
        "id": request.id,
        **asked(request),
        "slot": scores.slot,
        "best": scores.best.text,
        "candidates": [
            {
                "text": candidate.text,
                "log_probability": finite(candidate.log_probability),
                "standard_error": candidate.standard_error,
                "share": share,
                "tokens": len(candidate.tokens),
            }
            for candidate, share in zip(scores.candidates, scores.shares, strict=True)
        ],
        "method": method,
        "nfe": scores.nfe,
        "model": denoiser.name,
        "template": str(layout),
        "seed": seed,
        "backend": denoiser.backend,
        "cache": cache_text(denoiser.cache),
        "approximate": denoiser.cache is not None and denoiser.cache.approximate,
        "versions": versions(),
    }


def _rows(scores: Scores) -> list[list[str]]:
    return [
        [
            repr(candidate.text),
            f"{candidate.log_probability:.3f}"
            + (f" ± {1.96 * candidate.standard_error:.3f}" if candidate.standard_error else ""),
            f"{100 * share:.1f} %",
            "█" * round(_BAR * share) + "·" * (_BAR - round(_BAR * share)),
        ]
        for candidate, share in zip(scores.candidates, scores.shares, strict=True)
    ]

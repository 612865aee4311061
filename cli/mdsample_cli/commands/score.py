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
    from mdsample.scoring.decide import Decisions
    from mdsample.scoring.methods import Method
    from mdsample.scoring.score import Scores

METHODS = ("chain", "marginals", "bound")
SAMPLES = 128
SLOT = "answer"


@grouped
def score(
    template: options.TemplateOptions,
    rows: options.InputOptions,
    model: Annotated[options.ModelOptions, Without("compile")],
    prompt: options.Prompt = None,
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
    json: options.Json = False,
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
    how = _method(method, order, samples, seed)
    rows.check()
    from mdsample.jobs.scores import decided, scored
    from mdsample.scoring.score import Scores
    from mdsample_cli.show import decisions, render
    from mdsample_cli.show.json_line import line

    layout, denoiser, chats = template.open_with(model)
    texts, labels = _asked(layout, choices or [], slot)
    layout.check_given(({slot: ""} if texts else {}) | rows.in_every_row | rows.from_rows)
    requests = _requests(layout, rows, prompt, texts, labels, choices_from)
    if any(request.choices for request in requests):
        layout.check_given({slot: ""})
    if any(request.labels for request in requests) and method == "bound":
        raise UsageError("--method bound gives no probabilities, and choices by slot take them; say chain or marginals")
    out, failed = render.console(), False
    for request, scores in _scored(denoiser, layout, chats, requests, slot, how, batch_size):
        if isinstance(scores, str):
            if rows.input is None:
                raise UsageError(scores)
            failed = True
            said = line({"id": request.id, "error": scores}) if json else told(f"{request.id}: {scores}")
            typer.echo(said, err=not json)
        elif json:
            found = scored(scores) if isinstance(scores, Scores) else decided(scores)
            print(line(_record(denoiser, layout, request, found, scores.nfe, str(how), seed)), flush=True)
        else:
            title = "" if rows.input is None else f"{request.id}\n"
            render.show(
                out,
                title
                + f"{denoiser.name} on {denoiser.backend}; {how}; {render.count(scores.nfe, 'forward pass', 'es')}\n",
            )
            render.show(out, *decisions.tables(out, scores))
    return int(failed)


def _requests(
    layout: Template,
    rows: options.InputOptions,
    prompt: str | None,
    texts: tuple[str, ...],
    labels: Mapping[str, tuple[str, ...]],
    choices_from: str | None,
) -> list[Request]:
    """The prompt, or the rows of the input, with the texts to score."""
    from mdsample.jobs.job import request_of

    requests = rows.read(layout, choices=choices_from)
    if requests is None:
        requests = [attrs.evolve(request_of(layout, prompt or ""), given=rows.in_every_row)]
    if choices_from is not None:
        return requests
    return [attrs.evolve(request, choices=texts, labels=labels) for request in requests]


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


def _scored(
    denoiser: Denoiser,
    layout: Template,
    chats: Chats,
    requests: Sequence[Request],
    slot: str,
    how: Method,
    batch_size: int,
) -> Iterator[tuple[Request, Scores | Decisions | str]]:
    """Each request with its scores, or with why there are none, in their order."""
    for start in range(0, len(requests), batch_size):
        batch = requests[start : start + batch_size]
        placed = [_placed(denoiser, layout, chats, request, slot) for request in batch]
        scores: dict[int, Scores | Decisions] = {}
        # rows of one template are scored together; chats of other turns are in another
        fitting = {i: where for i, where in enumerate(placed) if not isinstance(where, str)}
        for template, by_slot in dict.fromkeys((where[0], bool(batch[i].labels)) for i, where in fitting.items()):
            good = {
                i: texts
                for i, (of_row, texts) in fitting.items()
                if of_row == template and bool(batch[i].labels) == by_slot
            }
            done = _together(denoiser, template, [batch[i] for i in good], [*good.values()], slot, how, batch_size)
            scores.update(zip(good, done, strict=True))
        for i, (request, where) in enumerate(zip(batch, placed, strict=True)):
            yield request, where if isinstance(where, str) else scores[i]


def _together(
    denoiser: Denoiser,
    template: Template,
    requests: Sequence[Request],
    rows: Sequence[Mapping[str, str]],
    slot: str,
    how: Method,
    batch_size: int,
) -> Sequence[Scores | Decisions]:
    """Rows of one template, all with texts or all with labels by slot."""
    from mdsample.scoring.decide import decide
    from mdsample.scoring.methods import MonteCarloBound
    from mdsample.scoring.score import score

    given, ids = [request.given for request in requests], [request.id for request in requests]
    if requests[0].labels and not isinstance(how, MonteCarloBound):
        labels = [request.labels for request in requests]
        return decide(denoiser, template, rows, labels, method=how, given=given, ids=ids, batch_size=batch_size)
    texts = [request.choices for request in requests]
    return score(denoiser, template, rows, slot, texts, method=how, given=given, ids=ids, batch_size=batch_size)


def _placed(
    denoiser: Denoiser, layout: Template, chats: Chats, request: Request, slot: str
) -> tuple[Template, Mapping[str, str]] | str:
    """A row's template and the texts of its fields, or why it cannot be scored; the other rows still are."""
    from mdsample.sampling.prepared import prepare
    from mdsample.scoring.decide import check_labels
    from mdsample.scoring.score import check_candidates

    if request.error:
        return request.error
    try:
        if not request.labels:
            check_candidates(request.choices)
        template, texts = chats.placed(layout, request.texts, request.messages)
        if request.labels:
            check_labels(denoiser, template, request.labels, request.given)
            prepare(denoiser, template, request.id, texts, request.given)
        for text in request.choices:
            prepare(denoiser, template, request.id, texts, {**request.given, slot: text})
    except ValueError as error:
        return str(error)
    return template, texts


def _record(
    denoiser: Denoiser, layout: Template, request: Request, found: Record, nfe: int, method: str, seed: int
) -> Record:
    from mdsample._version import versions
    from mdsample.jobs.records import asked
    from mdsample.models.cache import cache_text

    return {
        "id": request.id,
        **asked(request),
        **found,
        "method": method,
        "nfe": nfe,
        "model": denoiser.name,
        "template": str(layout),
        "seed": seed,
        "backend": denoiser.backend,
        "cache": cache_text(denoiser.cache),
        "approximate": denoiser.cache is not None and denoiser.cache.approximate,
        "versions": versions(),
    }

"""`mdsample replay`: a recorded run, step by step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from typer import Argument, Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError, note
from mdsample_cli.files import require_distinct, require_replaceable

if TYPE_CHECKING:
    from mdsample.core.tokens import Tokenizer
    from mdsample.sampling.result import Commit, RunLog
    from mdsample.sampling.state import Event, State
    from mdsample.sampling.trace import Trace


def replay(
    trace: Annotated[Path, Argument(metavar="TRACE", help="What `mdsample run --trace` wrote.")],
    out: Annotated[
        Path | None, Argument(metavar="OUT", help="Where --html writes. Default: TRACE's name, with .html.")
    ] = None,
    row: Annotated[str | None, Option(metavar="ID", help="The row to show. Default: the first.")] = None,
    speed: Annotated[float, Option(min=0.01, metavar="N", help="Steps a second, on a terminal.")] = 8.0,
    model: Annotated[
        str | None, Option(metavar="NAME", help="Model whose tokenizer to use. Default: the one that the trace names.")
    ] = None,
    revision: options.Revision = None,
    json: Annotated[
        bool, Option("--json", metavar="", help="One JSON object a row: its text and every commit.")
    ] = False,
    html: Annotated[
        bool, Option("--html", metavar="", help="Write a player for a browser, one file that needs no network.")
    ] = False,
) -> None:
    """Replay a recorded run: on a terminal the canvas fills step by step, elsewhere one line a step."""
    if out is not None and not html:
        raise UsageError(f"{out} is where --html writes; give --html, or leave it out")
    if html and json:
        raise UsageError("--json and --html are two forms; give one of them")
    target = out or trace.parent / f"{trace.stem}.html"
    if html:
        require_distinct(trace=trace, html=target)
        require_replaceable(target, "--html", "an HTML file", (b"<!doctype html>",))
    from mdsample_serve.saved import saved

    from mdsample.core.files import write_whole
    from mdsample.policy.complete import complete
    from mdsample.policy.parsing import parse
    from mdsample.sampling.film import film
    from mdsample.sampling.result import RunLog
    from mdsample.sampling.trace import Trace

    record = Trace.load(trace)
    tokenizer = _tokenizer(record, model, revision)
    ids = [str(name) for name in record.canvas.ids]
    if row is not None and row not in ids:
        raise UsageError(f"{trace} has no row {row!r}; rows: {', '.join(ids[:20])}{', …' if len(ids) > 20 else ''}")
    if html:
        write_whole(target, saved([film(record, tokenizer)], 0 if row is None else ids.index(row)).encode())
        note(f"wrote {target}; open it in a browser")
        return
    if json:
        log = RunLog(record.canvas, tokenizer, complete(parse(record.policy)), record.noise)
        for event in record.events:
            log.add(event)
        last = record.replay()
        for number in range(len(ids)) if row is None else [ids.index(row)]:
            _print_json(record, log, last, number, tokenizer)
        return
    number = 0 if row is None else ids.index(row)
    if row is None and len(ids) > 1:
        note(f"row {ids[0]} of {len(ids)}; --row ID shows another")
    states = [state for state, event in _moments(record) if event is None or number in (*event.rows, *event.row)]
    _play(record, states, number, tokenizer, speed)


def _tokenizer(record: Trace, model: str | None, revision: str | None) -> Tokenizer:
    from mdsample.backend.load import load
    from mdsample.errors import ModelError

    try:
        tokenizer = load(model or record.model, revision=revision).tokenizer
    except ModelError as error:
        if model is not None:
            raise
        raise UsageError(
            f"the trace holds token ids of {record.model!r}; say with --model where it is ({error})"
        ) from error
    if tokenizer.mask_id != record.mask_id:
        raise UsageError(f"the trace was made with {record.model!r}, whose tokens are others; give it with --model")
    return tokenizer


def _moments(record: Trace) -> Iterator[tuple[State, Event | None]]:
    """The first state, and each later one with the event that led there."""
    return zip(record.states(), (None, *record.events), strict=True)


def _commit(commit: Commit, tokenizer: Tokenizer) -> dict[str, object]:
    values = attrs.asdict(commit)
    ruled = values.pop("by_rule")
    return {**values, "ruled": ruled, "text": tokenizer.decode([commit.token])}


def _print_json(record: Trace, log: RunLog, last: State, number: int, tokenizer: Tokenizer) -> None:
    from mdsample_cli.show.json_line import line

    row = log.row(last, number)
    typer.echo(
        line(
            {
                "id": row.id,
                "text": row.text,
                "slots": row.slots,
                "nfe": row.nfe,
                "steps": row.steps,
                "unfilled": row.unfilled,
                "outcome": row.outcome.name,
                "commits": [_commit(commit, tokenizer) for commit in row.commits],
                "policy": record.policy,
                "seed": record.seed,
                "model": record.model,
                "backend": record.backend,
                "cache": record.cache,
                "versions": record.versions,
            }
        )
    )


def _play(record: Trace, states: Sequence[State], number: int, tokenizer: Tokenizer, speed: float) -> None:
    from rich.live import Live

    from mdsample_cli.show import render

    out = render.console()
    if render.is_terminal(stderr=False):
        with Live(console=out, auto_refresh=False) as moving:
            for state in states:
                moving.update(render.frame(state, number, tokenizer, out.width, out.height), refresh=True)
                time.sleep(1 / speed)
    else:
        for state in states[1:]:
            render.show(out, render.written(state, number, tokenizer))
        render.show(out, render.frame(states[-1], number, tokenizer, out.width))
    render.show(
        out, render.listing([("policy", render.policy(record.policy, 64)), ("model", render.plain(record.model))])
    )

"""`mdsample judge`: a recorded reasoning, and how much each part of it makes of the answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError, note
from mdsample_cli.groups import Without, grouped

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mdsample.scoring.judge import Judged, ReasoningPart

#: a change of fewer nats is shown without colour
_SLIGHT = 0.1


@grouped
def judge(
    model: Annotated[options.ModelOptions, Without("compile")],
    trace: Annotated[Path, Argument(metavar="TRACE", help="What `mdsample run --trace` wrote.")],
    slot: Annotated[str, Option(metavar="NAME", help="The slot of the answer.")] = "answer",
    answer: Annotated[str | None, Option(metavar="TEXT", help="The answer to score. Default: each row's own.")] = None,
    by: Annotated[
        str, Option(metavar="WAY", help="Where the reasoning is split: sentence, step or token.")
    ] = "sentence",
    batch_size: options.BatchSize = 16,
    json: options.JsonRows = False,
) -> None:
    """Log p(answer), in nats, before and after each part of a recorded reasoning, and where it falls the most.

    The answer is scored by the chain rule from left to right.
    """
    from mdsample.sampling.trace import Trace
    from mdsample.scoring.judge import WAYS
    from mdsample.scoring.judge import judge as judged_rows
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line

    if by not in WAYS:
        raise UsageError(f"--by takes one of {', '.join(WAYS)}; got {by!r}")
    recorded = Trace.load(trace)
    denoiser = model.load()
    if recorded.model != denoiser.name:
        note(f"{trace} was written by {recorded.model}; {denoiser.name} judges it")
    answers = None if answer is None else dict.fromkeys(recorded.canvas.ids, answer)
    out = render.console()
    for judged in judged_rows(denoiser, recorded, slot, answers, by, batch_size):
        if json:
            settings = {"slot": slot, "by": by, "model": denoiser.name, "backend": denoiser.backend}
            print(line({**_record(judged), **settings}), flush=True)
        else:
            row_id = "" if len(recorded.canvas) == 1 else f"{judged.id}: "
            heading = f"{row_id}log p({slot} = {judged.answer!r}), nats, before and after each part\n"
            render.show(out, heading)
            render.show(out, *_shown(judged))


def _record(judged: Judged) -> dict[str, object]:
    parts = [{"text": p.text, "log_probability": p.log_probability, "change": p.change} for p in judged.parts]
    return {"id": judged.id, "answer": judged.answer, "before": judged.before, "parts": parts, "nfe": len(parts) + 1}


def _shown(judged: Judged) -> list[RenderableType]:
    from rich.table import Table

    from mdsample_cli.show import render

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(f"{judged.before:.2f}", "", render.plain("(nothing)", "dim"))
    for part in judged.parts:
        colour = _colour(part)
        change = render.plain(f"{part.change:+.2f}", colour)
        grid.add_row(f"{part.log_probability:.2f}", change, render.plain(part.text.strip() or "(end)", colour))
    worst = judged.worst
    if worst is None or worst.change >= -_SLIGHT:
        return [grid, ""]
    return [grid, render.plain(f"\nfalls the most ({worst.change:.2f}) at: {worst.text.strip()}"), ""]


def _colour(part: ReasoningPart) -> str:
    return "" if abs(part.change) < _SLIGHT else "green" if part.change > 0 else "red"

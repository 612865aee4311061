"""What `mdsample score --trace` shows: a reasoning, and how much each part of it makes of the answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mdsample_cli.options import Wrong

if TYPE_CHECKING:
    from rich.table import Table

    from mdsample.scoring.judge import Judged, Part

#: a change of fewer nats is shown without colour
_SLIGHT = 0.1


def judge_trace(
    trace: Path,
    answer: str | None,
    by: str,
    slot: str,
    model: str,
    revision: str | None,
    backend: str,
    device: str | None,
    dtype: str | None,
    cache: str,
    batch_size: int,
    json: bool,
) -> None:
    """Judges every row of a trace; with `json` one object a row."""
    from mdsample.backend.load import load
    from mdsample.jobs.records import line
    from mdsample.sampling.trace import Trace
    from mdsample.scoring.judge import WAYS, judge
    from mdsample_cli.show import render

    if by not in WAYS:
        raise Wrong(f"--by takes one of {', '.join(WAYS)}; got {by!r}")
    try:
        record = Trace.load(trace)
    except OSError as fault:
        raise Wrong(f"cannot read {trace}: {fault.strerror or fault}") from fault
    denoiser = load(model, backend, revision=revision, device=device, dtype=dtype, cache=cache)
    if record.model != denoiser.name:
        typer.echo(f"{trace} was written by {record.model}; {denoiser.name} judges it", err=True)
    answers = None if answer is None else dict.fromkeys(record.canvas.ids, answer)
    out = render.console()
    for judged in judge(denoiser, record, slot, answers, by, batch_size):
        if json:
            told = {"slot": slot, "by": by, "model": denoiser.name, "backend": denoiser.backend}
            print(line({**_record(judged), **told}), flush=True)
            continue
        where = "" if len(record.canvas) == 1 else f"{judged.id}: "
        render.show(out, f"{where}log p({slot} = {judged.answer!r}), nats, before and after each part\n")
        render.show(out, _shown(judged))
        worst = judged.worst
        if worst is not None and worst.change < -_SLIGHT:
            render.show(out, render.plain(f"\nfalls the most ({worst.change:.2f}) at: {worst.text.strip()}"))
        render.show(out, "")


def _record(judged: Judged) -> dict[str, object]:
    parts = [{"text": p.text, "log_probability": p.log_probability, "change": p.change} for p in judged.parts]
    return {"id": judged.id, "answer": judged.answer, "before": judged.before, "parts": parts, "nfe": len(parts) + 1}


def _shown(judged: Judged) -> Table:
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
    return grid


def _colour(part: Part) -> str:
    return "" if abs(part.change) < _SLIGHT else "green" if part.change > 0 else "red"

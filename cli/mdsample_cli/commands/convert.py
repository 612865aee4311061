"""`mdsample convert`: a quantised copy of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdsample_cli import options


def convert(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="An embedded model, a folder, or a hub id (organisation/model).")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make; it must not be there yet.")],
    bits: Annotated[int, typer.Option(metavar="N", help="Bits of a value: 2, 4 or 8.")] = 4,
    group_size: Annotated[
        int, typer.Option(metavar="N", help="Values that share a scale and a bias: 32, 64 or 128.")
    ] = 64,
    revision: options.Revision = None,
    json: options.Json = False,
) -> None:
    """A copy of a checkpoint with its matrices quantised, as MLX does it; every backend reads it."""
    from mdsample.jobs.records import line
    from mdsample.models.convert import convert as make
    from mdsample_cli.show import render
    from mdsample_cli.show.screens import bar

    with bar() as progress:
        task = progress.add_task("weights", total=None)

        def watch(done: int, whole: int) -> None:
            progress.update(task, completed=done, total=whole)

        made = make(model, out, bits=bits, group_size=group_size, revision=revision, watch=watch)
    told = {
        **{"folder": str(made.folder), "bits": bits, "group_size": group_size, "bytes": made.bytes},
        **{"parameters": made.parameters, "packed": made.packed, "bits_per_weight": round(made.bits_per_weight, 3)},
    }
    if json:
        typer.echo(line(told))
        return
    rows = [
        ("folder", str(made.folder)),
        ("stored", f"{render.size(made.bytes)}, {made.bits_per_weight:.2f} bits a weight"),
        ("packed", f"{made.packed:,} of {made.parameters:,} weights, {made.packing}"),
        ("run it", f"mdsample run --model {made.folder}"),
    ]
    render.show(render.console(), render.listing((label, render.plain(text)) for label, text in rows))

"""`mdsample convert`: a quantised copy of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from mdsample_cli import options


def convert(
    model: options.ModelArgument,
    out: Annotated[Path, Argument(metavar="OUT", help="The folder to make; it must not exist yet.")],
    bits: Annotated[int, Option(metavar="N", help="Bits of a value: 2, 3, 4, 5, 6 or 8.")] = 4,
    group_size: Annotated[int, Option(metavar="N", help="Values that share a scale and a bias: 32, 64 or 128.")] = 64,
    revision: options.Revision = None,
    json: options.Json = False,
) -> None:
    """A copy of a checkpoint with its matrices quantised, as MLX does it; every backend reads it."""
    from mdsample.models.checkpoint import size_text
    from mdsample.models.convert import convert as quantised_copy
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line
    from mdsample_cli.show.screens import bar

    with bar() as progress:
        task = progress.add_task("weights", total=None)

        def watch(done: int, whole: int) -> None:
            progress.update(task, completed=done, total=whole)

        copy = quantised_copy(model, out, bits=bits, group_size=group_size, revision=revision, watch=watch)
    if json:
        record = {
            "folder": str(copy.folder),
            "bits": bits,
            "group_size": group_size,
            "bytes": copy.bytes,
            "parameters": copy.parameters,
            "packed": copy.packed,
            "bits_per_weight": round(copy.bits_per_weight, 3),
        }
        typer.echo(line(record))
    else:
        render.report(
            ("folder", str(copy.folder)),
            ("stored", f"{size_text(copy.bytes)}, {copy.bits_per_weight:.2f} bits a weight"),
            ("packed", f"{copy.packed:,} of {copy.parameters:,} weights, {copy.packing}"),
            ("run it", f"mdsample run --model {copy.folder}"),
        )

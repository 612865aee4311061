"""`mdsample convert`: a copy of a checkpoint, quantised or with an adapter merged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError


def convert(
    model: options.ModelArgument,
    out: Annotated[Path, Argument(metavar="OUT", help="The folder to make; it must not exist yet.")],
    bits: Annotated[
        int | None,
        Option(metavar="N", help="Bits of a value: 2, 3, 4, 5, 6 or 8. Default: 4; with --adapter as stored."),
    ] = None,
    group_size: Annotated[
        int | None, Option(metavar="N", help="Values that share a scale and a bias: 32, 64 or 128. Default: 64.")
    ] = None,
    revision: options.Revision = None,
    adapter: options.Adapter = None,
    json: options.JsonObject = False,
) -> None:
    """A copy of a checkpoint with its matrices quantised, as MLX does it, or an adapter merged; every backend reads it.

    With --adapter and without --bits it is not quantised.
    """
    from mdsample.models.convert import convert as copied
    from mdsample.models.weights.checkpoint import size_text
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line
    from mdsample_cli.show.screens import bar

    if adapter is None and bits is None:
        bits = 4
    if bits is None and group_size is not None:
        raise UsageError("--group-size is of a copy that is quantised; give --bits too, or leave it out")
    size = 64 if group_size is None else group_size
    with bar() as progress:
        task = progress.add_task("weights", total=None)

        def watch(done: int, whole: int) -> None:
            progress.update(task, completed=done, total=whole)

        copy = copied(model, out, bits=bits, group_size=size, revision=revision, adapter=adapter, watch=watch)
    if json:
        record = {
            "folder": str(copy.folder),
            "bits": bits,
            "group_size": None if copy.packing is None else copy.packing.group_size,
            "adapter": adapter,
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
            ("packed", f"{copy.packed:,} of {copy.parameters:,} weights{'' if bits is None else f', {copy.packing}'}"),
            ("run it", f"mdsample run --model {copy.folder}"),
        )

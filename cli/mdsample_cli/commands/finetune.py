"""`mdsample finetune`: train a model on finished texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdsample_cli import options
from mdsample_cli.options import Interrupted, Wrong

_SHOWN = 3  # faults of the data that are spelled out


def finetune(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="An embedded model, a folder, or a hub id (organisation/model).")
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="FILE",
            help="JSON lines: rows with a text for every field and slot, records of run, or traces. May be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The trained model; run again to resume.")],
    template: options.Layout = None,
    write_as: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SLOT=TEXT",
            help="How a slot's text is written into it, {} being the text, as in 'answer= {}'. May be repeated.",
            show_default=False,
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(min=1, metavar="RANK", help="Train low-rank adapters. Default: all weights.", show_default=False),
    ] = None,
    epochs: Annotated[float, typer.Option(metavar="N", help="Times that every example is seen.")] = 3.0,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Rows in a step, on each device.")] = 16,
    accumulate: Annotated[int, typer.Option(min=1, metavar="N", help="Steps whose gradients are added up.")] = 1,
    learning_rate: Annotated[float, typer.Option(metavar="X", help="AdamW's highest.")] = 1e-4,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", metavar="", help="Compute products in bfloat16.")] = False,
    save_memory: Annotated[
        bool, typer.Option("--save-memory", metavar="", help="Compute activations twice, do not keep them.")
    ] = False,
    save_every: Annotated[int, typer.Option(min=1, metavar="N", help="Steps between checkpoints.")] = 200,
    chat: options.Chat = None,
    system: options.System = None,
    revision: options.Revision = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Train a model on finished texts: masked-diffusion loss on the template's slots; end tokens fill them up.

    For several devices: accelerate launch --module mdsample_cli finetune …
    """
    from mdsample.core.template import Template
    from mdsample.jobs.examples import Examples, read_examples
    from mdsample.jobs.records import line
    from mdsample.models.card import read_card
    from mdsample.models.families import read_config
    from mdsample.models.find import facts_folder
    from mdsample.models.tokenizer import FileTokenizer
    from mdsample_cli.show import render
    from mdsample_cli.show.screens import bar

    try:
        from mdsample_torch.training import trainer as training
    except ImportError as fault:
        raise Wrong(f"training needs more than is installed ({fault}): pip install 'mdsample[train]'") from fault

    written = dict[str, str]()
    for told in write_as or []:
        slot, equals, form = told.partition("=")
        if not slot or not equals or slot in written:
            raise Wrong(f"--write-as takes each slot once, = and how its text is written; got {told!r}")
        written[slot] = form
    try:
        settings = training.Settings(
            lora=lora,
            epochs=epochs,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            bfloat16=bfloat16,
            save_memory=save_memory,
            save_every=save_every,
            seed=seed,
        )
    except ValueError as fault:
        raise Wrong(str(fault)) from fault
    asked = options.open_template(template, model, revision, chat, system)
    folder = facts_folder(model, revision)
    trunk = read_config(folder)
    tokenizer = FileTokenizer.read(folder, trunk)
    layout = Template.parse(read_card(folder).template) if asked is None else asked
    found = Examples([], [])
    for name in data:
        more = read_examples(options.read_bytes(name), layout, tokenizer, name, written, trunk.max_length)
        found = Examples(found.examples + more.examples, found.faults + [f"{name}, {fault}" for fault in more.faults])
    for fault in found.faults[:_SHOWN]:
        typer.echo(f"left out: {fault}", err=True)
    if len(found.faults) > _SHOWN:
        typer.echo(f"left out: {len(found.faults) - _SHOWN} more", err=True)
    try:
        with bar() as progress:
            task = progress.add_task("steps", total=None)

            def watch(step: int, steps: int, loss: float) -> None:
                progress.update(task, completed=step, total=steps, description=f"steps, loss {loss:.3f}")

            made = training.finetune(
                model, found.examples, out, settings, revision=revision, device=device, watch=watch
            )
    except KeyboardInterrupt:
        raise Interrupted("the same command goes on from the last checkpoint") from None
    if not training.first_process():
        return
    if json:
        typer.echo(line({"examples": len(found.examples), "left_out": len(found.faults), **made.record()}))
        return
    rows = [
        ("folder", str(made.folder)),
        ("examples", f"{len(found.examples)}, {made.steps} steps, {made.seconds:.0f} s"),
        ("trained", f"{made.trained:,} of {made.parameters:,} weights"),
        ("loss", f"{made.first_loss:.4f} in the first tenth, {made.last_loss:.4f} in the last, nats a token"),
        ("run it", f"mdsample run --model {made.folder}"),
    ]
    render.show(render.console(), render.listing((label, render.plain(text)) for label, text in rows))

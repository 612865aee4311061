"""`mdsample finetune`: train a model on finished texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from mdsample_cli import options
from mdsample_cli.errors import Interrupted, UsageError, note
from mdsample_cli.files import read_bytes, read_source
from mdsample_cli.groups import grouped

if TYPE_CHECKING:
    from mdsample.jobs.examples import Examples

_SHOWN = 3  # rows left out that are spelled out


@grouped
def finetune(
    template: options.TemplateOptions,
    model: options.ModelArgument,
    data: Annotated[
        list[str],
        Option(
            "--data",
            metavar="FILE",
            help="JSON lines: rows with a text for every field and slot, records of run, or traces. May be repeated.",
        ),
    ],
    out: Annotated[Path, Option("--out", "-o", metavar="DIR", help="The trained model; run again to resume.")],
    write_as: Annotated[
        list[str] | None,
        Option(
            metavar="SLOT=TEXT",
            help="How a slot's text is written into it, {} being the text, as in 'answer= {}'. May be repeated.",
        ),
    ] = None,
    lora: Annotated[
        int | None, Option(min=1, metavar="RANK", help="Train low-rank adapters. Default: all weights.")
    ] = None,
    epochs: Annotated[float, Option(metavar="N", help="Passes over the examples.")] = 3.0,
    batch_size: Annotated[int, Option(min=1, metavar="N", help="Rows in a step, on each device.")] = 16,
    accumulate: Annotated[int, Option(min=1, metavar="N", help="Steps of gradient accumulation.")] = 1,
    learning_rate: Annotated[float, Option(metavar="X", help="Peak learning rate of AdamW.")] = 1e-4,
    bfloat16: Annotated[bool, Option("--bfloat16", metavar="", help="Mixed precision with bfloat16.")] = False,
    save_memory: Annotated[
        bool, Option("--save-memory", metavar="", help="Gradient checkpointing: recompute activations.")
    ] = False,
    save_every: Annotated[int, Option(min=1, metavar="N", help="Steps between checkpoints.")] = 200,
    revision: options.Revision = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    json: options.JsonObject = False,
) -> None:
    """Train a model on finished texts: masked-diffusion loss on the template's slots; end tokens fill them up.

    For several devices: accelerate launch --module mdsample_cli finetune …
    """
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line
    from mdsample_cli.show.screens import bar

    try:
        from mdsample_torch.training import trainer as training
    except ImportError as error:
        raise UsageError(f"training needs more than is installed ({error}): pip install 'mdsample[train]'") from error

    forms = _forms(write_as or [])
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
    except ValueError as error:
        raise UsageError(str(error)) from error
    data_read = _examples(model, revision, template, data, forms)
    try:
        with bar() as progress:
            task = progress.add_task("steps", total=None)

            def watch(step: int, steps: int, loss: float) -> None:
                progress.update(task, completed=step, total=steps, description=f"steps, loss {loss:.3f}")

            trained = training.finetune(
                model, data_read.examples, out, settings, revision=revision, device=device, watch=watch
            )
    except KeyboardInterrupt:
        raise Interrupted("run the same command again to resume from the last checkpoint") from None
    if not training.first_process():
        return
    if json:
        counts = {"examples": len(data_read.examples), "left_out": len(data_read.faults)}
        typer.echo(line({**counts, **trained.record()}))
        return
    render.report(
        ("folder", str(trained.folder)),
        ("examples", f"{len(data_read.examples)}, {trained.steps} steps, {trained.seconds:.0f} s"),
        ("trained", f"{trained.trained:,} of {trained.parameters:,} weights"),
        ("loss", f"{trained.first_loss:.4f} in the first tenth, {trained.last_loss:.4f} in the last, nats a token"),
        ("run it", f"mdsample run --model {trained.folder}"),
    )


def _forms(pairs: Sequence[str]) -> dict[str, str]:
    """How the text of a slot is written, by slot."""
    forms: dict[str, str] = {}
    for pair in pairs:
        slot, equals, form = pair.partition("=")
        if not slot or not equals or slot in forms:
            raise UsageError(f"--write-as takes each slot once, = and how its text is written; got {pair!r}")
        forms[slot] = form
    return forms


def _examples(
    model: str, revision: str | None, template: options.TemplateOptions, files: Sequence[str], forms: dict[str, str]
) -> Examples:
    """The examples of all files; says on stderr which rows are left out."""
    from mdsample.core.sources import is_table
    from mdsample.core.template import Template
    from mdsample.jobs.examples import Examples, read_examples
    from mdsample.models.card import read_card
    from mdsample.models.families import read_config
    from mdsample.models.find import facts_folder
    from mdsample.models.text.tokenizer import FileTokenizer

    chosen = template.open(model, revision)
    folder = facts_folder(model, revision)
    trunk = read_config(folder)
    tokenizer = FileTokenizer.read(folder, trunk)
    own = read_card(folder).template
    layout, chats = chosen or Template.parse(own), template.chats(tokenizer, model, own)
    examples = Examples([], [])
    for name in files:
        data = read_source(name) if is_table(name) else read_bytes(name)
        more = read_examples(data, layout, tokenizer, name, forms, trunk.max_length, chats)
        faults = [f"{name}, {fault}" for fault in more.faults]
        examples = Examples(examples.examples + more.examples, examples.faults + faults)
    for fault in examples.faults[:_SHOWN]:
        note(f"left out: {fault}")
    if len(examples.faults) > _SHOWN:
        note(f"left out: {len(examples.faults) - _SHOWN} more")
    return examples

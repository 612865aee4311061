"""`mdsample policies` and `explain`: which policies there are, and what one means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer
from typer import Argument, Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError

if TYPE_CHECKING:
    from mdsample.policy.menu import Entry, ExplainedPart


def policies(json: options.JsonObject = False) -> None:
    """The menu: every part by the seat it fills, and the presets."""
    from rich.text import Text

    from mdsample.policy import menu
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line

    parts, presets = menu.parts_menu(), menu.presets_menu()
    if json:
        seats = {seat: [_record(entry) for entry in entries] for seat, entries in parts.items()}
        typer.echo(line({"parts": seats, "presets": [_record(entry) for entry in presets]}))
        return
    out = render.console()
    render.show(out, "A policy is a sum of parts, as in 'med(0.2)+blocks(32)+early-exit'; each part fills a seat.")
    for seat, entries in parts.items():
        render.show(out, Text.assemble("\n", (seat, "bold"), f": {menu.QUESTIONS[seat]}"), render.entries(out, entries))
    render.show(
        out, Text.assemble("\n", ("presets", "bold"), ": names for sums of parts"), render.entries(out, presets)
    )


def explain(
    policy: Annotated[str | None, Argument(metavar="POLICY", help="As in 'med(0.2)+early-exit'.")] = None,
    model: Annotated[
        str | None,
        Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Without POLICY: explain the one that this model takes by itself. With one: count its languages too.",
        ),
    ] = None,
    revision: options.Revision = None,
    json: options.JsonObject = False,
) -> None:
    """What a policy does: every seat, every setting, given or default, and the papers."""
    if policy is None and model is None:
        raise UsageError("give a POLICY, such as 'med(0.2)+early-exit', or --model for the one that a model takes")
    from rich.padding import Padding
    from rich.text import Text

    from mdsample.policy import menu
    from mdsample.policy.complete import in_full
    from mdsample.policy.language import Language
    from mdsample.policy.parsing import parse
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line

    why, tokenizer = "", None
    if model is not None and policy is None:
        from mdsample.models.decoding import default_of

        policy, why = default_of(model, revision)
    value = parse(policy or "")
    if model is not None and any(isinstance(part, Language) for part in value.parts):
        from mdsample.models.describe import tokenizer_of

        tokenizer = tokenizer_of(model, revision)
    seats = list(menu.explain(value, tokenizer))
    empty = menu.empty_seats(value)
    texts = {"policy": str(value), "in_full": in_full(value)}
    if json:
        told = {**texts, "why": why, "seats": [_record(seat) for seat in seats], "empty": empty}
        typer.echo(line(told))
        return
    out = render.console()
    if why:
        render.show(out, Text.assemble((f"{policy}\n", "cyan"), why, "\n"))
    for seated in seats:
        source = "" if seated.given else "   by default"
        render.show(out, Text.assemble((f"{seated.seat:<12}", "bold"), (seated.part, "cyan"), (source, "dim")))
        for (name, setting, default), domain in zip(seated.settings, seated.domains, strict=True):
            note = "default" if setting == default else f"given; default {default}" if default else "given"
            note += f"; {domain}" if domain else ""
            render.show(out, Text.assemble(" " * 14, f"{name} = {setting}", (f"   {note}", "dim")))
        render.show(out, Padding(Text(seated.told), (0, 0, 1, 14)))
    for seat in empty:
        render.show(out, Text.assemble((f"{seat:<12}", "bold"), ("nothing", "dim")))
    if empty:
        render.show(out, "")
    render.show(
        out,
        render.listing(
            [
                (label, render.policy(texts[key] or "''", 68))
                for label, key in (("shortest", "policy"), ("in full", "in_full"))
            ]
        ),
    )


def _record(entry: Entry | ExplainedPart) -> dict[str, Any]:
    """A line of the menu as JSON; what settings accept is for people only, a language is there where it is known."""

    def told(field: attrs.Attribute[Any], value: Any) -> bool:
        return field.name not in ("domain", "domains") and (field.name != "language" or value is not None)

    return attrs.asdict(entry, filter=told)

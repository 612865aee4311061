"""`mdsample audit`: what a policy does to a known distribution, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from typer import Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError
from mdsample_cli.files import require_plot

if TYPE_CHECKING:
    from mdsample.exact import Toy
    from mdsample.exact.audit import Audit, Point

POLICIES = ("one-by-one", "med", "eb", "fast-dllm")


def audit(
    policy: Annotated[
        list[str] | None,
        Option("--policy", "-p", metavar="POLICY", help=f"May be repeated. Default: {', '.join(POLICIES)}."),
    ] = None,
    toy: Annotated[str, Option(metavar="NAME", help="The distribution; `list` lists them.")] = "coupled-strong",
    frontier: Annotated[
        bool, Option("--frontier", metavar="", help="Also every rule with a setting, at equal expected forward passes.")
    ] = False,
    plot: Annotated[Path | None, Option(metavar="FILE", help="Draw KL over forward passes (.png or .svg).")] = None,
    json: options.JsonLines = False,
) -> None:
    """How far a policy's law is from a known distribution, computed exactly, and what it costs.

    A policy without a draw gets temperature(1), because the question is about sampling.
    """
    from mdsample.exact import TOYS, LawTooLarge
    from mdsample.exact.audit import RULES
    from mdsample.exact.audit import audit as audited
    from mdsample.exact.audit import frontier as all_rules
    from mdsample.policy.draw import Temperature
    from mdsample_cli.show.json_line import line
    from mdsample_cli.show.screens import bar

    if toy == "list":
        typer.echo("\n".join(line({"toy": name}) if json else name for name in TOYS))
        return
    if toy not in TOYS:
        raise UsageError(f"there is no toy {toy!r}; there are: {', '.join(TOYS)}")
    require_plot(plot, (".png", ".svg"), "writes .png and .svg")
    world = TOYS[toy]()
    names = [text.strip() for text in policy or POLICIES]
    policies = [options.policy_of(text, "--policy", "leave the option out") for text in names]
    policies = [p if p.at("draw") else p + Temperature(1.0) for p in policies]
    rows: list[Audit] = []
    try:
        with bar() as progress:
            task = progress.add_task("", total=len(policies) + len(RULES) * frontier)

            def watch(name: str) -> None:
                progress.update(task, advance=1, description=name)

            for name, candidate in zip(names, policies, strict=True):
                watch(name)
                rows += audited([candidate], world)
            points = all_rules(world, watch=watch) if frontier else []
    except LawTooLarge as error:
        if rows and not json:  # show what is already computed
            _show(toy, world, names, rows, [])
        raise UsageError(str(error)) from error
    if plot is not None:
        from mdsample_cli.show.plot import draw

        draw(plot, toy, int(world.canvas().blank.sum()), rows, points)
    if json:
        for row in rows:
            typer.echo(line({"toy": toy, **_json(attrs.asdict(row))}))
        for point in points:
            typer.echo(line({"toy": toy, **_json(point._asdict())}))
        return
    _show(toy, world, names, rows, points)


def _json(values: Mapping[str, object]) -> dict[str, object]:
    """JSON has no infinity: it becomes null."""
    return {name: None if value == math.inf else value for name, value in values.items()}


def _show(toy: str, world: Toy, names: Sequence[str], rows: Sequence[Audit], points: Sequence[Point]) -> None:
    import numpy as np

    from mdsample.exact.audit import at_equal_nfe
    from mdsample_cli.show import render

    blanks = int(world.canvas().blank.sum())
    out = render.console()
    render.show(out, f"{toy}: {blanks} blanks, {world.size} tokens each; exact; KL in nats, NFE: forward passes\n")
    numbers = [
        [name, *map(_number, (row.expected_nfe, row.kl, row.kl_bound, row.tv, row.tv_bound))]
        for name, row in zip(names, rows, strict=False)
    ]
    render.show(out, render.table(out, ["NFE", "KL", "bound", "TV", "bound"], numbers))
    if points:
        grid = np.linspace(1, blanks, 5).tolist()
        reached = at_equal_nfe(points, grid)
        render.show(out, "\nKL that each rule reaches at the same expected forward passes:\n")
        curves = [[rule, *map(_number, values.tolist())] for rule, values in reached.items()]
        render.show(out, render.table(out, [f"{nfe:g}" for nfe in grid], curves, first="NFE"))


def _number(value: float) -> str:
    return "inf" if math.isinf(value) else "0" if abs(value) < 5e-10 else f"{value:.3g}"

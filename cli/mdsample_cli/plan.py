"""`mdsample inspect --plan`: what texts would take on a stated machine, or on this one's CPU."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import attrs
from typer import Option

from mdsample_cli.errors import UsageError
from mdsample_cli.groups import OptionGroup

if TYPE_CHECKING:
    from mdsample.models.cost import Machine, Pace, Texts
    from mdsample.models.families.trunk import Trunk

_PACE = re.compile(r"(?P<name>.+)=(?P<rounds>\d+(?:\.\d+)?)(?:/(?P<nfe>\d+(?:\.\d+)?))?")


@attrs.frozen(kw_only=True)
class PlanOptions(OptionGroup):
    """A machine, texts, and how many passes they take."""

    panel: ClassVar = "Plan"

    plan: Annotated[
        bool, Option("--plan", metavar="", help="Predict the time of a forward pass and of a text, by arithmetic.")
    ] = False
    bandwidth: Annotated[
        float | None, Option(metavar="N", help="What the device reads, GB/s. Default: measured on this CPU.")
    ] = None
    tflops: Annotated[
        float | None,
        Option(metavar="N", help="What it multiplies, 10^12 operations a second. Default: measured on this CPU."),
    ] = None
    batch: Annotated[int | None, Option(metavar="N", min=1, help="Texts in one forward pass. Default: 1.")] = None
    length: Annotated[int | None, Option(metavar="N", min=1, help="Tokens of a text. Default: 512.")] = None
    blanks: Annotated[int | None, Option(metavar="N", min=1, help="Tokens of it to be filled. Default: 128.")] = None
    window: Annotated[
        int | None,
        Option(metavar="N", min=1, help="Places looked at in a pass. Default: the model's block, or 32."),
    ] = None
    pace: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=ROUNDS/NFE",
            help="Passes of a text, one after another and in all, as bench tells them: eb+8=23/167. May be repeated. "
            "Default: one by one.",
        ),
    ] = None

    def check(self) -> None:
        """`UsageError` for an option of a plan without `--plan`."""
        given = [name for name, value in attrs.asdict(self).items() if name != "plan" and value]
        if given and not self.plan:
            raise UsageError(f"--{given[0]} is part of a plan; add --plan, or leave it out")

    def texts(self, trunk: Trunk) -> Texts:
        """What is to be filled; `UsageError` if it cannot be."""
        from mdsample.models.cost import Texts

        length, blanks = self.length or min(512, trunk.max_length), self.blanks or 128
        blanks = blanks if self.blanks else min(blanks, length)
        if length > trunk.max_length:
            raise UsageError(f"the model takes {trunk.max_length:,} tokens at most; --length is {length:,}")
        if blanks > length:
            raise UsageError(f"--blanks is {blanks:,}, and a text has {length:,} tokens; make --length longer")
        if trunk.block is not None and self.window not in (None, trunk.block):
            raise UsageError(f"the model's own blocks have {trunk.block} places; leave out --window {self.window}")
        window = self.window or trunk.block or 32
        return Texts(batch=self.batch or 1, length=length, blanks=blanks, window=min(window, length))

    def machine(self) -> Machine:
        """As stated, or as measured; `UsageError` for half a statement or what is no rate."""
        from mdsample.models.cost import Machine

        if self.bandwidth is None and self.tflops is None:
            from mdsample.backend.probe import probe

            return probe()
        if self.bandwidth is None or self.tflops is None:
            raise UsageError("a machine needs both --bandwidth and --tflops; without either this CPU is measured")
        try:
            return Machine(1e9 * self.bandwidth, 1e12 * self.tflops)
        except ValueError as error:
            raise UsageError(f"--bandwidth and --tflops: {error}") from None

    def paces(self, blanks: int) -> list[Pace]:
        """How texts are filled; `UsageError` for what cannot be read."""
        from mdsample.models.cost import Pace

        paces = [] if self.pace else [Pace("one by one", blanks, blanks)]
        for text in self.pace or ():
            matched = _PACE.fullmatch(text)
            if matched is None:
                raise UsageError(f"--pace takes a name and passes, as in med=47.6 or eb+8=23/167; got {text!r}")
            rounds = float(matched["rounds"])
            try:
                paces.append(Pace(matched["name"], rounds, float(matched["nfe"] or rounds)))
            except ValueError as error:
                raise UsageError(f"--pace {text}: {error}") from None
        return paces

    def predicted(self, trunk: Trunk, item: int) -> dict[str, Any]:
        """The machine (`bandwidth` bytes/s, `rate` operations/s), passes of 1, 2, 4 … rows, and texts, in seconds."""
        from mdsample.models.cost import pass_cost, text_seconds

        texts = self.texts(trunk)
        paces = self.paces(texts.blanks)
        machine = self.machine()
        kept = ["none", "dual" if trunk.block is None else "exact"]
        passes: list[dict[str, Any]] = []
        for cache in kept:
            computed, wanted = texts.length if cache == "none" else texts.window, min(texts.window, texts.blanks)
            for rows in (1, 2, 4, 8, 16, 32):
                cost = pass_cost(trunk, texts.batch * rows, texts.length, computed, wanted, item)
                bound = "reading" if cost.reading(machine) >= cost.multiplying(machine) else "multiplying"
                passes.append({"cache": cache, "rows": rows, "seconds": cost.seconds(machine), "bound": bound})
        filled: list[dict[str, Any]] = []
        for pace in paces:
            # guesses need a cache that changes nothing
            for cache in kept if pace.rows == 1 or trunk.block is not None else ["none"]:
                seconds = text_seconds(trunk, machine, texts, pace, cache, item)
                filled.append({**attrs.asdict(pace), "cache": cache, "seconds": seconds})
        return {
            "machine": attrs.asdict(machine),
            **attrs.asdict(texts),
            "item": item,
            "passes": passes,
            "texts": filled,
        }


def rows_of_plan(predicted: dict[str, Any], batch: int) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Tables of passes and of texts."""
    from mdsample_cli.show.render import count

    first = {entry["cache"]: entry["seconds"] for entry in predicted["passes"] if entry["rows"] == 1}
    passes = [
        (
            f"{count(batch * entry['rows'], 'row')}, cache {entry['cache']}",
            _short(1e3 * entry["seconds"]),
            f"{entry['seconds'] / first[entry['cache']]:.2f}",
            entry["bound"],
        )
        for entry in predicted["passes"]
    ]
    texts = [
        (
            f"{entry['name']}, cache {entry['cache']}",
            f"{entry['rounds']:g}",
            f"{entry['nfe']:g}",
            _short(entry["seconds"]),
            _short(batch / entry["seconds"]),
        )
        for entry in predicted["texts"]
    ]
    return passes, texts


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"

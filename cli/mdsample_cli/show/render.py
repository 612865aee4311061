"""What values look like on a terminal. Texts of users and models never pass as markup or control codes."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mdsample.core import html
from mdsample.core.html import BLANK, END, RAMP
from mdsample.core.tokens import Tokenizer
from mdsample.jobs.job import Answer, Job
from mdsample.models.denoiser import Denoiser
from mdsample.policy.complete import CompletePolicy, complete
from mdsample.policy.draw import Greedy, Temperature
from mdsample.policy.guide import NoGuide
from mdsample.policy.holding import Holding
from mdsample.policy.menu import Entry
from mdsample.sampling.row import Row, pieces
from mdsample.sampling.state import State
from mdsample.scoring.watch import SlotReading
from mdsample.tasks.catalog import task_of
from mdsample_cli.show.json_line import visible

WIDEST = 100
#: lengths that were tried, of those that are shown
_LENGTHS = 5
#: columns for how a part is written
_SIGNATURE = 28
#: what joins the parts of an emoji
_JOINER = "\u200d"


class _Console(Console):
    """A console that leaves a closed pipe to `main`, which does not count it as a failure."""

    def on_broken_pipe(self) -> None:
        """Raises it again, where rich would exit with code 1."""
        raise BrokenPipeError


#: a term of policy text with the `+` after it; a `+` in quotes does not end it
_TERM = re.compile(r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^+'"])+\+?""")


def console(stderr: bool = False, width: int = 80) -> Console:
    """A console without markup: a terminal's own width up to `WIDEST`; elsewhere `width`."""
    out = _Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    out.width = min(out.width, WIDEST) if out.is_terminal else width
    return out


def show(out: Console, *things: RenderableType) -> None:
    """Prints things; what is not for a terminal gets no spaces at the ends of its lines."""
    if out.is_terminal:
        out.print(*things, sep="\n")
        return
    with out.capture() as captured:
        out.print(*things, sep="\n")
    for text in captured.get().splitlines():
        print(text.rstrip(), file=out.file)
    out.file.flush()


def plain(text: str, style: str | Style = "") -> Text:
    """Text of a user or model; control characters are escaped."""
    return Text(visible(text, "\n\t"), style)


def count(number: int, name: str, ending: str = "s") -> str:
    """A number of things: `1 pass`, `2 passes`."""
    return f"{number:,} {name}{ending * (number != 1)}"


def seconds(number: float) -> str:
    """A time."""
    return f"{number:.1f} s" if number < 100 else f"{number // 60:.0f} min {number % 60:.0f} s"


def speed(time: float, filled: int) -> str:
    """How long something took, seconds, and how fast blanks were filled."""
    return f"{seconds(time)}, {filled / time:,.0f} tokens a second"


def policy(text: str, width: int) -> Text:
    """A policy's text, broken after a `+` where it is longer than `width`, so that no word is torn."""
    lines = [""]
    for term in _TERM.findall(text):
        lines = [*lines[:-1], lines[-1] + term] if len(lines[-1] + term) <= width else [*lines, term]
    return plain("\n".join(filter(None, lines)))


def listing(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Labels on the left, their values on the right."""
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, value in rows:
        grid.add_row(label, value)
    return grid


def report(*rows: tuple[str, str]) -> None:
    """Prints what became of a job, labels on the left."""
    show(console(), listing((label, plain(text)) for label, text in rows))


def entries(out: Console, menu: Iterable[Entry]) -> Table:
    """Lines of the menu: how each is written, and what it does."""
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="cyan", width=_SIGNATURE)
    grid.add_column(ratio=1)
    for entry in menu:
        lines = [plain(entry.summary)]
        if entry.parts:
            lines.insert(0, policy(entry.parts, out.width - _SIGNATURE - 2))
            lines[0].stylize("cyan")
        grid.add_row(Padding(entry.signature, (0, 0, 0, 2)), Text("\n").join(lines))
    return grid


def _certainty(row: Row, policy: CompletePolicy) -> list[tuple[str, str]]:
    """What parallel steps may have cost, in words that suit the policy: texts are counted for the model's own law."""
    if not math.isfinite(row.error_bound):
        if isinstance(policy.revise, Holding):
            return [("error bound", "no bound (written tokens were drawn or edited again)")]
        if any(constraint.weighs for constraint in policy.constraints):
            why = "a slot's language weighs how likely the rest of the slot is"
        else:
            why = "tokens were re-masked" if policy.revise.budget else "the model's noise is uniform"
        return [("error bound", f"no bound ({why})")]
    bound = f"{row.error_bound:.3g} nats (KL), {row.tv_bound:.3g} (total variation)"
    own = policy.draw == Temperature() and policy.guide == NoGuide() and not policy.constraints
    if own and row.tv_bound < 1:
        bound += f": up to {100 * row.tv_bound:.2g} in 100 texts differ from one at a time"
    together = f"{100 * row.certain:.0f} % of tokens are provably the best of their step"
    return [("error bound", bound), *([("certain", together)] if isinstance(policy.draw, Greedy) else [])]


def answer(job: Job, given: Answer, named: bool, label: str, time: float | None) -> RenderableType:
    """An answer; `named` shows its id, `label` is the policy's text, `time` what it took in seconds."""
    request, row = given.request, given.row
    rows: list[tuple[str, RenderableType]] = [("id", plain(str(request.id)))] if named else []
    if row is None:
        return listing([*rows, ("error", plain(request.error, "red")), ("", "")])
    rows += [(name, plain(text.strip())) for name, text in request.texts.items()]
    rows += [(message["role"], plain(message["content"].strip())) for message in request.messages]
    slots = {name: reply(row, number) for number, name in enumerate(job.template.slots)}
    if request.expected is not None and "answer" in slots:
        slots["answer"] += plain(f"   (expected: {request.expected})", "dim")
    task = task_of(str(job.template))
    if task is not None and task.grid:
        board = Text("\n").join(Text(" ").join(slots.pop(name) for name in line) for line in task.grid)
        rows.append(("board", board))
    rows += slots.items()
    rows += [("along", reading) for reading in along(given.readings)]
    blanks = f"{row.filled} of {row.filled + row.unfilled}" if row.unfilled else f"{row.filled}"
    in_steps = f" in {count(row.steps, 'step')}" if row.steps != row.nfe else ""
    in_steps += f" and {count(row.rounds, 'round')}" if row.rounds < row.steps else ""
    took = [] if time is None else [("time", speed(time, row.filled))]
    left = _left_blank(row, job.template.slots)
    sampler = job.sampler
    where = f"{job.denoiser.name} on {job.denoiser.backend}{_cached(job.denoiser)}, seed {sampler.seed}"
    return listing(
        [
            *rows,
            ("", ""),
            ("passes", f"{row.nfe}{in_steps} for {blanks} blanks, {row.tokens_per_forward:.1f} tokens each"),
            *took,
            *([("lengths", plain(tried(row)))] if row.tried else []),
            *([("length", plain(grown(row)))] if row.grown else []),
            ("outcome", plain(row.outcome.sentence)),
            *([("left blank", plain(left, "yellow"))] if left else []),
            *_certainty(row, complete(sampler.policy)),
            ("policy", policy(label, 64)),
            ("model", plain(where)),
            ("", ""),
        ]
    )


def _left_blank(row: Row, names: Sequence[str]) -> str:
    """What a stop rule left unwritten; empty if nothing."""
    if not row.unfilled:
        return ""
    blank = [(row.blank & (row.slot == number)).sum() for number in range(len(names))]
    where = ", ".join(f"{n} of {name}" for name, n in zip(names, blank, strict=True) if n)
    asked = f"leave out {row.outcome.name} to have them filled"
    return f"{where} (░), after {count(row.nfe, 'pass', 'es')}; {asked}"


def grown(row: Row) -> str:
    """How a slot came to its length."""
    first, last = row.grown[0], row.grown[-1]
    how = f"grown to {last.length} from {first.length}" if last is not first else f"{last.length}, the fewest"
    return f"{how}, in {count(len(row.grown), 'pass', 'es')}; end seen to {last.end:.0%}"


def tried(row: Row) -> str:
    """The lengths that were tried for a row, best first."""
    scored = sorted(row.tried, key=lambda one: -(one.score or 0.0))
    named = [
        " and ".join(f"{name} {length}" for name, length in one.lengths.items())
        + ("" if one.score is None else f" (log p {one.score:.2f})")
        for one in scored[:_LENGTHS]
    ]
    return "; ".join([*named, *([f"and {len(scored) - _LENGTHS} others"] if len(scored) > _LENGTHS else [])])


def legend() -> Text:
    """What the colours of slots mean."""
    return Text.assemble(("order of writing: first ", "dim"), *(("█", colour) for colour in RAMP), (" last", "dim"))


def along(readings: Sequence[SlotReading]) -> list[Text]:
    """The passes in which a watched slot's answer changed, and the last one."""
    lines: list[Text] = []
    for number, reading in enumerate(readings):
        if 0 < number < len(readings) - 1 and reading.text == readings[number - 1].text:
            continue
        text = f"{100 * reading.written:3.0f} % written: {reading.text or '(nothing)'}  {reading.entropy:.2f} nats"
        if reading.log_probability is not None:
            text += f", log p(expected answer) {reading.log_probability:z.2f}"
        lines.append(plain(text))
    return lines


def _cached(denoiser: Denoiser) -> str:
    kept = denoiser.cache
    return "" if kept is None else f", cache {kept}, approximate" if kept.approximate else f", cache {kept}"


def reply(row: Row, slot: int | None = None) -> Text:
    """What the model wrote, of one slot or from the first on: tokens coloured by step, blanks shaded."""
    step = {commit.position: commit.step for commit in row.commits}
    text = Text()
    for place, piece in row.shown():
        if slot is None or row.slot[place] == slot:
            written = not row.blank[place] and place in step
            colour = RAMP[html.colour(step[place], row.steps)] if written else "dim" if row.blank[place] else ""
            text.append_text(plain(piece if text else piece.lstrip(), colour))
    text.rstrip()
    return text


def canvas(state: State, row: int, tokenizer: Tokenizer) -> Text:
    """A row in its present state: fixed text dim, blanks shaded, what the last step wrote bold."""
    text = Text()
    length = int(state.canvas.valid[row].sum())
    tokens, blank = state.tokens[row, :length].tolist(), state.blank[row, :length].tolist()
    opened, written = state.canvas.blank[row, :length].tolist(), state.written[row, :length].tolist()
    latest = int(state.step[row]) - 1
    for empty, run in groupby(range(length), blank.__getitem__):
        positions = list(run)
        if empty:
            text.append(BLANK * len(positions), "dim")
            continue
        for place, piece in zip(positions, pieces(tokenizer, [tokens[p] for p in positions]), strict=True):
            ended = opened[place] and tokens[place] in tokenizer.ends
            style = "dim" if not opened[place] else "bold green" if written[place] == latest else ""
            text.append_text(plain(END if ended else piece, style))
    return text


def written(state: State, row: int, tokenizer: Tokenizer) -> Text:
    """What the last step wrote in a row, as one line: step, then position and text of each token."""
    latest = int(state.step[row]) - 1
    places = (state.written[row] == latest).nonzero()[0].tolist()
    tokens = [f"{place}:{tokenizer.decode([int(state.tokens[row, place])])!r}" for place in places]
    return plain(f"step {latest + 1:<4}{'  '.join(tokens)}")


def progress(nfe: int, blanks: int, left: int) -> str:
    """How far a row of so many blanks is."""
    return f"{count(nfe, 'forward pass', 'es')}, {blanks - left} of {count(blanks, 'blank')} filled"


def folded(text: Text, width: int) -> list[Text]:
    """Lines of at most `width` columns, cut between characters: what stands before a change stays where it is."""
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        line.expand_tabs(8)
        cuts, used = list[int](), 0
        for place, columns in enumerate(map(cell_len, line.plain)):
            joined = line.plain[place - 1 : place] == _JOINER or not columns  # emoji and letters stay whole
            if used + columns > width and not joined:
                cuts.append(place)
                used = 0
            used += columns
        lines += line.divide(cuts)
    return lines


def frame(state: State, row: int, tokenizer: Tokenizer, width: int, height: int | None = None) -> RenderableType:
    """The canvas of a row, its end if not all fits into `height` lines, and how far it is."""
    below = progress(int(state.nfe[row]), int(state.canvas.blank[row].sum()), int(state.blank[row].sum()))
    return window(canvas(state, row, tokenizer), below, width, height)


def window(text: Text, below: str, width: int, height: int | None = None) -> RenderableType:
    """A text, its end if not all fits into `height` lines, and a line below it."""
    lines = folded(text, width)
    if height is not None and len(lines) > height - 2:
        lines = [Text("…", "dim"), *lines[len(lines) - max(1, height - 3) :]]
    return Group(*lines, Text(below, "cyan", no_wrap=True))


def table(out: Console, headings: Sequence[str], rows: Iterable[Sequence[str]], first: str = "policy") -> Group:
    """Numbers under headings, and a name before each line, or above it where both do not fit into the width.

    Last columns are left out where not even the numbers fit.
    """
    rows = [[first, *headings], *rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    while len(widths) > 2 and sum(widths[1:]) + 2 * len(widths) > out.width:
        widths.pop()
    free = out.width - sum(2 + width for width in widths[1:])
    named = min(widths[0], free)
    # of a few long names only these stand above their numbers
    fitting = [cell_len(row[0]) for row in rows if cell_len(row[0]) <= named]
    named = max(fitting, default=1) if len(fitting) > len(rows) // 2 else 1
    lines: list[Text] = []
    for number, (name, *cells) in enumerate(rows):
        style = "cyan" if number == 0 else ""
        numbers = plain(
            "".join("  " + cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=False)), style
        )
        if cell_len(name) <= named:
            lines.append(plain(name + " " * (named - cell_len(name)), style) + numbers)
        else:
            lines += [policy(name, out.width), Text(" " * named) + numbers]
            lines[-2].stylize(style)
    return Group(*lines)


def is_terminal(stderr: bool) -> bool:
    """Whether the stream is a terminal."""
    return (sys.stderr if stderr else sys.stdout).isatty()

"""The README's picture: a real run of tiny-gsm, its canvas filling in the order in which the model wrote.

    python benchmarks/canvas.py [--write] [--policy POLICY]

Without `--write` it is drawn into a folder of its own, whose name is printed. It is an SVG whose tokens appear by CSS,
so it moves wherever pictures do, and shows the whole text where they do not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path

from common import add_write, command_line

import mdsample
from mdsample.core.files import write_whole
from mdsample.core.html import RAMP, colour
from mdsample.sampling.row import pieces

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "run.svg"
PROMPT = "Ann has 3 coins. Ben has 4 more than Ann. Cem has twice as many as Ben. How many coins does Cem have?"
#: columns, and what a character takes in pixels
COLUMNS, WIDE, HIGH = 76, 8.4, 22
#: seconds a step is shown, and the whole text at the end
STEP, REST = 0.12, 4.0
MARGIN, GREY = 20, "#8b949e"


def letters(row: mdsample.Row) -> Iterator[tuple[str, int]]:
    """The characters of a row, each with the position of its token."""
    begins = int((row.slot >= 0).argmax())
    fixed = pieces(row.tokenizer, row.tokens[:begins].tolist())
    for place, piece in (*enumerate(fixed), *row.shown()):
        yield from ((letter, place) for letter in piece)


def lines(row: mdsample.Row) -> Iterator[list[tuple[str, int]]]:
    """The characters in lines that are broken between words."""
    line: list[tuple[str, int]] = []
    for letter, place in letters(row):
        if letter == "\n":
            yield line
            line = []
            continue
        line.append((letter, place))
        if len(line) > COLUMNS:
            cut = max(number for number, (other, _) in enumerate(line) if other == " ")
            yield line[:cut]
            line = line[cut + 1 :]
    yield line


def picture(row: mdsample.Row) -> str:
    """SVG: letters where they stand, each under a cover that goes away in the step that wrote it."""
    steps = {place: commit.step for place, commit in row.written.items()}
    seen = {steps[place] for place, _ in row.shown() if place in steps}  # end tokens are often written first
    whole = row.steps * STEP + REST
    texts, covers, y = list[str](), list[str](), MARGIN
    for line in lines(row):
        y += HIGH
        for column, (letter, place) in enumerate(line):
            x, step = MARGIN + column * WIDE, steps.get(place)
            look = GREY if step is None else RAMP[colour(step - min(seen), max(seen) - min(seen) + 1)]
            if letter != " ":
                texts.append(f'<text x="{x:.1f}" y="{y}" fill="{look}">{escape(letter)}</text>')
            if step is not None:
                covers.append(f'<rect class="c c{step}" x="{x:.1f}" y="{y - 14}" width="{WIDE - 1:.1f}" height="18"/>')
    y += HIGH + 10
    cost = f"{len(steps)} blanks in {row.nfe} forward passes; green was written first, violet last"
    texts.append(f'<text x="{MARGIN}" y="{y}" fill="{GREY}">{cost}</text>')
    moves = ""
    for step in range(row.steps):
        until = 100 * (step + 1) * STEP / whole
        moves += f"@keyframes k{step}{{0%,{until:.2f}%{{opacity:1}}{until + 0.5:.2f}%,100%{{opacity:0}}}}"
        moves += f".c{step}{{animation:k{step} {whole:.2f}s linear infinite}}"
    style = "text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}.c{opacity:0;fill:#30363d}"
    still = "@media(prefers-reduced-motion:reduce){.c{animation:none!important}}"
    width = round(2 * MARGIN + COLUMNS * WIDE)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + MARGIN}" width="{width}">'
        f"<title>{escape(PROMPT)} {escape(row.text)}</title><style>{style}{moves}{still}</style>"
        f'<rect width="100%" height="100%" rx="10" fill="#0d1117"/>{"".join(texts)}{"".join(covers)}</svg>\n'
    )


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    add_write(parser, "docs/pictures/run.svg")
    parser.add_argument("--policy", default="med", help="default: %(default)s")
    options = parser.parse_args()
    row = mdsample.sample(mdsample.load("tiny-gsm", backend="reference"), PROMPT, policy=options.policy)
    path = PICTURE if options.write else Path(tempfile.mkdtemp()) / PICTURE.name
    write_whole(path, picture(row).encode())
    print(path)


if __name__ == "__main__":
    main()

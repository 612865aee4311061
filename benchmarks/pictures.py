"""The pictures of the documentation, drawn again from the numbers that are kept in docs/data. Nothing is measured.

    python benchmarks/pictures.py [--write]

Without `--write` they are drawn into a folder of their own, whose name is printed.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import attrs
import exact_study
import model_study
from common import add_write, command_line
from mdsample_cli.show.picture import draw

from mdsample.evaluation.bench import PolicyScore
from mdsample.evaluation.intervals import Interval

DOCS = Path(__file__).parents[1] / "docs"
#: defaults of parts and of seats, which the picture of a bench does not repeat
UNSAID = r"blocks\(size=32\)\+|noise=0|,?k=none|\+greedy|\+never|\+none|\(\)|\b[a-z]+="


def score(line: dict[str, object]) -> PolicyScore:
    """A score as it was written."""
    names = [field.name for field in attrs.fields(PolicyScore)]
    intervals = {x: Interval(*(line[x + end] for end in ("", "_low", "_high"))) for x in names if f"{x}_low" in line}
    return PolicyScore(**{name: intervals.get(name, line[name]) for name in names})


def boards(path: Path) -> None:
    """The bench on 6 x 6 boards."""
    lines = [json.loads(line) for line in (DOCS / "data" / "sudoku6.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [re.sub(r"\(\)", "", re.sub(UNSAID, "", line["policy"])) for line in lines]
    draw([score(line) for line in lines], texts, path)


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    add_write(parser, "docs/pictures")
    where = DOCS / "pictures" if parser.parse_args().write else Path(tempfile.mkdtemp())
    boards(where / "sudoku6.svg")
    for task in ("tiny-gsm", "sudoku"):
        model_study.redraw(task, where / f"study_{task}.svg")
    exact_study.picture(where / "exact_frontier")
    print(where)


if __name__ == "__main__":
    main()

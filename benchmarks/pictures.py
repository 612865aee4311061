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
from common import add_write, command_line
from mdsample_cli.show.frontier import Points, frontier
from mdsample_cli.show.picture import draw
from mdsample_cli.show.style import drawing, save

from mdsample.evaluation.bench import PolicyScore
from mdsample.evaluation.intervals import Interval
from mdsample.evaluation.study_file import read_study

DOCS = Path(__file__).parents[1] / "docs"
#: defaults of parts and of seats, which the picture of a bench does not repeat
UNSAID = r"blocks\(size=32\)\+|noise=0|,?k=none|\+greedy|\+never|\+none|\(\)|\b[a-z]+="


def score(line: dict[str, object]) -> PolicyScore:
    """A score as it was written."""
    names = [field.name for field in attrs.fields(PolicyScore)]
    intervals = {x: Interval(*(line[x + end] for end in ("", "_low", "_high"))) for x in names if f"{x}_low" in line}
    intervals.setdefault("rounds", intervals["nfe"])  # from before they were told apart
    return PolicyScore(**{name: line[name] for name in names if name in line} | intervals)


def boards(path: Path) -> None:
    """The bench on 6 x 6 boards."""
    lines = [json.loads(line) for line in (DOCS / "data" / "sudoku6.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [re.sub(r"\(\)", "", re.sub(UNSAID, "", line["policy"])) for line in lines]
    draw([score(line) for line in lines], texts, path)


def study(name: str, path: Path) -> None:
    """A study of benchmarks/studies, from what `mdsample study --json` printed."""
    rules = read_study((Path(__file__).parent / "studies" / f"{name}.toml").read_text(encoding="utf-8")).rules
    kept = (DOCS / "data" / f"study_{name}.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in kept.splitlines()]
    told = {line["text"]: (line["nfe"], 100 * line["accuracy"]) for line in lines}
    points: dict[str, Points] = {rule.name: [told[text] for text in rule.texts] for rule in rules}
    curves = {rule.name: points[rule.name] for rule in rules if len(rule.texts) > 1}
    onward = [rule.name for rule in rules if rule.name in curves and re.search("ar-med|left-to-right", rule.texts[0])]
    panels = {"most certain first": [rule for rule in curves if rule not in onward]}
    panels |= {"left to right": ["MED", *onward]} if onward else {}
    stars = {rule.name: points[rule.name] for rule in rules if rule.name.endswith("+top(1)")}
    with drawing("study"):
        save(frontier(f"{lines[0]['task']}, {lines[0]['limit']} problems", panels, curves, stars, "0.25"), path)


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    add_write(parser, "docs/pictures")
    where = DOCS / "pictures" if parser.parse_args().write else Path(tempfile.mkdtemp())
    boards(where / "sudoku6.svg")
    for name in ("tiny-gsm", "sudoku"):
        study(name, where / f"study_{name}.svg")
    exact_study.picture(where / "exact_frontier")
    print(where)


if __name__ == "__main__":
    main()

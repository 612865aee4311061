"""The report of a study: one page of HTML with its numbers and pictures, which needs nothing else.

Whatever labels, policies and errors hold is escaped; no script runs and nothing is fetched, and the page says so to the
browser. It takes the reader's light or dark colours and fits a phone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from mdsample._version import versions
from mdsample.core.html import text
from mdsample.evaluation.curves import WITHIN, at_passes, by_rule, fewest
from mdsample.evaluation.study import Cell, Results
from mdsample.evaluation.study_file import Study
from mdsample_cli.show import study_table
from mdsample_cli.show.frontier import Points, dealt, frontier
from mdsample_cli.show.style import INK, drawing, inline

#: what a report begins with
OPENING = "<!doctype html>"
_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1rem;background:Canvas;color:CanvasText}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.2rem;margin-top:2.5rem}h1,h2,p{overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.875rem}
caption{text-align:left;padding:.25rem 0;font-weight:600}
th,td{padding:.25rem .75rem;border-bottom:1px solid #8886;text-align:right;white-space:nowrap}
th:first-child{text-align:left}th[scope=row]{font-weight:400;white-space:normal;min-width:14rem}
code,pre{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.875em}
pre{overflow-x:auto;padding:.75rem;border:1px solid #8886;border-radius:.5rem}
svg{width:100%;min-width:36rem;height:auto}.failed{border-left:4px solid #D55E00;padding-left:.75rem}
"""
#: settings of matplotlib that take the page's colour
_INKED: tuple[str, ...] = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(study: Study, cells: Sequence[Cell]) -> str:
    """The page."""
    inside = [f"<h1>{text(study.title)}</h1>", f"<p>{text(_facts(study, cells))}</p>", _failures(cells)]
    for number, (task, model, group) in enumerate(study_table.groups(cells)):
        inside.append(f"<h2>{text(study_table.place(task, model, group))}</h2>")
        if any(cell.results is not None for cell in group):
            inside += _group(study, group, f"{task}, {model}", number)
    inside.append(f"<h2>The study file</h2><pre tabindex='0'>{text(study.text)}</pre>")
    return (
        f'{OPENING}\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{text(study.title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, inside))
        + "\n</main></body></html>\n"
    )


def _facts(study: Study, cells: Sequence[Cell]) -> str:
    seconds = sum(float(cell.results.seconds.sum()) for cell in cells if cell.results is not None)
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    seeds = ", ".join(map(str, study.seeds))
    return (
        f"{len(cells)} cells, seeds {seeds}, {seconds:,.0f} s of sampling; compared with {study.rules[0].name}; "
        f"intervals are 95 %. Made by {made}."
    )


def _failures(cells: Sequence[Cell]) -> str:
    failed = [cell for cell in cells if cell.results is None]
    lines = [f"{cell.task}, {cell.model}: {cell.text}: {cell.error}" for cell in failed]
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f'<section class="failed"><h2>{len(failed)} cells failed</h2><ul>{items}</ul></section>' if failed else ""


def _group(study: Study, cells: Sequence[Cell], name: str, number: int) -> Iterable[str]:
    """The picture and the tables of one task and model."""
    good = [cell for cell in cells if cell.results is not None]
    rules = by_rule(good)
    yield _picture(good, rules, name, number)
    rows = [[study_table.label(cell), *study_table.numbers(cell)] for cell in good]
    yield _table(f"Accuracy against forward passes, {name}", ["policy", *study_table.COLUMNS], rows)
    if study.at and (compared := at_passes(rules, study.at, study.against)):
        yield _table(
            f"Rules at equal passes, {name}; in parentheses minus {study.against}",
            ["rule", *(f"{point:g} passes" for point in study.at)],
            [[found.rule, *study_table.at_cells(found)] for found in compared],
        )
    if good[0].baseline is not None and len(good) > 1:
        lost = f"{100 * WITHIN:g} points"
        yield _table(
            f"Fewest passes within {lost} of {study.rules[0].name}, {name}",
            ["rule", "passes"],
            [[found.rule, study_table.fewest_cell(found)] for found in fewest(rules, good[0].baseline)],
        )


def _picture(cells: Sequence[Cell], rules: dict[str, list[Results]], name: str, number: int) -> str:
    def points(rule: str) -> Points:
        return [(cell.nfe.value, 100 * cell.accuracy.value) for cell in cells if cell.rule == rule]

    curves = {rule: points(rule) for rule, results in rules.items() if len(results) > 1}
    stars = {rule: points(rule) for rule in rules if rule not in curves}
    best = max(cells, key=lambda cell: cell.accuracy.value)
    alt = (
        f"Accuracy against forward passes of {len(rules)} rules, {name}; the best is {best.text} with "
        f"{100 * best.accuracy.value:.1f} % in {best.nfe.value:.1f} passes. The numbers are in the table below."
    )
    # what files say is text, and no formula
    with drawing("study", {**dict.fromkeys(_INKED, INK), "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of scripts that the font lacks
        svg = inline(frontier(" ", dealt(list(curves)), curves, stars, INK), alt, f"p{number}-")
    return f'<div class="wide" tabindex="0" role="region" aria-label="picture, {text(name)}">{svg}</div>'


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>' + "".join(f"<td>{text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )

"""Html: the pictures that notebooks show of values. All text is escaped; colours suit light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import groupby

import attrs

#: colours of tokens by when they were written, from the first steps to the last
RAMP = ("#5ec962", "#3fbc73", "#21a585", "#25858e", "#3b6ea8", "#6a5acd", "#8f4fc0", "#b34fa8")
#: what is shown for a blank, and for an end token
BLANK, END = "░", "·"
#: letters' joiners: not printable by Python's definition, but part of words and of emoji
_JOINERS = "\u200c\u200d"

# text takes the page's colour and tints are translucent, so nothing here depends on the page being light or dark
_STYLE = (
    ".mdsample{font-size:14px;line-height:1.5;max-width:46em}"
    ".mdsample .facts,.mdsample .key{font-size:12px;font-variant-numeric:tabular-nums}"
    ".mdsample .facts span,.mdsample .key{opacity:.72}.mdsample .facts b{font-size:14px}"
    ".mdsample .text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    "font-size:13px;line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere;margin:.5em 0;padding:.7em .9em;"
    "border:1px solid #8884;border-radius:8px;background:#8881}"
    ".mdsample .text span{border-radius:2px;padding:2px 0;transition:opacity .15s}"
    ".mdsample .text .f{opacity:.6}.mdsample .text .b{opacity:.3}.mdsample .text .e{border-radius:0;opacity:.55}"
    ".mdsample .text span[title]:hover{outline:1.5px solid currentColor}"
    ".mdsample .key i{display:inline-block;width:1.5em;height:.8em;vertical-align:-.05em}"
    ".mdsample .key i:first-of-type{border-radius:3px 0 0 3px;margin-left:.3em}"
    ".mdsample .key i:last-of-type{border-radius:0 3px 3px 0;margin-right:.3em}"
    ".mdsample .chip{display:inline-block;margin:.15em .35em .15em 0;padding:.15em .6em;border:1px solid #8886;"
    "border-radius:8px;background:#8881}.mdsample .chip small{display:block;opacity:.65;line-height:1.2}"
    ".mdsample summary{cursor:pointer}.mdsample details{margin:.25em 0}"
    + "".join(
        f".mdsample .s{n}{{background:{colour}59;box-shadow:inset 0 -2px {colour}}}"
        f".mdsample .key .s{n}{{background:{colour}}}"
        # pointing at a colour of the key leaves only its tokens in the light
        f".mdsample:has(.key .s{n}:hover) .text span:not(.s{n}){{opacity:.2}}"
        for n, colour in enumerate(RAMP)
    )
)


@attrs.frozen
class Cell:
    """A piece of a picture's text."""

    text: str
    #: what the mouse shows; empty: nothing
    title: str = ""
    #: how it looks: `f` fixed text, `b` a blank, `s0` to `s7` written, a colour of `RAMP`, with ` e` an end token
    look: str = "f"


def colour(step: int, steps: int) -> int:
    """The number in `RAMP` of what step `step` (from 0) of `steps` wrote."""
    return min(step * len(RAMP) // max(1, steps), len(RAMP) - 1)


def text(value: object) -> str:
    """Somebody's text, safe in HTML: escaped, control characters spelled out."""
    return escape("".join(c if c.isprintable() or c in "\n\t" or c in _JOINERS else repr(c)[1:-1] for c in str(value)))


def picture(inside: str) -> str:
    """The whole picture: its style and its content, both HTML."""
    return f'<div class="mdsample"><style>{_STYLE}</style>{inside}</div>'


def facts(bold: str, *others: str) -> str:
    """A line of facts, all plain text, the first one bold."""
    rest = "".join(f" · {text(other)}" for other in others)
    return f'<div class="facts"><b>{text(bold)}</b><span>{rest}</span></div>'


def cells(row: Iterable[Cell]) -> str:
    """A row's text; neighbours that look the same and say nothing are one element."""
    out: list[str] = []
    for (look, title), run in groupby(row, lambda cell: (cell.look, cell.title)):
        about = f' title="{text(title)}"' if title else ""
        pieces = [text(cell.text) for cell in run]
        # a line may break after every blank and end token, which HTML takes for letters of one word
        out += [
            f'<span class="{look}"{about}>{piece}</span>' + "<wbr>" * (piece in (BLANK, END))
            for piece in (pieces if title else ["".join(pieces)])
        ]
    return f'<div class="text">{"".join(out)}</div>'


def key(first: str, last: str) -> str:
    """What the colours mean, from the first tokens written to the last."""
    ramp = "".join(f'<i class="s{n}"></i>' for n in range(len(RAMP)))
    marks = f"&emsp;{END} end &emsp;{BLANK} left blank &emsp;grey: given"
    return f'<div class="key">{text(first)} {ramp} {text(last)} {marks}</div>'


def chips(pairs: Iterable[tuple[str, str]]) -> str:
    """Labelled values, plain text, side by side."""
    return "".join(f'<span class="chip"><small>{text(label)}</small>{text(value)}</span>' for label, value in pairs)

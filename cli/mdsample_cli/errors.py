"""What ends a command early, and how that is told."""

from __future__ import annotations

import os
import re
import sys

import typer

#: characters of a line of a message; of a longer one what stands around a caret, or at its ends
_LONGEST, _AROUND = 1000, 300


def told(message: str) -> str:
    """A message for a terminal: one line, and below it what it points at, set in.

    What it repeats may hold anything: control characters are escaped, and of long lines the midst is left out, or all
    that is far from a caret.
    """
    from mdsample_cli.show.json_line import visible

    lines = re.split(r"\n(?=  )", message)
    if len(lines) > 1 and lines[-1].endswith(" ^") and len(lines[-2]) > _LONGEST:
        caret = len(lines[-1]) - 1
        start = max(2, caret - _AROUND)
        lines[-2] = f"  … {lines[-2][start : caret + _AROUND]} …"
        lines[-1] = " " * (caret - start + 4) + "^"
    for number, line in enumerate(lines):
        if len(line) > _LONGEST:
            lines[number] = f"{line[: _LONGEST - _AROUND]} … {line[-_AROUND:]}"
    return "\n".join(map(visible, lines))


def tell_error(message: str) -> None:
    """Prints an error on stderr."""
    # https://no-color.org; rich heeds it by itself
    head = "error: "
    typer.secho(head, fg="red", bold=True, nl=False, err=True, color=False if os.environ.get("NO_COLOR") else None)
    typer.echo(_in_lines(told(message), len(head)), err=True)


def note(message: str) -> None:
    """Prints a line that is not an error on stderr."""
    typer.echo(_in_lines(told(message)), err=True)


def _in_lines(text: str, before: int = 0) -> str:
    """A text broken between words where stderr is a terminal, which would break it anywhere; `before` columns are used.

    What a caret points into stays one line, as does a word, so that paths can be copied.
    """
    if not sys.stderr.isatty():
        return text
    from rich.cells import cell_len
    from rich.console import Console

    width, lines = Console(stderr=True).width, text.split("\n")
    pointed = 2 * lines[-1].endswith("^") if len(lines) > 1 else 0
    broken: list[str] = []
    for line in lines[: len(lines) - pointed]:
        words, indent = line.lstrip(" ").split(" "), " " * (len(line) - len(line.lstrip(" ")))
        now = indent + words[0]
        for word in words[1:]:
            if cell_len(now) + 1 + cell_len(word) <= width - before:
                now += f" {word}"
            else:
                broken.append(now)
                now, before = indent + word, 0
        broken.append(now)
        before = 0
    return "\n".join([*broken, *lines[len(lines) - pointed :]])


class UsageError(Exception):
    """The command makes no sense as given; the message says why, and what to do."""


class Interrupted(Exception):
    """The user stopped the command; the message says what is kept."""

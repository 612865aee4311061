"""What ends a command early; `main` prints the message."""

from __future__ import annotations

import re

#: characters of a line of a message; of a longer one what stands around a caret, or at its ends
_LONGEST, _AROUND = 1000, 300


def told(message: str) -> str:
    """A message for a terminal: one line, and below it what it points at, set in.

    What it repeats may hold anything: control characters are escaped, and of long lines the midst is left out, or all
    that is far from a caret.
    """
    from mdsample_cli.show.json_line import is_shown

    lines = re.split(r"\n(?=  )", message)
    if len(lines) > 1 and lines[-1].endswith(" ^") and len(lines[-2]) > _LONGEST:
        caret = len(lines[-1]) - 1
        start = max(2, caret - _AROUND)
        lines[-2] = f"  … {lines[-2][start : caret + _AROUND]} …"
        lines[-1] = " " * (caret - start + 4) + "^"
    for number, line in enumerate(lines):
        if len(line) > _LONGEST:
            lines[number] = f"{line[: _LONGEST - _AROUND]} … {line[-_AROUND:]}"
    return "\n".join("".join(c if is_shown(c) else repr(c)[1:-1] for c in line) for line in lines)


class UsageError(Exception):
    """The command makes no sense as given; the message says why, and what to do."""


class Interrupted(Exception):
    """The user stopped the command; the message says what is kept."""

"""JSON on stdout, readable where stdout takes it."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Mapping
from typing import Any


def line(record: Mapping[str, Any]) -> str:
    """A record as one line: ASCII, but letters of all scripts as they are if stdout is UTF-8.

    What some reader takes for a line's end, and what a terminal obeys, stays escaped.
    """
    if not _is_utf8(sys.stdout.encoding):
        return json.dumps(record)
    return re.sub("[^ -~]", _escaped, json.dumps(record, ensure_ascii=False))


def is_shown(character: str) -> bool:
    """Whether it may go to a terminal: letters and signs, what joins them and what may part a word, no control."""
    return character.isprintable() or character in "\u200c\u200d\u00ad"


def visible(text: str, also: str = "") -> str:
    """A text as it may go to a terminal: what is not shown, and not in `also`, is escaped."""
    return "".join(c if is_shown(c) or c in also else repr(c)[1:-1] for c in text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return character if is_shown(character) else json.dumps(character)[1:-1]


def _is_utf8(encoding: str | None) -> bool:
    try:
        return codecs.lookup(encoding or "ascii").name == "utf-8"
    except LookupError:
        return False

"""Columns: other names for the same thing: `question` and `prompt`, `answer` and `completion`, a chat's last reply."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from mdsample.models.chat import MESSAGES

_SAME = {"prompt": "question", "question": "prompt", "answer": "completion", "completion": "answer"}


def column(row: Mapping[str, object], name: str, others: Collection[str] = ()) -> str:
    """The key of a row that holds `name`: the name itself, or what data sets call it where the row lacks the name.

    `others`: keys that are asked for themselves, so that they stand for nothing else.
    """
    same = _SAME.get(name)
    return same if name not in row and same is not None and same in row and same not in others else name


def parted(row: Mapping[str, Any], wanted: Collection[str | None]) -> Mapping[str, Any]:
    """A row whose messages end with a reply, where an answer is wanted that it has in no column.

    Then the reply is the answer, and the messages are those before it; any other row as it is.
    """
    asked = [name for name in ("answer", "completion") if name in wanted and column(row, name) not in row]
    messages = row.get(MESSAGES)
    if not asked or not isinstance(messages, list) or MESSAGES in wanted:
        return row
    *before, last = cast("list[object]", messages) or [None]
    if not before or not isinstance(last, dict):
        return row
    turn = cast("dict[str, object]", last)
    if turn.keys() != {"role", "content"} or turn["role"] != "assistant":
        return row
    return {**row, MESSAGES: before, **dict.fromkeys(asked, turn["content"])}

"""Rows as they stand in files: columns by other names, chats that end with their reply, rows read again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import is_refused

from mdsample.core.sources import open_source, rows_of
from mdsample.core.template import Template
from mdsample.jobs.requests import Requests, read_requests

TEMPLATE = Template.parse("Q {prompt} A{answer:3}")


def one(row: dict[str, Any], **how: Any) -> Any:
    (request,) = Requests(rows_of([row]), TEMPLATE, **how)
    return request


def test_columns_are_known_by_the_names_that_data_sets_give_them() -> None:
    for row in ({"prompt": "q", "answer": "7"}, {"question": "q", "answer": 7}, {"prompt": "q", "completion": "7"}):
        request = one(row, keys={"answer": "answer"}, written=" {}", fixed={})
        assert (request.texts, request.given, request.others) == ({"prompt": "q"}, {"answer": " 7"}, {})
    # its own name comes first, and a column that is asked for stands for nothing else
    assert one({"prompt": "p", "question": "q"}).texts == {"prompt": "p"}
    assert one({"prompt": "p", "question": "q"}).others == {"question": "q"}
    assert "lacks 'prompt'" in one({"question": "q"}, expected="question").error


def test_the_reply_at_the_end_of_a_chat_is_its_answer() -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "7"}]
    request = one({"messages": chat}, expected="answer")
    assert request.messages == ({"role": "user", "content": "q"},) and request.expected == "7"
    assert "must be the user's" in one({"messages": chat}).error
    assert "must be the user's" in one({"messages": chat, "answer": "8"}, expected="answer").error


def test_a_file_is_read_line_by_line_as_its_bytes_are(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"prompt": "a"}\r\n\n{"prompt": "\xff"}\n{"id": 0, "prompt": "b"}\nx\n{"prompt": "c"}'
    (tmp_path / "in.jsonl").write_bytes(data)
    requests = Requests(open_source(str(tmp_path / "in.jsonl")), TEMPLATE)
    assert list(requests) == list(requests) == read_requests(data, TEMPLATE, "in.jsonl") and len(requests) == 5
    assert [request.error[:10] for request in requests] == ["", "line 3: th", "line 4: th", "line 5: th", ""]


def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "1"}))
    is_refused(["run", "--input", str(tmp_path / "a.parquet")], "pip install 'mdsample[data]'", capsys)
    into = ["run", "--input", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / "b.parquet")]
    is_refused(into, "writing Parquet takes pyarrow", capsys)

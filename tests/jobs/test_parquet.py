"""Parquet and saved data sets in the place of JSON lines; skipped where pyarrow is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_cli.main import main

pa = pytest.importorskip("pyarrow", reason="pyarrow is missing: pip install 'mdsample[data]'")

import pyarrow.parquet as pq

import mdsample
from mdsample.core.sources import open_source, rows_of
from mdsample.core.template import Template
from mdsample.errors import RecordError
from mdsample.jobs import parquet
from mdsample.jobs.examples import read_examples
from mdsample.jobs.parquet import records_of, to_parquet
from mdsample.jobs.requests import Requests

pytestmark = pytest.mark.filterwarnings("ignore")  # of pyarrow and datasets
TEMPLATE = Template.parse("Q {prompt} A{answer:3}")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
#: columns whose values are alike, as records have them, and columns of anything
rows = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.integers(0, 9),
            "text": st.text(max_size=5),
            "slots": st.fixed_dictionaries({"a": st.text(max_size=3)}),
        },
        optional={"bound": st.none() | st.floats(0, 9), "messages": st.just([{"role": "user"}]), "any": values},
    ),
    min_size=1,
    max_size=8,
)


@given(found=rows, group=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_parquet_gives_the_same_records_back(
    found: list[dict[str, Any]], group: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("records")
    records = [{"id": number, **row} for number, row in enumerate(found)]
    (folder / "lines").write_text("".join(json.dumps(record) + "\n" for record in records))
    before, parquet._GROUP = parquet._GROUP, group
    try:
        to_parquet(folder / "lines", folder / "out.parquet")
        assert [json.dumps(row, sort_keys=True) for row in records_of(folder / "out.parquet")] == [
            json.dumps(record, sort_keys=True) for record in records
        ]
    finally:
        parquet._GROUP = before
    kinds = {field.name: field.type for field in pq.read_schema(folder / "out.parquet")}
    assert kinds["n"] == pa.int64() and kinds["slots"] == pa.struct({"a": pa.string()})


def test_rows_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is missing: pip install 'mdsample[data]'")
    table = [{"id": f"x{n}", "question": f"q {n}", "answer": n, "more": [n]} for n in range(1300)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet", row_group_size=100)
    made = datasets.Dataset.from_list(table)
    made.save_to_disk(str(tmp_path / "saved"))
    sources = [open_source(str(tmp_path / name)) for name in ("a.jsonl", "a.parquet", "saved")]
    read = [Requests(source, TEMPLATE, expected="answer") for source in (*sources, rows_of(made), rows_of(table))]
    first = list(read[0])
    assert first[7].texts == {"prompt": "q 7"} and first[7].expected == "7" and first[7].others == {"more": [7]}
    for requests in read:
        assert len(requests) == 1300 and list(requests) == first == list(requests)


def test_a_job_writes_parquet_and_resumes_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": n, "prompt": f"{n} + 1"} for n in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    out, lines = tmp_path / "out.parquet", tmp_path / "out.jsonl"
    line = ["run", "-t", "{prompt}{answer:2}", "-p", "med", "--input", str(tmp_path / "in.parquet"), "-o"]
    assert main([*line, str(lines)]) == 0 == main([*line, str(out)])
    wanted = [json.loads(text) for text in lines.read_text().splitlines()]
    assert list(records_of(out)) == wanted and sorted(p.name for p in tmp_path.iterdir()) == [
        *("in.parquet", "out.jsonl", "out.parquet")
    ]
    # a kill leaves lines and no Parquet; a finished file takes more rows
    (tmp_path / "out.parquet.jsonl").write_text("".join(lines.read_text().splitlines(keepends=True)[:2]))
    out.unlink()
    assert main([*line, str(out)]) == 0 and "already answers 2 of 4" in capsys.readouterr().err
    assert sorted(records_of(out), key=lambda row: row["id"]) == wanted
    pq.write_table(pa.Table.from_pylist([*rows, {"id": 9, "prompt": "5 + 5"}]), tmp_path / "in.parquet")
    assert main([*line, str(out)]) == 0 and "already answers 4 of 5" in capsys.readouterr().err
    assert [row["id"] for row in records_of(out)][-1] == 9
    assert main([*line, str(out), "--seed", "3"]) == 2 and "written by another job" in capsys.readouterr().err


def test_problems_and_examples_are_read_from_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = [{"question": f"{n} + 1", "answer": str(n + 1)} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    line = ["bench", "--task", str(tmp_path / "a.parquet"), "-t", "{prompt}{answer:2}", "-p", "med", "--json", "-o"]
    assert main([*line, str(tmp_path / "out.parquet")]) == 0
    assert json.loads(capsys.readouterr().out)["limit"] == 3
    assert [row["expected"] for row in records_of(tmp_path / "out.parquet")] == ["1", "2", "3"]
    assert main([*line, str(tmp_path / "out.parquet")]) == 0
    template = Template.parse("{prompt}{answer:2}")
    found = read_examples(open_source(str(tmp_path / "a.parquet")), template, mdsample.load("tiny-gsm").tokenizer)
    assert len(found.examples) == 3 and not found.faults


def test_files_that_are_no_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    assert main(["run", "--input", str(tmp_path / "bad.parquet")]) == 2
    assert "is not Parquet that can be read" in capsys.readouterr().err
    (tmp_path / "in.jsonl").write_text('{"prompt": "1"}\n')
    before = (tmp_path / "other.parquet").read_bytes()
    assert main(["run", "--input", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "other.parquet")]) == 2
    assert "is not a file of records" in capsys.readouterr().err
    assert (tmp_path / "other.parquet").read_bytes() == before
    datasets = pytest.importorskip("datasets", reason="datasets is missing: pip install 'mdsample[data]'")
    datasets.DatasetDict({"test": datasets.Dataset.from_list([{"prompt": "1"}])}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(RecordError, match=r"holds splits \(test\)"):
        open_source(str(tmp_path / "d"))

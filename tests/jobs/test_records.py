"""Requests in, records out: nothing is lost, nothing is done twice, and no other file is ever touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdsample.backend.load import load
from mdsample.core.template import Template
from mdsample.errors import PolicyError, RecordError, TemplateError, WriteError
from mdsample.jobs.job import Answer, Job, in_request_order
from mdsample.jobs.lines import line
from mdsample.jobs.records import Output, Record, Request
from mdsample.jobs.requests import read_requests
from mdsample.models.decoding import default_text
from mdsample.policy.parsing import parse
from mdsample.sampling.sampler import Sampler

TEMPLATE = Template.parse("Q {prompt} A{answer:3}")
#: fields in which the rounding of a model's arithmetic shows, which depends on who shares a forward pass
BOUNDS = {"error_bound", "tv_bound"}
PAIR = Template.parse("{a} and {b} A{answer:3}")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    model = load(
        write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", config={"max_sequence_length": 128}), "reference"
    )
    return Job(model, TEMPLATE, Sampler(parse("med+temperature(1)"), seed=5))


def requests() -> list[Request]:
    good = [Request(i, {"prompt": f"the cat {i}"}) for i in range(4)]
    return [*good, Request("é", {"prompt": "\u2028 {x} [bold]"}), Request(9, error="line 7: no JSON")]


def answered(job: Job, path: Path) -> None:
    with Output(path, job.fingerprint) as output:
        for answer in job.answers(output.left(requests())):
            output.write(job.record(answer))


def records(path: Path) -> dict[int | str, Record]:
    rows = [json.loads(raw) for raw in path.read_bytes().split(b"\n")[:-1]]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows), "every row is there once"
    return found


def agree(path: Path, other: Path) -> bool:
    """Whether two files hold the same records."""
    left, right = records(path), records(other)
    bounds = [{(i, k): v for i, row in rows.items() for k, v in row.items() if k in BOUNDS} for rows in (left, right)]
    rest = [{(i, k): v for i, row in rows.items() for k, v in row.items() if k not in BOUNDS} for rows in (left, right)]
    return rest[0] == rest[1] and bounds[0] == pytest.approx(bounds[1], abs=1e-5)


@pytest.fixture(scope="module")
def whole(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "out.jsonl"
    answered(job, path)
    return path


# requests

DEEP = b"[" * 200 + b"]" * 200


def test_json_lines(job: Job) -> None:
    data = b'\xef\xbb\xbf{"prompt": "a", "answer": 3}\r\n\n  \n{"prompt": "b", "id": "x"}\n{"id": 7, "prompt": ""}'
    expected = [
        Request(0, {"prompt": "a"}, others={"answer": 3}),
        Request("x", {"prompt": "b"}),
        Request(7, {"prompt": ""}),
    ]
    assert read_requests(data, TEMPLATE) == expected


def test_keys_of_its_own_are_carried_into_the_record(job: Job) -> None:
    row = {"id": 7, "prompt": "a", "seed": 9, "nested": {"é": [1, None, 2.5]}, "gold": "b", "given": " x"}
    data = json.dumps(row).encode() + b'\n{"prompt": "a", "n": [NaN, 1e999]}\n{"prompt": "a", "x": %s}\n' % DEEP
    first, second, third = read_requests(data, TEMPLATE, given={"answer": "given"}, expected="gold")
    assert (first.others, first.given, first.expected) == (
        {"seed": 9, "nested": {"é": [1, None, 2.5]}},
        {"answer": " x"},
        "b",
    )
    assert second.error.startswith("line 2: the row lacks 'given'")
    assert third.error
    numbers, deep = read_requests(data.split(b"\n", 1)[1], TEMPLATE)
    assert numbers.others == {"n": [None, None]}
    assert not deep.error and json.dumps(deep.others).count("[") == 101
    record = next(job.record(answer) for answer in job.answers([numbers]))
    assert record["input"] == {"n": [None, None]} and record["prompt"] == "a"
    assert "input" not in next(job.record(answer) for answer in job.answers([Request(0, {"prompt": "a"})]))


def test_plain_text() -> None:
    assert read_requests("\ufeffone\r\n\n two [x]\n".encode(), TEMPLATE) == [
        Request(0, {"prompt": "one"}),
        Request(1, {"prompt": " two [x]"}),
    ]
    assert read_requests(b'{"a": 1}\n', TEMPLATE, "x.txt") == [Request(0, {"prompt": '{"a": 1}'})]
    with pytest.raises(
        RecordError, match="plain text fills a template of one field, but this one has: a, b; give JSON"
    ):
        read_requests(b"one\n", PAIR)


@pytest.mark.parametrize(
    ("text", "name", "error"),
    [
        (b"{", 0, "this is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[1]", 0, "a row must be a JSON object; got a list"),
        (b'{"id": 1.0}', 0, "'id' must be text or a whole number; got a number"),
        (b'{"id": null, "prompt": "x"}', 0, "'id' must be text or a whole number; got null"),
        (b'{"id": false}', 0, "'id' must be text or a whole number; got true or false"),
        (b'{"id": "\\ud800"}', 0, "'id' holds half of a surrogate pair, which is not valid unicode"),
        (b'{"id": "x"}', "x", "the row lacks 'prompt'; it has: id"),
        (b"{}", 0, "the row lacks 'prompt'; it has: nothing"),
        (b'{"id": "x", "prompt": 5}', "x", "'prompt' must be text; got a number"),
        (b'{"id": "x", "prompt": null}', "x", "'prompt' must be text; got null"),
        (b'{"prompt": "\xff"}', 0, "this is not UTF-8 (byte 12 of the line)"),
        (b'{"prompt": ' + b"[" * 100_000, 0, "this is not JSON: "),
        (b'{"prompt": ' + b"9" * 5000 + b"}", 0, "this is not JSON: "),
    ],
)
def test_a_bad_row_says_why(text: bytes, name: int | str, error: str) -> None:
    good = b'{"id": "good", "prompt": "fine"}'
    bad, rest = read_requests(text + b"\n" + good, TEMPLATE, "in.jsonl")
    assert (bad.id, bad.texts) == (name, {})
    assert bad.error.startswith(f"line 1: {error}")
    assert rest == Request("good", {"prompt": "fine"})


def test_ids_must_differ_but_text_and_number_are_not_the_same() -> None:
    data = b'{"id": 1, "prompt": "a"}\n{"id": "1", "prompt": "b"}\n{"id": 1, "prompt": "c"}'
    found = read_requests(data, TEMPLATE)
    assert [r.error for r in found] == ["", "", "line 3: there is an earlier row with the id 1"]


def test_files_that_are_something_else() -> None:
    with pytest.raises(RecordError, match="is UTF-16; save it as UTF-8"):
        read_requests("x".encode("utf-16"), TEMPLATE, "x.txt")
    with pytest.raises(
        RecordError, match=r"is one JSON array; give one object a line, as `jq -c '.\[\]' x.json` writes"
    ):
        read_requests(b'[{"prompt": "x"}]', TEMPLATE, "x.json")
    # a file of that name holds objects, and any other begins with one
    for name, read in (("x.json", False), ("x.ndjson", False), ("x.txt", True), ("x", True)):
        (request,) = read_requests(b"words", TEMPLATE, name)
        assert (not request.error) == read


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["", "x.jsonl", "x.txt", "x.json"]))
def test_any_bytes_are_read_or_refused(data: bytes, name: str) -> None:
    try:
        found = read_requests(data, TEMPLATE, name)
    except RecordError:
        return
    bom = data.removeprefix(b"\xef\xbb\xbf")
    assert len(found) == sum(bool(raw.strip()) for raw in bom.split(b"\n"))
    ids = [r.id for r in found if not r.error]
    assert len(set(ids)) == len(ids)


# jobs


def test_what_cannot_fit_is_refused_at_once(job: Job) -> None:
    with pytest.raises(PolicyError, match="no such slot; slots here: answer"):
        Job(job.denoiser, TEMPLATE, Sampler(parse("early-exit(slot='x')")))
    with pytest.raises(TemplateError, match=r"the row is 13[0-9] tokens long, slots included; tiny takes at most 128"):
        Job(job.denoiser, Template.parse("{prompt}{answer:130}"), Sampler(parse("med")))


def test_the_default_policy_exits_early_where_it_can() -> None:
    assert default_text("", TEMPLATE) == "med+early-exit"
    assert default_text("", Template.parse("{text:4}")) == "med"
    assert default_text("llada2", TEMPLATE) == "llada2"


def test_a_record_says_everything(job: Job) -> None:
    [answer] = job.answers([Request("x", {"prompt": "the cat"}, expected="7")])
    record = json.loads(line(job.record(answer)))
    assert next(iter(record)) == "id"
    assert record["policy"] == (
        "blocks(size=32)+entropy(noise=0)+below-entropy(entropy=0.2,k=none)+"
        "temperature(t=1,top_p=1,top_k=0,min_p=0)+never+none"
    )
    assert (
        record | {"id": "x", "prompt": "the cat", "expected": "7", "seed": 5, "model": "tiny", "unfilled": 0} == record
    )
    assert record["template"] == "Q {prompt} A{answer:3}"
    assert record["outcome"] == "filled" and record["sentence"] == "Every blank was filled."
    assert record["nfe"] == record["steps"] == 3 / record["tokens_per_forward"]
    assert set(record["slots"]) == {"answer"}
    assert {"mdsample", "numpy"} <= set(record["versions"])
    assert record["backend"] == "reference"
    assert 0 == record["error_bound"] == record["tv_bound"] or record["nfe"] < 3


def test_other_fields_are_recorded_by_name(job: Job) -> None:
    pair = Job(job.denoiser, PAIR, job.sampler, revision="abc")
    [answer] = pair.answers([Request(0, {"a": "x", "b": "y"})])
    record = pair.record(answer)
    assert (record["prompt"], record["fields"]) == ("", {"a": "x", "b": "y"})
    assert record["revision"] == "abc"


def test_a_row_that_is_too_long_is_an_error_among_answers(job: Job) -> None:
    rows = [Request(0, {"prompt": "the cat"}), Request(1, {"prompt": "x " * 5000}), Request(2, {"prompt": "\udc80"})]
    found = [job.record(answer) for answer in in_request_order(job.answers(rows))]
    assert "has more tokens than a row may have, 128; shorten it" in found[1]["error"]
    assert "not valid unicode" in found[2]["error"]
    assert "error" not in found[0]


@given(st.permutations(range(8)), st.integers(0, 8))
def test_in_request_order(places: list[int], interrupted: int) -> None:
    def answers() -> Iterator[Answer]:
        for place in places[:interrupted]:
            yield Answer(place, Request(place), None)
        if interrupted < len(places):
            raise KeyboardInterrupt

    seen: list[int] = []
    try:
        for answer in in_request_order(answers()):
            seen.append(answer.place)
    except KeyboardInterrupt:
        pass
    assert seen == sorted(places[:interrupted])


# output


@settings(max_examples=40)
@given(data=st.data())
def test_a_killed_job_goes_on(
    job: Job, whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    written = whole.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "out.jsonl"
    path.write_bytes(written[: data.draw(st.integers(0, len(written)))])
    answered(job, path)
    assert agree(path, whole)


def test_going_on_when_all_is_done_changes_nothing(job: Job, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(whole.read_bytes())
    with Output(path, job.fingerprint) as output:
        assert [request.id for request in output.left(requests())] == [9]
    answered(job, path)
    assert agree(path, whole)


def test_rows_with_an_error_are_tried_again(job: Job, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    rows = whole.read_text().splitlines(keepends=True)
    broken = [line({"id": json.loads(rows[1])["id"], "error": "the model was ill"}) + "\n"]
    path.write_text("".join([*broken, *rows[2:]]))
    answered(job, path)
    assert agree(path, whole)


def test_a_link_stays_a_link(job: Job, whole: Path, tmp_path: Path) -> None:
    path, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    path.write_bytes(whole.read_bytes()[:-5])
    path.chmod(0o640)
    link.symlink_to(path)
    answered(job, link)
    assert link.is_symlink() and agree(path, whole)
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.jsonl", "out.jsonl"]


@given(st.binary(min_size=1) | st.text(min_size=1).map(lambda t: t.encode("utf-8", "replace")))
@example(b"my notes")
@example(b'{"id": 0}\n')
@example(b'{"id": 0, "error": "x", "mine": 1}\n')
@example(b'{"prompt": "x"}')
@example(b"[1]\n{")
def test_a_file_of_somebody_else_is_left_alone(job: Job, tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("foreign") / "out.jsonl"
    path.write_bytes(data)
    try:
        Output(path, job.fingerprint).__exit__()
    except RecordError:
        assert path.read_bytes() == data
    else:
        assert b'{"id": '.startswith(data)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"policy": "eb"}, "policy"),
        ({"seed": 6}, "seed"),
        ({"template": "{prompt}{answer:3}"}, "template"),
        ({"revision": "abc"}, "revision"),
    ],
)
def test_another_job_is_refused_by_what_differs(job: Job, whole: Path, other: Record, name: str) -> None:
    sampler = Sampler(parse(other.get("policy", "med+temperature(1)")), seed=other.get("seed", 5))
    template = Template.parse(other.get("template", str(TEMPLATE)))
    changed = Job(job.denoiser, template, sampler, revision=other.get("revision"))
    before = whole.read_bytes()
    with pytest.raises(RecordError) as raised:
        Output(whole, changed.fingerprint)
    said = str(raised.value).splitlines()
    assert said[0] == (f"{whole} was written by another job; give another --output, or the settings it was made with")
    assert [text.split()[:2] for text in said[1:]] == [[name, "there:"], [name, "now:"]]
    assert whole.read_bytes() == before


def test_another_text_under_a_known_id_is_refused(job: Job, whole: Path) -> None:
    with Output(whole, job.fingerprint) as output, pytest.raises(RecordError, match="answers row 2 of another input"):
        output.left([Request(2, {"prompt": "another"})])


def test_another_right_answer_under_a_known_id_is_refused(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    template = Template.parse("{prompt}{reasoning:3}{answer:2}")
    watched = Job(job.denoiser, template, Sampler(parse("med")), watch_slot="answer")
    request = Request(2, {"prompt": "a"}, "b")
    with Output(out, watched.fingerprint) as output:
        for record in watched.records([request]):
            output.write(record)
    with Output(out, watched.fingerprint) as output:
        assert len(output.left([request])) == 0
        with pytest.raises(RecordError, match="answers row 2 of another input"):
            output.left([Request(2, {"prompt": "a"}, "c")])


def test_a_place_that_cannot_be_written_is_refused(job: Job, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "out.jsonl"):
        with pytest.raises(WriteError, match="cannot write"):
            Output(path, job.fingerprint)

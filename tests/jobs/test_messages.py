"""Rows with messages: put in the checkpoint's chat template wherever rows are read, and refused one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chats import PLAIN, write_tokenizer
from checkpoints import LLADA_CHAT, write_checkpoint
from mdsample_cli.main import main

import mdsample
from mdsample.core.template import Template
from mdsample.errors import RecordError
from mdsample.evaluation.bench import bench
from mdsample.jobs.examples import read_examples
from mdsample.jobs.job import Job
from mdsample.jobs.posterior import Tracer
from mdsample.jobs.records import Request
from mdsample.jobs.requests import read_requests
from mdsample.models.chat import Chats, messages_of
from mdsample.models.denoiser import Denoiser
from mdsample.policy.parsing import parse
from mdsample.sampling.prompts import prepare_prompt
from mdsample.sampling.sampler import Sampler
from mdsample.tasks.catalog import as_row
from mdsample.tasks.datasets import own

SYSTEM = {"role": "system", "content": "the cat"}
USER = {"role": "user", "content": "the <|eot_id|> cat {x}"}
REPLY = {"role": "assistant", "content": "a cat"}
TALK = [SYSTEM, USER, REPLY, USER]
TEMPLATE = "{prompt} sat{answer:3}"
WRAPPED = "[user: {prompt} sat][assistant: {answer:3}"


def write_model(path: Path, chat: str | None = PLAIN, template: str = "") -> Path:
    folder = write_checkpoint(path, config={"max_sequence_length": 400})
    if chat is not None:
        write_tokenizer(folder, chat, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
    if template:
        (folder / "mdsample.toml").write_text(f"template = {template!r}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "talker")


@pytest.fixture(scope="module")
def model(folder: Path) -> Denoiser:
    return mdsample.load(folder, backend="reference")


Run = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert printed.out or code, printed.err
        return code, [json.loads(line) for line in printed.out.splitlines()]

    return call


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


# what a row says

BAD: list[tuple[object, str]] = [
    ([], "must be a list of objects with role (system, user, assistant) and content (text), the last one the user's; "),
    ("hello", "; got 'hello'"),
    ({"role": "user"}, "; got {'role': 'user'}"),
    (["hello"], "message 0 is 'hello'"),
    ([USER, {"role": "user"}], "message 1 lacks 'content'"),
    ([{**USER, "name": "Ann"}], "message 0 has 'name'"),
    ([{"role": "tool", "content": "x"}, USER], "message 0 has the role 'tool' and as its content 'x'"),
    ([{"role": "user", "content": ["x"]}], "as its content ['x']"),
    ([{"role": ["user"], "content": "x"}], "has the role ['user']"),
    ([USER, REPLY], "the last of the row's messages must be the user's; it is of the assistant"),
]


@pytest.mark.parametrize(("messages", "fault"), BAD)
def test_what_is_no_conversation_is_the_rows_error(messages: object, fault: str) -> None:
    template = Template.parse(TEMPLATE)
    bad, good = read_requests(lines({"id": "x", "messages": messages}, {"messages": TALK}), template)
    assert bad.id == "x" and bad.error.startswith("line 1: ") and fault in bad.error and "\n" not in bad.error
    assert good == Request(1, messages=tuple(TALK))
    with pytest.raises(RecordError):
        messages_of({"messages": messages}, ("prompt",))


def test_a_row_has_a_text_or_messages() -> None:
    template = Template.parse(TEMPLATE)
    both, null, other = read_requests(
        lines(
            {"prompt": "a", "messages": TALK},
            {"prompt": "a", "messages": None},
            {"prompt": None, "messages": TALK, "gold": 7},
        ),
        template,
    )
    assert both.error == (
        "line 1: the row has 'messages' and also 'prompt', which the last message fills; leave one of them out"
    )
    assert (null.texts, null.messages, null.others) == ({"prompt": "a"}, (), {"messages": None})
    assert (other.texts, other.messages, other.others) == ({}, tuple(TALK), {"gold": 7})
    # the name of a field, or of a key that an option names
    [field] = read_requests(lines({"messages": "a"}), Template.parse("{messages}{answer:3}"))
    assert field.texts == {"messages": "a"} and not field.messages
    [choices] = read_requests(lines({"prompt": "a", "messages": ["x", "y"]}), template, choices="messages")
    assert choices.choices == ("x", "y") and not choices.messages


# where it is put


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_rows_are_those_of_prompts_in_python(model: Denoiser, template: str | None) -> None:
    layout = Template.parse(template or model.template)
    expected = prepare_prompt(model, layout, template is None, 0, TALK, {})
    around, texts = Chats.of(model, layout).placed(layout, {}, tuple(TALK))
    encoded = around.row(model.tokenizer, texts)
    assert (encoded.tokens, encoded.slot, encoded.blank) == (expected.tokens, expected.slot, expected.blank)
    job = Job(model, layout, Sampler("med"))
    [answer] = job.answers([Request("x", messages=tuple(TALK), others={"gold": 7})])
    record = job.record(answer)
    row = mdsample.sample(model, TALK, policy="med", template=template, ids=["x"])
    assert isinstance(row, mdsample.Row) and record["slots"] == row.slots
    assert record["messages"] == TALK and record["input"] == {"gold": 7} and not {"prompt", "fields"} & record.keys()
    # chats of the same roles share what was rendered, but not what they say
    other = (SYSTEM, {**USER, "content": "dog"}, REPLY, USER)
    assert job.chats.placed(layout, {}, other)[1]["message-1"] == "dog"


def test_the_options_of_a_template(model: Denoiser, folder: Path, run: Run, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", {"messages": [USER]}, {"messages": TALK}, {"prompt": "the cat"})
    common = ("run", "-m", folder, "--backend", "reference", "-i", rows, "--json")
    texts: list[list[dict[str, str]]] = []
    for options in (["-t", TEMPLATE], ["-t", TEMPLATE, "--chat"]):
        code, records = run(*common, *options)
        assert code == 0
        assert {record["template"] for record in records} == {WRAPPED if "--chat" in options else TEMPLATE}
        texts.append([record["slots"] for record in records])
    # around messages the template is the same with --chat and without; around a text it is not
    assert texts[0][:2] == texts[1][:2]
    code, records = run(*common, "--no-chat")
    assert code == 1 and [("error" in record) for record in records] == [True, True, False]
    assert records[0]["error"].endswith("that --no-chat leaves out; leave out one of them")
    code, records = run(*common, "-t", TEMPLATE, "--system", "the mat")
    assert code == 0 and records[0]["template"] == f"[system: the mat]{WRAPPED}"
    said = Chats(model.tokenizer, "m", Template.parse(TEMPLATE), system="the mat")
    for messages, content in (([USER], "the mat"), (TALK, "the cat")):
        around, fields = said.placed(Template.parse(TEMPLATE), {}, tuple(messages))
        assert str(around).startswith("[system: {message-0}][user: ") and fields["message-0"] == content
    code, records = run(*common, "-t", "{a} {b}{answer:3}")
    assert "the last message of a chat fills the one field of a template, but this one has: a, b" in records[0]["error"]


def test_a_template_from_standard_input_is_read_once(
    folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEMPLATE.encode())))
    rows = write(tmp_path / "rows.jsonl", {"messages": [USER]})
    code, [record] = run("run", "-m", folder, "--backend", "reference", "-t", "@-", "-i", rows, "--json")
    assert code == 0 and record["template"] == TEMPLATE


def test_models_and_templates_that_take_no_messages(run: Run, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", {"messages": TALK}, {"prompt": "the cat"})
    plain = write_model(tmp_path / "plain", None)
    code, [refused, answered] = run("run", "-m", plain, "--backend", "reference", "-i", rows, "--json")
    assert code == 1 and "slots" in answered
    assert refused["error"] == (
        "plain has no chat template to put messages in; give the row a text for the template's field instead of them"
    )
    llada = write_model(tmp_path / "llada", LLADA_CHAT)
    typed = "<|start_header_id|>user<|end_header_id|>{prompt}<|eot_id|>{answer:3}"
    code, [refused, answered] = run("run", "-m", llada, "--backend", "reference", "-i", rows, "-t", typed, "--json")
    assert code == 1 and "slots" in answered
    assert refused["error"].startswith("the template writes the turns of a chat itself")
    # the model's own template, typed, is the model's own
    own_text = mdsample.load(llada, backend="reference").template
    code, records = run("run", "-m", llada, "--backend", "reference", "-i", rows, "-t", own_text, "--json")
    assert code == 0 and "<|eot_id|>" not in records[0]["text"]
    broken = write_model(tmp_path / "broken", "{{ messages[0].content }}")
    code, [refused, answered] = run("run", "-m", broken, "--backend", "reference", "-i", rows, "--json")
    assert code == 1 and "slots" in answered
    assert "it must write every message once, as it stands and in this order" in refused["error"]


def test_what_is_too_long_says_by_how_much(model: Denoiser) -> None:
    long = ({"role": "user", "content": "the cat " * 200},)
    job = Job(model, Template.parse(TEMPLATE), Sampler("med"))
    bad, good = job.answers([Request("long", messages=long), Request("short", messages=(USER,))])
    if bad.row is not None:
        bad, good = good, bad
    assert bad.request.id == "long" and good.row is not None
    around, texts = job.chats.placed(job.template, {}, long)
    length = len(around.row(model.tokenizer, texts).tokens)
    assert bad.request.error == (
        f"the row is {length} tokens long, slots included; talker takes at most 400: shorten the text or the slots"
    )


def test_records_are_resumed(folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write(tmp_path / "rows.jsonl", {"id": "a", "messages": TALK}, {"id": "b", "messages": [USER, REPLY]})
    out = tmp_path / "out.jsonl"
    common = ("run", "-m", folder, "--backend", "reference", "-t", TEMPLATE, "-i", rows, "-o", out)
    assert main([*map(str, common)]) == 1
    kept = out.read_bytes().splitlines()[0 if b'"a"' in out.read_bytes().splitlines()[0] else 1]
    write(rows, {"id": "a", "messages": TALK}, {"id": "b", "messages": [USER]})
    assert main([*map(str, common)]) == 0
    assert "already answers 1 of 2 rows" in capsys.readouterr().err
    records = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert {record["id"] for record in records} == {"a", "b"} and kept in out.read_bytes().splitlines()
    # a record is a row, too
    assert [request.messages for request in read_requests(out.read_bytes(), Template.parse("{prompt}{a:3}"))] == [
        tuple(record["messages"]) for record in records
    ]
    write(rows, {"id": "a", "messages": [SYSTEM, USER]})
    assert main([*map(str, common)]) == 2
    assert "answers row 'a' of another input" in capsys.readouterr().err
    write(rows, {"id": "a", "prompt": ""})
    assert main([*map(str, common)]) == 2


# the other readers


def test_scores(folder: Path, run: Run, tmp_path: Path) -> None:
    rows = write(
        tmp_path / "rows.jsonl",
        {"id": 1, "messages": [USER]},
        {"id": 2, "messages": TALK},
        {"id": 3, "prompt": "the cat"},
        {"id": 4, "messages": [REPLY]},
        {"id": 5, "messages": [{"role": "user", "content": "a cat"}]},
    )
    code, together = run(
        *("score", "-m", folder, "--backend", "reference", "-t", TEMPLATE, "-i", rows, "--json"),
        *("--choices", " cat, sat"),
    )
    assert code == 1 and [record["id"] for record in together] == [1, 2, 3, 4, 5] and "error" in together[3]
    assert together[1]["messages"] == TALK
    model = mdsample.load(folder, backend="reference")
    for record in (together[0], together[1], together[4]):
        template, texts = Chats.of(model, Template.parse(TEMPLATE)).placed(
            Template.parse(TEMPLATE), {}, tuple(record["messages"])
        )
        [alone] = mdsample.score(model, template, [texts], "answer", [" cat", " sat"])
        assert [c["log_probability"] for c in record["candidates"]] == pytest.approx(
            [c.log_probability for c in alone.candidates], abs=1e-5
        )


def test_traces_and_examples(model: Denoiser) -> None:
    template = Template.parse("{prompt}{reasoning:4} so{answer:3}")
    data = lines({"messages": TALK, "answer": " cat"}, {"prompt": "a", "messages": TALK, "answer": " cat"})
    tracer = Tracer(model, template, Sampler(parse("med+temperature(1)")), n=2)
    bad, good = tracer.records(read_requests(data, template, given={"answer": "answer"}))
    assert "and also 'prompt'" in bad["error"] and good["messages"] == TALK and good["traces"]
    chats = Chats.of(model, template)
    good["traces"] = [{"slots": {"reasoning": "the cat", "answer": "cat"}, "kept": True}]
    found = read_examples(lines(good), template, model.tokenizer, chats=chats).examples
    around, texts = chats.placed(template, {}, tuple(TALK))
    slots = good["traces"][0]["slots"]
    assert found[0].tokens == around.row(model.tokenizer, texts, slots).tokens
    row = {"messages": TALK, "reasoning": "the cat", "answer": "sat"}
    held = read_examples(
        lines(row, {**row, "messages": [REPLY]}, {**row, "prompt": "x"}), template, model.tokenizer, chats=chats
    )
    assert len(held.examples) == 1 and [fault[:7] for fault in held.faults] == ["line 2:", "line 3:"]
    with pytest.raises(RecordError, match="m has no chat template to put messages in"):
        read_examples(lines(row), template, mdsample.load("tiny-gsm", "reference").tokenizer, "m")


def test_problems_of_ones_own(model: Denoiser, tmp_path: Path) -> None:
    data = write(tmp_path / "mine.jsonl", {"messages": TALK, "answer": "cat"}, {"prompt": "a", "answer": 7})
    task = own(data, TEMPLATE)
    chat, text = task.read()
    assert (chat.texts, chat.messages, text.messages) == ({}, tuple(TALK), ())
    assert as_row(chat) == {"id": 0, "messages": TALK, "answer": "cat"}
    [score] = bench(model, task, [parse("med")])
    assert score.limit == 2
    write(data, {"prompt": "a", "messages": TALK, "answer": "cat"})
    with pytest.raises(RecordError, match=r"mine.jsonl, line 1: the row has 'messages' and also 'prompt'"):
        own(data, TEMPLATE).read()

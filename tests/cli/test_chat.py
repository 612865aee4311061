"""`mdsample chat`: turns, commands, the transcript, and that nothing said is lost."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_llada
from hypothesis import given
from hypothesis import strategies as st
from mdsample_cli.conversation import Conversation
from mdsample_cli.errors import UsageError
from mdsample_cli.main import main

import mdsample
from mdsample.core.files import Lock
from mdsample.errors import MdsampleError, TemplateError
from mdsample.policy.complete import as_run
from mdsample.testing import ScriptedDenoiser, Symbols

ANN = "Ann has 3 coins. Ben has 4 more than Ann. How many coins does Ben have?"
SHORT = "{prompt}{answer:4}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llada(tmp_path_factory.mktemp("models") / "tiny-chat")


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object, lines: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        code = main(["chat", *map(str, arguments)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def reader(model: Path, *messages: str) -> list[str]:
    """The replies that the library gives to the same messages."""
    opened, chat, replies = mdsample.load(model, backend="reference"), list[Any](), list[str]()
    for number, message in enumerate(messages):
        chat.append({"role": "user", "content": message})
        row = mdsample.sample(opened, [chat], policy=None, template=SHORT, ids=[number]).rows[0]
        chat.append({"role": "assistant", "content": row.text})
        replies.append(row.text)
    return replies


def test_a_reply_is_that_of_the_library_to_all_turns_before(folder: Path, talk: Any, tmp_path: Path) -> None:
    options = ("-m", folder, "--backend", "reference", "-t", SHORT, "-o", tmp_path / "talk.jsonl")
    code, out, err = talk(*options, lines="hi there\n\nand\\\nnow?\n")
    assert (code, err) == (0, "")
    code, more, _ = talk(*options, lines="what?\n")
    assert (out + more).splitlines() == reader(folder, "hi there", "and\nnow?", "what?")
    record = json.loads((tmp_path / "talk.jsonl").read_text())
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"] * 3
    assert record["messages"][2] == {"role": "user", "content": "and\nnow?"}
    assert [(reply["policy"], reply["seed"]) for reply in record["replies"]] == [
        (as_run(mdsample.parse("llada(none)+blocks(32)"), None), 0)  # as the family is published
    ] * 3
    assert os.listdir(tmp_path) == ["talk.jsonl"]


def test_piped_messages_are_read_as_files_are(folder: Path, talk: Any) -> None:
    """A file of Windows, and one that ends within a message."""
    options = ("-m", folder, "--backend", "reference", "-t", SHORT)
    code, out, err = talk(*options, lines="\ufeffhi\\\r\nthere\r\nlast\\")
    assert (code, err) == (0, "")
    assert out.splitlines() == reader(folder, "hi\nthere", "last\\")


@pytest.mark.parametrize("schema", ["null", "[1]", "true", '"str"'])
@pytest.mark.parametrize("command", ["run", "chat"])
def test_a_schema_is_an_object(command: str, schema: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.json").write_text(schema)
    assert main([command, "--schema", str(tmp_path / "s.json"), "--backend", "reference"]) == 2
    assert f"s.json holds {schema}, and a schema is a JSON object" in capsys.readouterr().err


def test_guesses_change_no_reply(folder: Path, talk: Any, tmp_path: Path) -> None:
    options = ("-m", folder, "--backend", "reference", "-t", SHORT, "-p", "left-to-right+top(1)")
    code, out, _ = talk(*options, "-o", tmp_path / "plain.jsonl", lines="hi there\n")
    guessed, same, _ = talk(*options, "-o", tmp_path / "guessed.jsonl", "--speculate", "2x2", lines="hi there\n")
    assert (code, guessed) == (0, 0) and same == out
    plain, other = (json.loads((tmp_path / f"{of}.jsonl").read_text())["replies"][0] for of in ("plain", "guessed"))
    assert other["speculate"] == "2x2" and "speculate" not in plain
    assert other["nfe"] >= plain["nfe"] == plain["rounds"] >= other["rounds"]


def test_commands(folder: Path, talk: Any, tmp_path: Path) -> None:
    lines = "\n".join(
        [
            *("one", "/seed 4", "/again", "/undo", "/policy", "/policy whole+steps(1)", "/policy med(", "/policy"),
            *("two", "/template {prompt}{answer:2}", "three", "/template {a}{b}{answer:2}", "/save x/y", "/nothing"),
            *(f"/save {tmp_path / 'kept'}", "/new Be brief.", "four", f"/save {tmp_path / 'kept'}", "/seed x", "/quit"),
            "five",
        ]
    )
    code, out, err = talk("-m", folder, "--backend", "reference", "-t", SHORT, lines=lines)
    assert code == 1  # some of it was refused
    assert len(out.splitlines()) == 5
    settings = [line for line in err.splitlines() if line.startswith(("seed: ", "taken", "policy: ", "template: "))]
    assert settings == [
        *(
            "seed: 4",
            "taken back: one",
            "policy: llada(none)+blocks(32)",
            "policy: whole+steps(1)",
            "policy: whole+steps(1)",
        ),
        "template: {prompt}{answer:2}",
    ]
    refused = [line.removeprefix("error: ") for line in err.splitlines() if line.startswith("error: ")]
    assert [line.partition(" ")[0] for line in refused] == ["expected", "a", "cannot", "/nothing", "/seed"]
    record = json.loads((tmp_path / "kept").read_text())
    assert [message["content"] for message in record["messages"][:2]] == ["Be brief.", "four"]
    assert record["replies"][0]["seed"] == 5 and record["replies"][0]["nfe"] == 1


def test_a_model_without_a_chat_template_answers_each_message_by_itself(talk: Any) -> None:
    code, out, err = talk(lines=f"{ANN}\n{ANN}\n")
    assert (code, err) == (0, "")
    assert out.split("Answer: ")[1:] and out.count("Answer: 7") == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--system", "Be brief."], "tiny-gsm has no chat template, so no place for a system message; leave it out"),
        (
            ["-t", "{a}{b}{answer:2}"],
            "a message fills the one field of a template, but this one has: a, b; give --template '{prompt}",
        ),
        (["-o", "-"], "--output keeps a transcript, and stdout shows the conversation; give a file"),
        (["-p", "med+"], "expected"),
        (["-o", "/absent/x"], "--output: cannot write /absent/x: there is no such folder"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_message(options: list[str], told: str, talk: Any) -> None:
    code, out, err = talk(*options, lines="hi\n")
    assert (code, out) == (2, "") and err.startswith(f"error: {told}") and err.count("\n") <= 3


@pytest.mark.parametrize(
    "text", ["hello\n", "{}", "[]", '{"messages": [{"role": "user", "content": "a"}], "replies": []}', "[" * 99999]
)
def test_another_file_is_not_touched(text: str, talk: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text(text)
    code, _, err = talk("-o", path, lines="hi\n")
    assert (code, err) == (2, f"error: {path} is there and is not a transcript; give another name, or remove it\n")
    assert path.read_text() == text and os.listdir(tmp_path) == ["mine"]


def test_two_chats_do_not_write_one_transcript(talk: Any, tmp_path: Path) -> None:
    with Lock(tmp_path / "x", "x"):
        code, _, err = talk("-o", tmp_path / "x", lines="hi\n")
    assert code == 2 and f"is being written by process {os.getpid()}" in err


def test_what_is_no_regular_file_is_not_locked(talk: Any, tmp_path: Path) -> None:
    (tmp_path / "nothing").symlink_to(os.devnull)
    with Lock(tmp_path / "nothing", "x"):  # a lock beside the link is somebody else's
        assert talk("-o", tmp_path / "nothing", "-p", "whole+steps(1)", lines="hi\n")[0] == 0
    assert not Path(f"{os.devnull}.lock").exists()


def test_another_system_message_is_refused(folder: Path, talk: Any, tmp_path: Path) -> None:
    options = ("-m", folder, "--backend", "reference", "-t", SHORT, "-o", tmp_path / "x")
    assert talk(*options, "--system", "A.", lines="hi\n")[0] == 0
    code, _, err = talk(*options, "--system", "B.", lines="hi\n")
    assert code == 2 and "begins with another system message" in err


STEPS = st.one_of(
    st.tuples(st.just("say"), st.text("abc", min_size=1, max_size=4)),
    st.tuples(st.just("fail"), st.text("abc", min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["back", "again", "begin", "save"]), st.just("")),
)


@given(steps=st.lists(STEPS, max_size=12))
def test_whatever_happens_messages_and_replies_belong_together(
    steps: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    talk = Conversation(ScriptedDenoiser(Symbols(6)), SHORT)
    path = tmp_path_factory.mktemp("talks") / "talk"
    expected: list[str] = []
    for what, text in steps:
        match what:
            case "say":
                assert list(talk.say(text))[-1].unfilled == 0
                expected.append(text)
            case "fail":
                with pytest.raises(MdsampleError), talk.unless_it_fails():
                    talk.take_back()
                    talk.policy = "med("
                    talk.check()
            case "back":
                assert talk.take_back() == (expected.pop() if expected else "")
            case "again" if expected:
                with talk.unless_it_fails():
                    assert list(talk.say(talk.take_back()))
            case "begin":
                talk.begin(None)
                expected.clear()
            case _:
                talk.save(path)
                read = Conversation(talk.model, SHORT)
                read.resume(path)
                assert (read.messages, read.replies) == (talk.messages, talk.replies)
        assert [message["content"] for message in talk.messages[::2]] == expected
        assert len(talk.messages) == 2 * len(talk.replies) and talk.policy == "med"


def test_a_reply_that_is_stopped_changes_nothing() -> None:
    talk = Conversation(ScriptedDenoiser(Symbols(6)), SHORT)
    next(talk.say("abc"))
    assert (talk.messages, talk.replies) == ([], [])
    with pytest.raises(UsageError):
        Conversation(talk.model, "{a}{b}{answer:2}").check()


@pytest.mark.slow
def test_on_a_terminal_the_reply_fills_and_an_interrupt_takes_it_back(tmp_path: Path) -> None:
    here, there = pty.openpty()
    chat = subprocess.Popen(
        [sys.executable, "-m", "mdsample_cli", "chat", "-p", "entropy+top(1)"],
        stdin=there, stdout=there, stderr=there, cwd=tmp_path, start_new_session=True, preexec_fn=_take_terminal,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm-256color"},
    )  # fmt: skip
    try:
        seen = _until(here, b"> ")
        assert "/help lists what can be changed" in seen and "has no chat template" in seen
        os.write(here, ANN.encode() + b"\n")
        assert "forward pass" in _until(here, b"of 100 blanks filled")
        os.write(here, b"\x03")
        assert "stopped; the message is taken back" in _until(here, b"\n> ")
        time.sleep(0.3)  # Python notices an interrupt once it waits for keys
        os.write(here, b"\x03")
        assert "ends the conversation" in _until(here, b"\n> ")
        os.write(here, b"/policy med\n" + ANN.encode() + b"\n")
        assert "Answer: 7" in _until(here, b"tokens a second\x1b[0m\r\n> ")
        time.sleep(0.3)
        os.write(here, b"\x04")
        assert chat.wait(30) == 0
    finally:
        chat.kill()
        chat.wait()
        os.close(here)
        os.close(there)


def _take_terminal() -> None:
    """The interrupt key reaches a process whose terminal it is, unless it ignores it, as one in the background does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _until(terminal: int, what: bytes) -> str:
    seen, end = b"", time.monotonic() + 30
    while what not in seen:
        assert time.monotonic() < end, seen.decode(errors="replace")
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536)
    return re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", seen.decode(errors="replace"))


def test_replies_may_be_of_a_schema(folder: Path, talk: Any, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"coins": {"type": "integer", "minimum": 1, "maximum": 99}}}
    schema["required"] = ["coins"]
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    options = ("-m", folder, "--backend", "reference", "-o", tmp_path / "talk.jsonl", "-p", "med")
    code, out, err = talk(*options, "--schema", tmp_path / "schema.json", lines="hi\nhow many?\n")
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    opened, turns = mdsample.load(folder, backend="reference"), [{"role": "user", "content": "hi"}]
    assert first == mdsample.sample(opened, turns, returns=schema, policy="med")
    said = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert [json.loads(message["content"]) for message in said if message["role"] == "assistant"] == [first, second]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    rows = ["-i", str(tmp_path / "rows.jsonl"), "--schema", str(tmp_path / "schema.json"), "--json"]
    assert main(["run", *map(str, options[:4]), *rows, "-p", "med"]) == 0


def test_returns_takes_chats(folder: Path) -> None:
    opened = mdsample.load(folder, backend="reference")
    turns = [{"role": "user", "content": "hi"}]
    first, again = mdsample.sample(
        opened, [turns, turns], returns={"enum": [1, 2]}, policy="one-by-one", ids=["a", "b"]
    )
    assert {first, again} <= {1, 2}
    inside = mdsample.sample(opened, turns, returns={"enum": [1, 2]}, policy="one-by-one", template="{prompt}{x:4}")
    assert inside in (1, 2)
    with pytest.raises(TemplateError, match="chats or other prompts, not both"):
        mdsample.sample(opened, [turns, "hi"], returns={"enum": [1, 2]})

"""What people see: screens of any width, letters of all scripts, and a command line that loses nothing in silence."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mdsample_cli.commands.bench import POLICIES
from mdsample_cli.errors import UsageError, note, tell_error
from mdsample_cli.main import app, main
from mdsample_cli.show import json_line, render, screens
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

import mdsample
from mdsample import Sampler, Template
from mdsample.jobs.job import Job
from mdsample.scoring.watch import SlotReading
from mdsample.tasks.catalog import TASKS
from mdsample.testing import ScriptedDenoiser, Symbols

NUMBERS = ["100.0 [34.2, 100.0]", "+100.0 [-20.0, +100.0]", "100.0 ± 10.0", "1.00", "1.00"]


def shown(thing: RenderableType, width: int) -> list[str]:
    out = Console(width=width, file=io.StringIO(), markup=False, highlight=False, emoji=False)
    with out.capture() as captured:
        out.print(thing)
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_tables_are_never_broken(width: int) -> None:
    headings = ["accuracy, %", "difference", "NFE", "speed-up", "tokens/pass"]
    names = [*POLICIES, "blocks(64)+" * 9 + "med", "x/y" * 12]
    out = Console(width=width)
    lines = shown(render.table(out, headings, [[name, *NUMBERS] for name in names]), width)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    for number in NUMBERS[: 5 if width > 60 else 2]:
        assert text.count(number) >= len(names)
    assert all(f"{name}" in text for name in names if len(name) < width)
    # where there is room, a line holds all that is shown
    assert any(line.startswith("med ") and "34.2" in line for line in lines) == (width != 80)


def test_a_canvas_is_cut_between_characters() -> None:
    before, after = (
        "\n".join(line.plain for line in render.folded(Text(text), 10))
        for text in ("one two ░░░░░░░░░ x", "one two 12░░░░░░░ x")
    )
    assert before.replace("░░", "12", 1) == after == "one two 12\n░░░░░░░ x"
    assert [line.plain for line in render.folded(Text("日本語日本\n\n"), 5)] == ["日本", "語日", "本", "", ""]
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert render.folded(Text(f"ab{family}cde\u0301"), 4)[0].plain == f"ab{family}"


def test_a_frame_fits_into_any_terminal() -> None:
    layout, model = Template.parse("{prompt}{answer:3}"), ScriptedDenoiser(Symbols(6))
    canvas = layout.canvas(model.tokenizer, [{"prompt": "abc" * 9}])
    state = next(iter(Sampler("top(1)").steps(model, canvas)))[0]
    for height in (2, 4, 10, 50):
        lines = shown(render.frame(state, 0, model.tokenizer, 20, height), 20)
        assert len(lines) <= max(3, height) and "░" in "".join(lines[-3:]) and "forward pass" in lines[-1]


def test_letters_are_printed_and_controls_are_not() -> None:
    family, persian, soft = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "می\u200cخواهم", "co\u00adop"
    for text in (family, persian, soft):
        assert render.plain(text).plain == text
    assert render.plain("\x1b[31m\u202e\x9b").plain == "\\x1b[31m\\u202e\\x9b"


def test_json_is_readable_and_still_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"id": "é日😀\u200d", "text": "\x85\u2028\x1b\x9b\udcff\U000e0001\n"}
    for encoding, readable in (("utf-8", True), ("ascii", False), ("latin-1", False)):
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        line = json_line.line(record)
        assert json.loads(line) == record and len(line.splitlines()) == 1
        assert ("é日😀" in line, line.isascii()) == (readable, not readable)
        assert "\x9b" not in line and "\\udcff" in line


def test_boards_are_boards() -> None:
    model = mdsample.load("tiny-sudoku6", backend="reference")
    row = mdsample.sample(model, {}, policy="steps(1)", given=TASKS["sudoku6"].read()[0].given)
    from mdsample.jobs.job import Answer, Job
    from mdsample.jobs.records import Request

    job = Job(model, Template.parse(model.template), Sampler("steps(1)"))
    lines = shown(render.answer(job, Answer(0, Request(0), row), False, "steps(1)", 2.0), 80)
    assert [len(line.split()) for line in lines[:6]] == [7, 6, 6, 6, 6, 6]
    assert any(line.startswith("time         2.0 s, ") for line in lines) and any("steps(1)" in line for line in lines)


def test_a_certain_answer_is_shown_without_a_sign() -> None:
    [line] = render.along([SlotReading(0, 1, 1, 0.0, "5", -1e-9)])
    assert line.plain.endswith("log p(expected answer) 0.00")


@pytest.mark.parametrize(("number", "text"), [(1, "1 pass"), (2, "2 passes"), (0, "0 passes"), (1200, "1,200 passes")])
def test_numbers_of_things(number: int, text: str) -> None:
    assert render.count(number, "pass", "es") == text


def test_kinds_of_errors_are_counted() -> None:
    job = Job(ScriptedDenoiser(Symbols(6)), Template.parse("{prompt}{answer:1}"), Sampler("steps(1)"))
    screen = screens.Screen(job, "", True, None, lambda done, pace: None)
    for error in [f"line {n}: the row lacks 'x{n}'" for n in range(1200)] + ["line 3: no\nmore"]:
        screen.count_record({"id": 0, "error": error})
    summary = screen.summary().splitlines()
    assert summary == ["0 rows answered; 1,201 with an error", "  1,200 × the row lacks 'x0'", "  1 × no"]


def test_the_first_answer_does_not_wait_for_the_last_request() -> None:
    from mdsample.jobs.records import Request

    job = Job(ScriptedDenoiser(Symbols(6)), Template.parse("{prompt}{answer:1}"), Sampler("steps(1)"), batch_size=2)

    class Requests(list[Request]):
        read = 0

        def __iter__(self) -> Iterator[Request]:
            for request in super().__iter__():
                self.read += 1
                yield request

    requests = Requests(Request(n, {"prompt": "?" if n == 1 else "a"}) for n in range(500))
    answers = job.answers(requests)
    assert next(answers).row is None and requests.read < 50
    assert sorted(answer.place for answer in answers) == [n for n in range(500) if n != 1]


def test_pace_counts_every_token_once() -> None:
    pace, layout, model = screens.Pace(), Template.parse("{answer:5}"), ScriptedDenoiser(Symbols(6))
    job = Sampler("top(2)").steps(model, layout.canvas(model.tokenizer, [{}, {}]))
    for state, _ in job:
        pace.see(state)
    assert str(pace).startswith("3 passes, ") and pace._done == 10  # pyright: ignore[reportPrivateUsage]


# the command line


def test_an_option_of_one_value_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    whole: Any = get_command(app)
    for command in whole.commands.values():
        for option in command.params:
            if option.param_type_name != "option" or option.multiple:
                continue
            words = [option.opts[-1]] if option.is_flag else [option.opts[-1], "1"]
            name = "/".join([max(option.opts, key=len), *option.secondary_opts])
            with pytest.raises(UsageError, match=f"{name} is given 2 times, but takes one value; keep one"):
                command.make_context(command.name, [*words, *words])
    assert main(["run", "-p", "med", "hi", "--policy=eb"]) == 2
    assert capsys.readouterr().err == "error: --policy is given 2 times, but takes one value; keep one\n"


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_errors_heed_no_color(monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    assert main(["walk"]) == 2
    assert ("\x1b" in terminal.getvalue()) == coloured and "No such command" in terminal.getvalue()


def test_help_flows_and_is_not_cluttered() -> None:
    whole = CliRunner().invoke(app, ["--help"]).output
    assert "Policies" in whole and "--show-completion" not in whole and "<bool>" not in whole
    for command in ("rows", "calibrate", "run"):
        text = CliRunner().invoke(app, [command, "--help"]).output
        assert "<bool>" not in text
        intro = [line.strip() for line in text.split("╭")[0].splitlines() if line.strip()][1:]
        # a line is left before its end only where the next word would not fit, or a paragraph ends
        assert all(len(a) + len(b.split()[0]) >= 76 or a.endswith(".") for a, b in pairwise(intro))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_an_error_of_the_system_names_its_file() -> None:
    ran = piped("run", "--backend", "reference", "-t", "{prompt}{answer:1}", "-o", "/dev/full", "hi")
    assert (ran.returncode, ran.stderr) == (2, "error: cannot write /dev/full: No space left on device\n")


@pytest.mark.parametrize(
    ("more", "message"),
    [((), "with --output FILE it would resume"), (("-o", "FILE"), "run the same command again to resume")],
)
def test_an_interrupted_comparison_says_how_it_goes_on(
    more: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.import_module("mdsample.evaluation.bench"), "bench", stopped)
    assert main(["bench", "-m", "tiny-gsm", "--backend", "reference", "--limit", "1", *more]) == 130
    assert capsys.readouterr().err == f"interrupted; {message}\n"


def piped(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mdsample_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("option", ["--policy-file", "--template"])
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_standard_input_that_an_option_reads_holds_no_prompts(option: str, name: str) -> None:
    given = "policy = 'steps(1)'" if option == "--policy-file" else "{prompt}{answer:1}"
    name = name if option == "--policy-file" else f"@{name}"
    ran = piped("run", "--backend", "reference", option, name, "--json", input=given)
    assert (ran.returncode, ran.stderr) == (0, "")
    [row] = map(json.loads, ran.stdout.splitlines())
    assert row["prompt"].startswith("Ned has 12 apples")


def test_a_pipe_that_nobody_writes_to_is_not_waited_for() -> None:
    ours, theirs = os.pipe()
    try:
        ran = piped("run", "--backend", "reference", "-p", "steps(1)", "--json", stdin=ours, timeout=60)
    finally:
        os.close(theirs)
        os.close(ours)
    assert ran.returncode == 0 and len(ran.stdout.splitlines()) == 1
    assert ran.stderr == "nothing came on standard input, so it is not read; --input - waits for it\n"


def test_a_reader_that_has_enough_is_no_failure() -> None:
    """As with `| head`."""
    many = "".join(f"q {number}\n" for number in range(300))
    for shown in ("--json", "--output=-"):
        command = f"{sys.executable} -m mdsample_cli run -i - -t '{{prompt}}{{answer:1}}' --backend reference {shown}"
        command += " | head -c 80; exit ${PIPESTATUS[0]}"
        ran = subprocess.run(["bash", "-c", command], input=many, capture_output=True, text=True, check=False)
        assert ran.returncode == 0 and len(ran.stdout) == 80 and "error" not in ran.stderr


def test_a_policy_file_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "policy.toml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("policy = 'steps(1)'",), daemon=True)
    writer.start()
    ran = piped("run", "--backend", "reference", "--policy-file", pipe, "hi", timeout=60)
    assert ran.returncode == 0 and "steps(1)" in ran.stdout


def test_prompts_are_read_from_a_pipe() -> None:
    run = ("run", "--backend", "reference", "-t", "{prompt}{answer:1}", "--json")
    rows = [json.loads(line) for line in piped(*run, input="hi\nho\n").stdout.splitlines()]
    assert [row["prompt"] for row in rows] == ["hi", "ho"]
    sudoku = ("run", "--backend", "reference", "--model", "tiny-sudoku6", "-p", "steps(1)", "--json")
    for nothing in ({"stdin": subprocess.DEVNULL}, {"input": ""}):
        ran = piped(*sudoku, **nothing)
        assert (ran.returncode, ran.stderr, len(json.loads(ran.stdout)["slots"])) == (0, "", 36)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.lists(st.text("ab日", min_size=1, max_size=30), min_size=1, max_size=12), st.integers(20, 60))
def test_sentences_are_broken_between_words(words: list[str], width: int) -> None:
    told = " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setattr(sys, "stderr", _Terminal())
        tell_error(f"{told}\n  {told}\n  ^")
        shown = re.sub("\x1b\\[[0-9;]*m", "", sys.stderr.getvalue()).splitlines()  # type: ignore[attr-defined]
        patch.setattr(sys, "stderr", elsewhere := io.StringIO())
        note(told)
    *sentence, pointed, caret = shown
    assert pointed == f"  {told}" and caret == "  ^"
    assert " ".join(sentence) == f"error: {told}"
    assert all(cell_len(line) <= width or len(line.removeprefix("error: ").split()) == 1 for line in sentence)
    # no line could take the first word of the next one
    pairs = pairwise(sentence)
    assert all(cell_len(line) + 1 + cell_len(after.split()[0]) > width for line, after in pairs)
    assert elsewhere.getvalue() == f"{told}\n"


def test_what_a_preset_stands_for_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    presets = CliRunner().invoke(app, ["policies"]).output.partition("\npresets: ")[2]
    assert presets and "…" not in presets
    assert max(map(len, presets.splitlines())) <= 80


def test_numbers_stand_beside_a_long_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    with screens.bar() as progress:
        track = progress.add_task("entropy+" * 12 + "med", total=200, pace="1,234 passes, 1,234 tokens/s")
        progress.update(track, completed=16)
        progress.add_task("waits", total=200, start=False, pace="")
        progress.refresh()
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert " 16/200 1,234 passes, 1,234 tokens/s 0:0" in shown and "0/200" in shown and "-:--" not in shown

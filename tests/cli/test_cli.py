"""The command line: what it prints, what it returns, and that it never ends in a traceback."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import attrs
import pytest
import typer
from checkpoints import write_checkpoint
from mdsample_cli.groups import Without, grouped
from mdsample_cli.main import main
from mdsample_cli.options import ModelOptions

from mdsample.backend.installed import installed_backends

#: the template of `tiny-gsm`, so that the task's problems are the model's sample problems
TEMPLATE = "Question: {prompt}\nReasoning:{reasoning:96}\nAnswer:{answer:4}"
SHORT = "Q {prompt} A{answer:3}"


@attrs.frozen
class Ran:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.out.splitlines()]


Command = Callable[..., Ran]


@pytest.fixture
def mdsample(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process."""

    def run(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(a) for a in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", config={"max_sequence_length": 640})
    (folder / "mdsample.toml").write_text(f"template = {json.dumps(TEMPLATE)}\n")
    return folder


def without_bounds(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the numbers in which the rounding of a model's arithmetic shows."""
    return [{k: v for k, v in row.items() if k not in ("error_bound", "tv_bound")} for row in rows]


def process(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    command = [
        sys.executable,
        "-c",
        # a shell that starts jobs in the background has their interrupts ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from mdsample_cli.main import main; raise SystemExit(main())",
        *map(str, arguments),
    ]
    streams: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, **streams)


# what is wrong is said in one line, with the remedy


def test_usage_errors(mdsample: Command, model: Path, tmp_path: Path) -> None:
    working = ", ".join(backend.name for backend in installed_backends() if not backend.fault)
    run = ("run", "--model", model)
    folder, absent = tmp_path, tmp_path / "absent"
    for arguments, message in (
        ([*run, "-p", "med(0.2"], "expected ',' or ')'\n  med(0.2\n         ^"),
        ([*run, "-p", "mde"], "unknown policy 'mde'; did you mean 'med'?\n  mde\n  ^"),
        (
            [*run, "-p", "med+top(3)"],
            "two parts want the selection seat: below-entropy and top(3); keep one, or swap them: entropy+top(3)"
            "\n  med+top(3)\n      ^",
        ),
        (
            [*run, "-p", "early-exit(slot='x')"],
            "early-exit(slot='x'): there is no such slot; slots here: reasoning, answer",
        ),
        ([*run, "-p", "med", "--policy-file", "x"], "--policy and --policy-file are two policies; give one of them"),
        ([*run, "--policy-file", absent], f"cannot read {absent}: No such file or directory"),
        (
            [*run, "-p", "med", "--steps", 4],
            "--steps 4 is short for '+steps(4)': two parts want the selection seat: below-entropy and steps(4); "
            "keep one, or swap them: entropy+steps(4)\n  entropy+below-entropy+steps(4)\n                        ^",
        ),
        (
            [*run, "-t", "Q {prompt} {a:3", "hi"],
            "a single '{'; write '{{' for a literal brace\n  Q {prompt} {a:3\n             ^",
        ),
        ([*run, "-t", "Q {prompt}", "hi"], "a template needs at least one slot, such as {answer:16}"),
        ([*run, "-t", f"@{absent}", "hi"], f"cannot read {absent}: No such file or directory"),
        (
            [*run, "-t", "{a}{b}{answer:2}", "hi"],
            "a prompt fills the one field of a template, but this one has: a, b; give JSON lines as input",
        ),
        (
            [*run, "-t", "{answer:2}", "hi"],
            "a prompt fills the one field of a template, but this one has: none; leave the prompt out",
        ),
        (
            [*run, "-t", "{a}{answer:2}"],
            "there is no sample problem for this model and template; give a prompt, or an input",
        ),
        (
            [*run, "word " * 5000],
            "the row is 25125 tokens long, slots included; tiny takes at most 640: shorten the text or the slots",
        ),
        (
            [*run, "-t", "{prompt}{answer:900}", "hi"],
            "the row is 901 tokens long, slots included; tiny takes at most 640: shorten the text or the slots",
        ),
        (
            ["run", "--model", folder],
            f"{folder} holds no config.json, so it is not a model folder; give the folder that config.json and the "
            "weights are in",
        ),
        (
            [*run, "--backend", "abacus"],
            f"there is no backend 'abacus'; installed: {working}, or 'auto' to choose",
        ),
        (
            [*run, "--revision", "main"],
            f"revision='main' is for models on the hub, but '{model}' is a folder here; leave it out",
        ),
        ([*run, "--input", absent], f"cannot read {absent}: No such file or directory"),
        ([*run, "--input", folder], f"cannot read {folder}: Is a directory"),
        ([*run, "--input", "-", "hi"], "a PROMPT and --input are two inputs; give one of them"),
        ([*run, "--input", "-", "--live"], "--live shows one prompt; leave out --input, or --live"),
        ([*run, "--output", absent / "x", "hi"], f"cannot write {absent / 'x'}: No such file or directory"),
        ([*run, "--trace", absent / "x", "hi"], f"--trace: cannot write {absent / 'x'}: there is no such folder"),
        ([*run, "one", "two"], "Got unexpected extra argument(s) (two) (see 'mdsample run --help')"),
        (["walk"], "No such command 'walk' (see 'mdsample --help')"),
        (["explain"], "give a POLICY, such as 'med(0.2)+early-exit', or --model for the one that a model takes"),
        (["audit", "--toy", "x"], "there is no toy 'x'; there are: "),
        (["audit", "--plot", "x.pdf"], "--plot writes .png and .svg; got x.pdf"),
        (["audit", "-p", "early-exit"], "early-exit(slot='answer'): there is no such slot; slots here: text"),
        (
            ["bench", "--task", "x"],
            "there is no task 'x'; there are: tiny-gsm, sudoku6, sudoku6-hard, sudoku, sudoku-hard, gsm8k, math500, "
            "humaneval, humaneval-infilling, mbpp, countdown, sudoku4, and files (.jsonl)",
        ),
        (
            ["calibrate", "med(?)"],
            "say what may be lost, once: --accuracy-loss 0.02, --disagreement 0.05, --total-variation 0.05 or "
            "--error-bound 1",
        ),
        (
            ["calibrate", "med", "--disagreement", "0.1"],
            "write the number to be found as ?, once, as in med(?); got 'med'",
        ),
        (
            ["calibrate", "med(?)", "--disagreement", "0.1", "--values", "a"],
            "--values takes numbers with commas between, safest first, as 0.05,0.1,0.2; got 'a'",
        ),
        (["bench", "--task", "gsm8k"], "--task gsm8k needs the published file: --problems FILE (JSON lines)"),
        (
            ["bench", "--problems", "x.jsonl"],
            "--problems is the file of gsm8k, math500, humaneval, humaneval-infilling, mbpp, countdown, sudoku4; a "
            "file of yours is --task FILE",
        ),
        (
            ["bench", "--task", "x.jsonl"],
            "a file of yours needs the template that it is put into: --template '{prompt} {answer:16}'",
        ),
        (["bench", "--plot", "x.gif"], "--plot takes a file that ends in .svg, .png, .pdf; got x.gif"),
        (
            ["bench", "--model", model, "--limit", 1001],
            "limit must lie between 1 and 1000, the problems of tiny-gsm; got 1001",
        ),
        (["rows", "--answer-as", "{} {}"], "--answer-as needs {} once, where the answer goes; got '{} {}'"),
        (["rows", "--wrong", absent], f"cannot read {absent}: No such file or directory"),
        (
            ["rows", "-t", "{q}{a:1}"],
            "--template says which fields a .jsonl file of yours has; other tasks have their own, leave it out",
        ),
        (["replay", "."], "cannot read .: Is a directory"),
        (["replay", absent], f"cannot read {absent}: No such file or directory"),
        (
            ["replay", __file__],
            f"{__file__} is not a trace: it is not JSON lines (Extra data: line 1 column 3 (char 2))",
        ),
    ):
        ran = mdsample(*arguments)
        assert (ran.code, ran.out) == (2, ""), arguments
        said = ran.err.removesuffix("\n")
        assert said == f"error: {message}" or (message.endswith(": ") and said.startswith(f"error: {message}")), (
            arguments
        )
        assert "Traceback" not in ran.err


@pytest.mark.parametrize("option", [("--seed", "x"), ("--batch-size", "0"), ("--steps", "0"), ("--nope",)])
def test_options_are_checked(mdsample: Command, option: tuple[str, ...]) -> None:
    ran = mdsample("run", *option, "hi")
    assert ran.code == 2 and ran.err.startswith("error: ") and option[0] in ran.err and ran.err.count("\n") == 1


def test_a_policy_file(mdsample: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("policy = 'steps(2)+whole'")
    ran = mdsample("run", "--model", model, "-t", SHORT, "--policy-file", path, "--json", "hi")
    assert ran.rows[0]["policy"] == "whole+entropy(noise=0)+steps(n=2,shares='larger-first')+greedy+never+none"
    path.write_text("policy = 'steps(0)'")
    ran = mdsample("run", "--model", model, "--policy-file", path, "hi")
    assert (ran.code, ran.err.splitlines()[0]) == (
        2,
        f"error: {path}: steps(n=…) must be a whole number, at least 1; got 0",
    )


# run


FIELDS = [
    "id",
    "prompt",
    "text",
    "slots",
    "nfe",
    "steps",
    "rounds",
    "tokens_per_forward",
    "unfilled",
    "outcome",
    "sentence",
]
FIELDS += [
    "error_bound",
    "tv_bound",
    "certain",
    "model",
    "cache",
    "policy",
    "template",
    "seed",
    "backend",
    "approximate",
    "versions",
]


def test_json_has_every_field(mdsample: Command, model: Path) -> None:
    ran = mdsample("run", "--model", model, "-t", SHORT, "--json", "--seed", 7, "the cat")
    assert (ran.code, ran.err) == (0, "")
    [row] = ran.rows
    assert list(row) == FIELDS
    assert row | {"id": 0, "prompt": "the cat", "template": SHORT, "seed": 7, "model": "tiny"} == row
    assert row["policy"].endswith("+greedy+early-exit(entropy=0.1,slot='answer')+never+none")


def test_without_a_prompt_it_takes_a_sample_problem(mdsample: Command, model: Path) -> None:
    ran = mdsample("run", "--model", model, "--steps", 4)
    assert (ran.code, ran.err) == (0, "")
    labels = [text.split("  ")[0] for text in ran.out.splitlines() if text[:1].strip()]
    cost = ["passes", "time", "outcome", "error bound", "certain"]
    assert labels == ["prompt", "reasoning", "answer", *cost, "policy", "model"]
    assert re.search(r"^answer .*\(expected: \d+\)$", ran.out, re.MULTILINE)
    assert "\npasses       4 for 100 blanks, 25.0 tokens each\n" in ran.out
    assert "\npolicy       steps(4)\n" in ran.out
    assert re.search(r"^error bound  [\d.]+ nats \(KL\), [\d.]+ \(total variation\)$", ran.out, re.MULTILINE)
    drawn = mdsample("run", "--model", model, "--policy", "whole+top(2)+temperature(1)", "-t", "{a:2}").out
    said = re.search(r"([\d.]+) \(total variation\): up to (\d+)\s+in 100 texts\s+differ", drawn)
    assert said and round(100 * float(said[1])) == int(said[2]) and "certain" not in drawn
    # the theorem does not speak of a law that is cooled or constrained
    for part in ("cooling(0.5)", "ban([5])"):
        other = mdsample("run", "--model", model, "-p", f"whole+top(2)+temperature(1)+{part}", "-t", "{a:2}").out
        assert "(total variation)" in other and "100 texts" not in " ".join(other.split())
    assert max(map(len, ran.out.splitlines())) <= 80
    assert mdsample("run", "--model", model, "--steps", 4, "--json").rows[0]["expected"].isdigit()


@pytest.mark.parametrize(
    "prompt",
    ["", "[bold]b[/bold] [/] :smile:", "{x} {{y}} {", "😀 é \u202e", "<|mdm_mask|> <|endoftext|>", "\x1b[31m\x07", "-"],
)
def test_any_prompt_is_shown_as_it_is(mdsample: Command, model: Path, prompt: str) -> None:
    run = ("run", "--model", model, "-t", SHORT, "--", prompt)
    ran = mdsample(*run)
    assert (ran.code, ran.err) == (0, "")
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in prompt)
    assert f"prompt       {shown}".rstrip() in ran.out.splitlines()
    assert mdsample("run", "--model", model, "-t", SHORT, "--json", "--", prompt).rows[0]["prompt"] == prompt


def test_half_a_character_in_a_prompt_is_refused(mdsample: Command, model: Path) -> None:
    ran = mdsample("run", "--model", model, "\udcff")
    assert ran.code == 2 and "half of a surrogate pair" in ran.err


def test_blanks_left_blank_are_shown(mdsample: Command, model: Path) -> None:
    ran = mdsample("run", "--model", model, "-p", "early-exit(99)", "hi")
    assert "░" * 60 in ran.out and "passes       1 for 4 of 100 blanks, 4.0 tokens each" in ran.out
    assert "The slot 'answer' was certain enough (below 99 nats), so it was filled early." in " ".join(ran.out.split())


def test_a_template_from_a_file_without_fields(mdsample: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "template.txt"
    path.write_text("The {noun:2} sat.\n")
    [row] = mdsample("run", "--model", model, "-t", f"@{path}", "--json").rows
    assert row["template"] == "The {noun:2} sat." and row["text"].endswith(" sat.")
    assert "below-entropy" in row["policy"] and "early-exit" not in row["policy"]


ROWS = b"""{"id": "a", "prompt": "the cat"}
no json

{"prompt": "the mat", "answer": "left alone"}
{"id": "a", "prompt": "again"}
"""


def test_bad_rows_do_not_keep_the_others_from_being_answered(mdsample: Command, model: Path) -> None:
    ran = mdsample("run", "--model", model, "-t", SHORT, "-i", "-", "--json", stdin=ROWS)
    assert ran.code == 1
    assert [(row["id"], row.get("error")) for row in ran.rows] == [
        ("a", None),
        (1, "line 2: this is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (2, None),
        ("a", "line 5: there is an earlier row with the id 'a'"),
    ]
    summary, *reasons = ran.err.splitlines()
    assert summary.startswith("2 rows answered; 2 with an error; ")
    assert re.search(r"; [\d.]+ forward passes a row, [\d.]+ tokens each; [\d.]+ s, [\d,]+ tokens a second$", summary)
    assert reasons == [
        "  1 × this is not JSON: Expecting value: line 1 column 1 (char 0)",
        "  1 × there is an earlier row with the id 'a'",
    ]
    plain = mdsample("run", "--model", model, "-t", SHORT, "-i", "-", stdin=ROWS)
    assert plain.code == 1 and "id     1\nerror  line 2: this is not JSON" in plain.out


def test_input_order_and_batches(mdsample: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("".join("the cat " * (i * 5 % 7) + f"{i}\n" for i in range(7)))
    run = ("run", "--model", model, "-t", SHORT, "-i", path, "-p", "one-by-one", "--json", "--batch-size")
    rows = mdsample(*run, 1).rows
    assert [row["id"] for row in rows] == list(range(7))
    assert without_bounds(mdsample(*run, 3).rows) == without_bounds(rows)
    assert mdsample("run", "--model", model, "-i", "-", "--json").rows == []


def test_output_resumes_and_refuses(mdsample: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    run = ("run", "--model", model, "-t", SHORT, "-i", "-", "-o", path)
    ran = mdsample(*run, stdin=ROWS)
    assert (ran.code, ran.out) == (1, "")
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    again = mdsample(*run, "--json", stdin=ROWS)
    assert again.err.startswith(f"{path} already answers 1 of 4 rows\n1 row answered; 2 with an error; ")
    assert [row["id"] for row in again.rows] == [1, "a", 2]
    everything = [sorted(map(str, without_bounds(map(json.loads, d.splitlines())))) for d in (path.read_bytes(), whole)]
    assert everything[0] == everything[1]
    whole = path.read_bytes()
    refused = mdsample(*run, "--seed", 1, stdin=ROWS)
    assert refused.code == 2
    assert refused.err.endswith("or the settings it was made with\n  seed there: 0\n  seed now:   1\n")
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_an_interrupt_writes_what_is_finished(model: Path, tmp_path: Path) -> None:
    prompts, path = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    prompts.write_text("the cat sat on the mat\n" * 3000)
    running = process("run", "--model", model, "-i", prompts, "-o", path, "--batch-size", 1)
    for _ in range(300):
        time.sleep(0.1)
        if path.exists() and path.stat().st_size:
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and out == b""
    assert err == b"interrupted; finished rows are written; run the same command again to resume\n"
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    assert rows and all(row["text"] for row in rows)


def test_a_reader_that_has_seen_enough(model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the cat\n" * 200)
    for command in (["run", "--model", model, "-t", SHORT, "-i", prompts, "--json"], ["policies"]):
        running = process(*command)
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert (running.stderr.read(), running.wait()) == (b"", 0)
        running.stderr.close()


def test_live_without_a_terminal_says_so(mdsample: Command, model: Path) -> None:
    ran = mdsample("run", "--model", model, "-t", SHORT, "--live", "hi")
    assert (ran.code, ran.err) == (0, "--live needs a terminal; only the result is shown\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_live_on_a_terminal(model: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "30"}
    running = process(
        *("run", "--model", model, "-t", SHORT, "--live", "[b]hi"), stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert running.wait() == 0
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    assert "Q [b]hi A░░░" in text and "3 blanks filled" in text and "outcome" in text


# trace and replay


def test_replay_of_a_trace(mdsample: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    run = ("run", "--model", model, "-t", SHORT, "-i", "-", "-p", "top(1)", "--batch-size", 1, "--json")
    rows = mdsample(*run, "--trace", path, stdin=b"the cat\nthe mat\n").rows
    assert mdsample("replay", path).code == 2
    found = mdsample("replay", path, "--model", model, "--json").rows
    keys = (
        "id",
        "text",
        "slots",
        "nfe",
        "steps",
        "unfilled",
        "outcome",
        "policy",
        "seed",
        "model",
        "backend",
        "cache",
        "versions",
    )
    assert [{key: row[key] for key in keys} for row in sorted(found, key=lambda row: row["id"])] == [
        {key: row[key] for key in keys} for row in rows
    ]
    assert {"step", "position", "token", "text", "probability", "entropy", "confidence", "ruled"} == set(
        found[0]["commits"][0]
    )
    told = mdsample("replay", path, "--model", model, "--row", 1)
    steps = re.findall(r"^step (\d)   (\d+:'.*')$", told.out, re.MULTILINE)
    assert [number for number, _ in steps] == ["1", "2", "3"]
    assert "3 forward passes, 3 of 3 blanks filled" in told.out
    unknown = mdsample("replay", path, "--model", model, "--row", "x")
    assert (unknown.code, unknown.err) == (2, f"error: {path} has no row 'x'; rows: 0, 1\n")


def test_a_trace_of_another_model_is_refused(mdsample: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    mdsample("run", "--model", model, "-t", SHORT, "hi", "--trace", path)
    other = write_checkpoint(tmp_path / "other", config={"mask_token_id": 3})
    ran = mdsample("replay", path, "--model", other)
    assert (ran.code, ran.err) == (
        2,
        "error: the trace was made with 'tiny', whose tokens are others; give it with --model\n",
    )


# the menus


def test_policies(mdsample: Command) -> None:
    from mdsample.policy.catalog import PARTS
    from mdsample.policy.presets import PRESETS

    ran = mdsample("policies")
    assert ran.code == 0 and max(map(len, ran.out.splitlines())) <= 80
    for name in (*PARTS, *PRESETS):
        assert re.search(rf"^  {name}\b", ran.out, re.MULTILINE), name
    [menu] = mdsample("policies", "--json").rows
    assert [entry["name"] for entries in menu["parts"].values() for entry in entries] == list(PARTS)
    assert {entry["name"]: entry["parts"] for entry in menu["presets"]}["med"] == "entropy+below-entropy"
    assert all(entry["summary"].endswith(".") for entries in menu["parts"].values() for entry in entries)


def test_explain(mdsample: Command) -> None:
    ran = mdsample("explain", "med(0.3)+early-exit")
    assert ran.code == 0 and max(map(len, ran.out.splitlines())) <= 80
    for text in (
        "window      blocks   by default\n",
        "selection   below-entropy(0.3)\n              entropy = 0.3   given; default 0.2; a number, above 0\n",
        "\n              k = none   default; a whole number, at least 1, or none\n",
        "draw        greedy   by default\n",
        "stop        early-exit\n",
        "arXiv 2510.19990",
        "constraint  nothing\n",
        "\nshortest  entropy+below-entropy(0.3)+early-exit\n",
    ):
        assert text in ran.out
    [told] = mdsample("explain", "med(0.3)", "--json").rows
    assert told["policy"] == "entropy+below-entropy(0.3)"
    assert told["empty"] == ["stop", "constraint"]
    assert {seat["seat"]: seat["given"] for seat in told["seats"]} == {
        **{"window": False, "order": True, "selection": True, "draw": False, "revise": False, "guide": False}
    }
    assert told["seats"][2]["settings"] == [["entropy", "0.3", "0.2"], ["k", "none", "none"]]


def test_models(mdsample: Command) -> None:
    from mdsample.models.families import FAMILIES
    from mdsample.models.find import embedded_models

    ran, [told] = mdsample("models"), mdsample("models", "--json").rows
    assert ran.code == 0 and "a2d-llama, " in ran.out and "\nreference  cpu" in ran.out
    assert [entry["name"] for entry in told["models"]] == embedded_models()
    assert sorted(kind for family in told["families"] for kind in family["types"]) == sorted(FAMILIES)
    assert "reference" in [backend["name"] for backend in told["backends"]]


# audit and bench


def test_audit(mdsample: Command, tmp_path: Path) -> None:
    run = ("audit", "--toy", "same-word", "-p", "med", "-p", "whole+top(4)+temperature(1)")
    med, blind = mdsample(*run, "--json").rows
    assert med["policy"] == "entropy+below-entropy+temperature" and med["expected_nfe"] == pytest.approx(2)
    assert med["kl"] == pytest.approx(0, abs=1e-12)
    # four independent draws of four words: 3 log 4 nats too many, three quarters and more of the mass elsewhere
    assert blind["kl"] == pytest.approx(4.1589, abs=1e-4) and blind["tv"] == pytest.approx(1 - 4 / 256)
    assert blind["toy"] == "same-word" and blind["kl"] <= blind["kl_bound"] + 1e-9
    table = mdsample(*run)
    assert table.code == 0 and "\nmed  " in table.out
    [greedy] = mdsample("audit", "--toy", "same-word", "-p", "med+greedy", "--json").rows
    assert greedy["kl"] is None and greedy["kl_bound"] is None
    assert "same-word" in mdsample("audit", "--toy", "list").out.splitlines()


def test_audit_frontier_and_plot(mdsample: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = ("audit", "--toy", "same-word", "-p", "med", "--plot")
    ran = mdsample(*run, tmp_path / "x.svg", "--frontier")
    assert (ran.code, ran.err) == (0, "")
    assert all(
        re.search(rf"^{rule}  ", ran.out, re.MULTILINE)
        for rule in ("MED", "EB", "threshold", "factor", "KLASS", "top-k")
    )
    rows = mdsample(*run, tmp_path / "x.png", "--frontier", "--json").rows
    assert {"policy", "kl", "tv"} <= rows[0].keys() and {"rule", "policy", "expected_nfe", "kl"} <= rows[1].keys()
    assert (tmp_path / "x.svg").read_text().startswith("<?xml") and (tmp_path / "x.png").read_bytes()[1:4] == b"PNG"
    assert mdsample(*run, tmp_path / "none" / "x.png").code == 2


def test_plot_without_matplotlib(mdsample: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdsample_cli.files.find_spec", lambda name: None)
    ran = mdsample("audit", "-p", "med", "--plot", "x.png")
    assert (ran.code, ran.err) == (2, "error: --plot needs matplotlib: pip install 'mdsample[plot]'\n")


@pytest.mark.slow
def test_bench(mdsample: Command, model: Path) -> None:
    run = ("bench", "--model", model, "--limit", 2, "-p", "steps(4)", "-p", "steps(5)+whole")
    rows = mdsample(*run, "--json").rows
    assert [row["nfe"] for row in rows] == [4, 5] and rows[1]["nfe_ratio"] == 0.8
    assert {"policy", "accuracy", "accuracy_low", "tokens_per_forward", "seconds", "limit", "model"} <= rows[0].keys()
    table = mdsample(*run)
    assert (table.code, table.err) == (0, "")
    assert re.search(r"^steps\(5\)\+whole .* 5.0 ± 0.0 +0.80 +20.00$", table.out, re.MULTILINE)
    longer = TEMPLATE.replace("96", "128")
    [one] = mdsample("bench", "--model", model, "--limit", 1, "-p", "steps(4)+whole", "-t", longer, "--json").rows
    assert (one["template"], one["tokens_per_forward"]) == (longer, 33)
    refused = mdsample("bench", "--model", model, "--limit", 1, "-t", "{prompt}{reasoning:4}")
    assert refused.code == 2 and "has the fields of its own" in refused.err


def same(rows: Any) -> list[Any]:
    """Records without times; bounds round with the batch that a row was in."""
    bounds = ("error_bound", "tv_bound")
    return sorted(({**r, "seconds": 0, **{b: round(r[b], 3) for b in bounds}} for r in rows), key=str)


@pytest.mark.slow
def test_bench_keeps_every_answer(mdsample: Command, model: Path, tmp_path: Path) -> None:
    kept = tmp_path / "answers.jsonl"
    run = ("bench", "--model", model, "--limit", 3, "-p", "steps(4)", "-p", "steps(5)+whole", "--json")
    whole = same(mdsample(*run).rows)
    first = mdsample(*run, "--output", kept).rows
    data = kept.read_bytes()
    assert same(first) == whole
    answers = [json.loads(line) for line in data.splitlines()]
    assert len(answers) == len({(a["policy"], a["id"]) for a in answers}) == 6
    assert all(a["solved"] == (a["answer"] == a["expected"]) for a in answers)
    assert mdsample(*run, "--output", kept).rows == first  # nothing is computed again, not even the seconds
    assert kept.read_bytes() == data
    for end in (0, 1, 9, len(data) // 3, data.index(b"\n"), data.index(b"\n") + 1, len(data) - 1):
        kept.write_bytes(data[:end])
        assert same(mdsample(*run, "--output", kept).rows) == whole
        assert same(map(json.loads, kept.read_bytes().splitlines())) == same(answers)
    # another seed and another policy stand in the same file
    assert mdsample(*run, "--output", kept, "--seed", 1).code == 0
    assert len(kept.read_bytes().splitlines()) == 12
    for content, message in ((b"hello\n", "line 1 of"), (b"hello", "is not a file of answers")):
        kept.write_bytes(content)
        refused = mdsample(*run, "--output", kept)
        assert (refused.code, kept.read_bytes()) == (2, content)
        assert message in refused.err
    other = [a | {"expected": "x"} for a in answers]
    kept.write_text("".join(json.dumps(a) + "\n" for a in other))
    assert "answers problem 0 of other data" in mdsample(*run, "--output", kept).err


def test_bench_on_files_and_pictures(mdsample: Command, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    mine, school, picture = tmp_path / "mine.jsonl", tmp_path / "test.jsonl", tmp_path / "p.svg"
    mine.write_text('{"q": "the cat", "gold": "x"}\n{"q": "sat", "gold": 3}\n')
    school.write_text('{"question": "Ann has 2", "answer": "2\\n#### 2"}\n')
    twice = ("--model", model, "--model", model, "-p", "steps(2)", "-p", "med", "--plot", picture)
    ran = mdsample("bench", "--task", mine, "-t", "{q}: {answer:4}", "--answer-field", "gold", *twice)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("mine.jsonl, 2 problems") == 2
    assert "--answer-field is for a file of yours" in mdsample("bench", "--answer-field", "gold").err
    drawn = picture.read_text()
    assert "<svg" in drawn
    layout = "{prompt} {reasoning:4} {answer:2}"
    ran = mdsample("bench", "--task", "gsm8k", "--problems", school, "--model", model, "-t", layout, "--json")
    assert ran.code == 0 and {row["task"] for row in ran.rows} == {"gsm8k"}
    assert mdsample("bench", "--task", "gsm8k", "--problems", mine).err.startswith(f"error: {mine}, line 1: 'question'")


@pytest.mark.slow
def test_bench_refuses_a_policy_twice_and_leaves_early_exit_out_of_boards(mdsample: Command) -> None:
    refused = mdsample("bench", "-p", "fast-dllm", "-p", "confidence+above-confidence(0.9)", "--limit", 1)
    assert (refused.code, refused.err) == (
        2,
        "error: confidence+above-confidence is there twice, perhaps by another name; leave one --policy out\n",
    )
    ran = mdsample("bench", "--task", "sudoku6", "--limit", 1, "--json")
    assert [row["policy"].split("+")[2] for row in ran.rows] == ["top(k=1)", "below-entropy(entropy=0.2,k=none)"]


def test_rows(mdsample: Command, model: Path, tmp_path: Path) -> None:
    school, kept = tmp_path / "train.jsonl", tmp_path / "answers.jsonl"
    data = [
        {"question": f"{i} and 2?", "answer": f"{i} + 2 = <<{i}+2={i + 2}>>{i + 2}\n#### {i + 2}"} for i in range(4)
    ]
    school.write_text("".join(json.dumps(row) + "\n" for row in data))
    rows = ("rows", "--task", "gsm8k", "--problems", school)
    told = mdsample(*rows, "--answer-as", "{}}.", "--limit", 2)
    assert (told.code, told.err) == (0, "")
    assert told.rows == [
        {"id": 0, "prompt": "0 and 2?", "reasoning": "0 + 2 = 2", "answer": "2}."},
        {"id": 1, "prompt": "1 and 2?", "reasoning": "1 + 2 = 3", "answer": "3}."},
    ]
    # what a row says can be sampled, given, scored and, if it has a solution, trained on
    again = mdsample("traces", "--input", "-", "--model", model, "-t", SHORT + "{more:2}", stdin=told.out.encode())
    assert [row["given"] for row in again.rows] == [{"answer": "2}."}, {"answer": "3}."}]
    sudoku = mdsample("rows", "--task", "sudoku6", "--limit", 1).rows[0]
    assert len(sudoku["answer"]) == 36 and len(sudoku["A6"]) == 1

    bench = ("bench", "--task", "gsm8k", "--problems", school, "--model", model, "-t", SHORT, "--output", kept)
    assert mdsample(*bench, "--limit", 3, "-p", "med").code == 0
    answers = [json.loads(text) for text in kept.read_text().splitlines()]
    answers = [answer | {"solved": answer["id"] == 1} for answer in answers]
    kept.write_text("".join(json.dumps(answer) + "\n" for answer in answers) + '{"id": 3, "answ')
    wrong = mdsample(*rows, "--wrong", kept)
    assert wrong.err == "3 of 4 problems answered, 1 of them right\n"
    assert [row["id"] for row in wrong.rows] == [0, 2]
    assert [row["id"] for row in mdsample(*rows, "--wrong", kept, "--limit", 1).rows] == [0]
    assert kept.read_text().endswith('{"id": 3, "answ')  # read, not repaired

    assert mdsample(*bench, "--limit", 3, "-p", "steps(2)", "--seed", 1).code == 0
    assert mdsample(*rows, "--wrong", kept).err == (
        f"error: {kept} holds answers of 2 comparisons, which differ in policy, seed; which problems were solved is "
        "asked of one: give a file that `bench --output` wrote for it alone\n"
    )
    kept.write_text("")
    assert "holds no answers" in mdsample(*rows, "--wrong", kept).err
    kept.write_text(json.dumps(answers[0] | {"id": 99}) + "\n")
    assert f"{kept} answers none of these 4 problems" in mdsample(*rows, "--wrong", kept).err
    for told in ({"seed": [1]}, {"solved": "yes"}, {"error_bound": "x"}, {"nfe": None}, {"expected": 5}, {"id": True}):
        kept.write_text(json.dumps(answers[0] | told) + "\n")
        refused = mdsample(*rows, "--wrong", kept)
        assert (refused.code, refused.err) == (
            2,
            f"error: line 1 of {kept} is not a benchmark answer; give another file\n",
        )
    kept.write_text("".join(json.dumps(answer | {"expected": "x"}) + "\n" for answer in answers))
    assert "answers problem 0 of other data" in mdsample(*rows, "--wrong", kept).err


def test_calibrate(mdsample: Command, model: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(json.dumps({"id": i, "q": "the cat " * i}) + "\n" for i in range(1, 4)))
    run = ("calibrate", "top(?)", "--task", mine, "-t", "{q}: {answer:4}", "--model", model, "--values", "1,2")
    ran = mdsample(*run, "--disagreement", 0.7)
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^top\(1\) +4\.0 +0\.00 +63\.16 +kept$", ran.out, re.MULTILINE)
    assert ran.out.splitlines()[-1] == "top(1)"
    nothing = mdsample(*run, "--disagreement", 0.1)
    assert (nothing.code, nothing.err) == (1, "")
    assert nothing.out.endswith("no setting keeps it: give more problems, or allow more\n")
    [one] = mdsample(*run, "--disagreement", 0.1, "--json").rows
    assert one | {"policy": "top", "value": 1.0, "kept": False} == one
    assert "--accuracy-loss" in mdsample(*run, "--accuracy-loss", 2).err  # a share, not per cent
    refused = mdsample(*run, "--accuracy-loss", 0.1)  # needs right answers, which the file has not
    assert refused.code == 2 and "'answer' must be text or a whole number; it is not there" in refused.err


def test_judge(mdsample: Command, model: Path, tmp_path: Path) -> None:
    kept = tmp_path / "t.jsonl"
    assert (
        mdsample("run", "the cat", "-t", SHORT.replace("A{", "{r:5} A{"), "--model", model, "--trace", kept).code == 0
    )
    ran = mdsample("judge", kept, "--model", model)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("log p(answer = ") and "(nothing)" in ran.out
    other = shutil.copytree(model, tmp_path / "other")
    judged = mdsample("judge", kept, "--model", other)
    assert (judged.code, judged.err) == (0, f"{kept} was written by {model.name}; other judges it\n")
    assert judged.out == ran.out
    [row] = mdsample("judge", kept, "--model", model, "--by", "token", "--answer", "12", "--json").rows
    assert row["answer"] == "12" and 1 <= len(row["parts"]) == row["nfe"] - 1 <= 5
    assert abs(row["before"] + sum(p["change"] for p in row["parts"]) - row["parts"][-1]["log_probability"]) < 1e-9
    for more, message in (
        (("--by", "word"), "--by takes one of sentence, step, token; got 'word'"),
        (("--slot", "x"), "the trace has no slot 'x'; slots there: r, answer"),
        (("-t", SHORT), "No such option: -t"),
        (("--answer", "the cat sat on the mat the cat sat"), "tokens; the slot has 3"),
    ):
        refused = mdsample("judge", kept, "--model", model, *more)
        assert refused.code == 2 and message in refused.err
    assert "cannot read" in mdsample("judge", tmp_path / "none").err
    assert mdsample("score", "--trace", "t").err == "error: score does not read traces; use: mdsample judge t\n"


def test_audit_shows_what_it_knows_before_it_fails(mdsample: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from mdsample.errors import LawTooLarge

    computed = importlib.import_module("mdsample.exact.audit")
    whole = computed.audit

    def small(policies: Any, *more: Any) -> Any:
        if "p2" in str(policies[0]):
            raise LawTooLarge("too many branches")
        return whole(policies, *more)

    monkeypatch.setattr(computed, "audit", small)
    ran = mdsample("audit", "-p", "med", "-p", "p2", "--toy", "coupled")
    assert ran.code == 2 and ran.err == "error: too many branches\n"
    assert "\nmed  " in ran.out


# the rest


def test_version_and_help(mdsample: Command) -> None:
    import mdsample as library

    assert mdsample("--version").out == f"mdsample {library.__version__}\n"
    bare, helped = mdsample(), mdsample("--help")
    assert bare.code == helped.code == 0
    for command in ("run", "judge", "policies", "explain", "models", "audit", "replay", "bench", "rows"):
        assert command in helped.out
        assert mdsample(command, "--help").code == 0


def test_defaults_that_are_written_twice_agree() -> None:
    # the command must not import the library to know them
    from mdsample_cli.commands.bench import bench
    from mdsample_cli.commands.run import run

    from mdsample.sampling.engine import BATCH_SIZE

    assert {signature(command).parameters["batch_size"].default for command in (run, bench)} == {BATCH_SIZE}


def test_option_groups_become_the_options_of_a_command() -> None:
    def command(model: Annotated[ModelOptions, Without("compile")], seed: Annotated[int, typer.Option()] = 0) -> Any:
        return model, seed

    flat = grouped(command)
    names = ["model", "revision", "adapter", "backend", "device", "dtype", "cache", "seed"]
    assert list(signature(flat).parameters) == names
    values = {name: parameter.default for name, parameter in signature(flat).parameters.items()}
    assert flat(**{**values, "model": "x", "seed": 3}) == (ModelOptions(model="x"), 3)


def test_the_command_does_not_wait_for_the_library() -> None:
    code = "import sys, mdsample_cli.main; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"numpy", "mdsample", "rich", "matplotlib", "tokenizers"} & set(loaded)


# nothing that is there is written over by mistake


def test_one_file_is_not_used_for_two_things(mdsample: Command, model: Path, tmp_path: Path) -> None:
    file, answers, trace = tmp_path / "p.jsonl", tmp_path / "o.jsonl", tmp_path / "t.jsonl"
    run = ("run", "--model", model, "-t", SHORT, "-p", "top(1)")
    text = '{"id": 5, "prompt": "Ann"}'
    file.write_text(text)
    for arguments in (
        ["-i", file, "-o", file],
        ["-i", file, "--trace", file],
        ["-i", file, "-o", answers, "--trace", answers],
        ["-i", file, "-o", answers, "--trace", tmp_path / "." / "o.jsonl"],
    ):
        ran = mdsample(*run, *arguments)
        assert (ran.code, "the same file" in ran.err) == (2, True), ran.err
    assert mdsample(*run, "-i", file, "-o", answers).code == 0
    kept = answers.read_bytes()
    assert "is not a trace" in mdsample(*run, "hi", "--trace", answers).err
    # a foreign file of one line without an end looks like a record that a kill cut off
    assert "is not a file of records" in mdsample(*run, "hi", "-o", file).err
    assert (file.read_text(), answers.read_bytes()) == (text, kept)
    for _ in range(2):  # a trace may be written over
        assert mdsample(*run, "hi", "--trace", trace).code == 0


def test_where_nothing_can_be_written_is_said_at_once(mdsample: Command, tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "x.png"
    for command in (("run", "--trace"), ("audit", "--plot")):
        for place in (absent, ""):
            ran = mdsample(*command, place)
            assert (ran.code, ran.out) == (2, ""), ran.err
    assert "it is a folder" in mdsample("run", "--trace", tmp_path).err
    assert list(tmp_path.iterdir()) == []


def test_an_input_without_rows_is_refused(mdsample: Command, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("\n\n")
    ran = mdsample("run", "--model", model, "-i", file)
    assert (ran.code, ran.err) == (2, f"error: {file} holds no rows\n")


def test_numbers_too_large_for_an_option(mdsample: Command) -> None:
    ran = mdsample("run", "hi", "--steps", 10**20)
    assert (ran.code, "--steps" in ran.err) == (2, True)
    ran = mdsample("run", "hi", "-t", "{prompt}{answer:999999999}")
    assert (ran.code, "too long" in ran.err) == (2, True)


def test_long_policies_break_between_terms(mdsample: Command) -> None:
    text = "eb(0.05)+blocks(64)+temperature(0.7,top_p=0.95)+choices(['a+b','c+d'],slot='answer')"
    lines = mdsample("explain", text).out.splitlines()
    said = "".join(line[10:] for line in lines[[x[:8] for x in lines].index("in full ") :])
    assert said == json.loads(mdsample("explain", text, "--json").out)["in_full"]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["run", "hi", "--policy", ""], "--policy"),
        (["run", "hi", "--policy", " \n", "--steps", "3"], "--policy"),
        (["chat", "--policy", ""], "--policy"),
        (["bench", "--policy", "med", "--policy", ""], "--policy"),
        (["audit", "--policy", ""], "--policy"),
        (["traces", "-i", "-", "--policy", ""], "--policy"),
        (["calibrate", "med(?)", "--reference", "", "--disagreement", "0.1"], "--reference"),
    ],
)
def test_an_empty_policy_is_refused(arguments: list[str], option: str, mdsample: Command) -> None:
    ran = mdsample(*arguments)
    assert ran.code == 2 and ran.err.startswith(
        f"error: {option} is empty; write a policy, such as 'med(0.2)+early-exit'"
    )
    # what the seats hold that no part fills is still explained
    assert mdsample("explain", "").code == 0


@pytest.mark.parametrize("text", ["", "policy = ''", "[policy]\n"])
def test_an_empty_policy_file_is_refused(text: str, tmp_path: Path, mdsample: Command) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    ran = mdsample("run", "hi", "--policy-file", file)
    assert ran.code == 2 and "policy = 'med(0.2)+early-exit'" in ran.err and ran.err.startswith(f"error: {file}")


def test_every_block_takes_a_step(mdsample: Command) -> None:
    for steps, passes in ((2, 3), (3, 3), (6, 6)):
        options = ("--policy", "blocks(32)", "--steps", steps, "--json", "--backend", "reference")
        ran = mdsample("run", "hi", "-t", "{prompt}{a:96}", *options)
        assert [row["nfe"] for row in ran.rows] == [passes]

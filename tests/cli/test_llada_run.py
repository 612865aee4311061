"""The commands of docs/llada.md, as they stand there, on tiny random weights with LLaDA's token ids and chat template.

What is put in the place of what: `HERE` below, and nothing else.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import attrs
import pytest
from checkpoints import write_llada

torch = pytest.importorskip("torch")
import interpreted  # noqa: F401 - what comes next imports Triton

for needed in ("peft", "accelerate", "math_verify"):
    pytest.importorskip(needed)

from mdsample_cli.main import main
from safetensors.torch import load_file

import mdsample
from mdsample.backend.load import load
from mdsample.core.template import Template

pytestmark = pytest.mark.slow  # every command of the page is run once, for all tests here

PAGE = Path(__file__).parents[2] / "docs" / "llada.md"
BLOCK = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: what the page says, and what stands for it here: models are folders (which have no revisions), slots and blocks are
#: short, a training is two steps
HERE = {
    "GSAI-ML/LLaDA-8B-Instruct": "instruct",
    "GSAI-ML/LLaDA-8B-Base": "base",
    " --revision main": "",
    "{text:256}": "{text:12}",
    "{reasoning:240}": "{reasoning:12}",
    "blocks(128)": "blocks(8)",
    "blocks(32)": "blocks(4)",
    "--accumulate 4": "--accumulate 1 --epochs 2",
}
TEST = [
    {"question": "Ann has 3 coins. Ben has 4 more. How many has Ben?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    {"question": "What is {half} of <|mdm_mask|> 2,036?", "answer": "2036 / 2 = <<2036/2=1018>>1,018.\n#### 1,018"},
]
TRAIN = [
    {"question": "Cem has 5 pens and loses 2.", "answer": "5-2 = <<5-2=3>>3\n#### 3"},
    {"question": "Eva has 8 pens. <|eot_id|>", "answer": "She has 8.\n#### 8"},
    {"question": "Two dozen pens.", "answer": "2*12 = <<2*12=24>>24\n#### 24"},
]
DELIMITER = " The answer is \\boxed{"
#: what the page's own command makes of `instruct.txt`
TEMPLATE = "{prompt}{reasoning:12} The answer is \\boxed{{{answer:10}\n"
MATH = [{"problem": "What is half of $1$?", "answer": "\\frac{1}{2}", "unique_id": "a/1.json"}]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def blocks() -> list[str]:
    """The page's blocks of commands, with what stands here for what is there."""
    text = PAGE.read_text(encoding="utf-8")
    found = "\n".join(BLOCK.findall(text))
    for there, here in HERE.items():
        assert there in found, f"the page no longer says {there!r}"
        text = text.replace(there, here)
    return BLOCK.findall(text)


def commands(block: str) -> Iterator[str]:
    """Commands of a block, one a line once continued lines are joined."""
    yield from block.replace("\\\n", " ").splitlines()


def run(command: str) -> str:
    """An `mdsample` command, in this process; what it wrote, also to a file after `>`."""
    words = shlex.split(command)
    words, file = (words[:-2], Path(words[-1])) if ">" in words else (words, None)
    out = io.StringIO()
    with redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, in training
        assert main(words[1:]) == 0, command
    if file is not None:
        file.write_text(out.getvalue())
    return out.getvalue()


def _make_one_right(folder: Path) -> None:
    """Writes the model's answer to a training problem down as the right one."""
    (folder / "instruct.txt").write_text(TEMPLATE)
    [asked] = [command for block in blocks() for command in commands(block) if "--output train.answers" in command]
    run(asked)
    first, right, last = TRAIN
    [answer] = [row["answer"] for row in lines(folder / "train.answers.jsonl") if row["id"] == 1]
    write(folder / "train.jsonl", [first, {**right, "answer": f"So it is.\n#### {answer}"}, last])
    (folder / "train.answers.jsonl").unlink()


@attrs.frozen
class Done:
    """A folder in which the page was run."""

    folder: Path
    #: by block, what its commands wrote to the terminal
    said: list[str]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("llada")
    write_llada(folder / "instruct")
    write_llada(folder / "base", chat=False, seed=1)
    write(folder / "test.jsonl", TEST)
    write(folder / "train.jsonl", TRAIN)
    write(folder / "math500.jsonl", MATH)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _make_one_right(folder)
        for block in blocks():
            if block.startswith("mdsample "):
                said.append("".join(map(run, commands(block))))
                continue
            told = subprocess.run(["bash", "-ec", block.replace("python ", f"{sys.executable} ")], capture_output=True)
            assert told.returncode == 0, told.stderr.decode()
            said.append(told.stdout.decode())
        yield Done(folder, said)


def passes(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Forward passes of the problems, in their order, by policy."""
    found: dict[str, dict[int, int]] = {}
    for row in rows:
        found.setdefault(row["policy"], {})[row["id"]] = row["nfe"]
    return {policy: [by_id[name] for name in sorted(by_id)] for policy, by_id in found.items()}


def test_the_layout_is_llada_s(done: Done) -> None:
    model = load(done.folder / "instruct", "reference")
    tokenizer: Any = model.tokenizer
    assert (tokenizer.size, tokenizer.mask_id, tokenizer.end_id, tokenizer.start) == (126349, 126336, 126081, ())
    template = mdsample.chat(done.folder / "instruct", "{prompt}{reasoning:2} so {answer:1}")
    user, assistant = tokenizer.encode("user"), tokenizer.encode("assistant")
    lines_between = tokenizer.encode("\n\n")
    assert template.row(tokenizer, {"prompt": "Ann <|eot_id|>"}).tokens == [
        *(126080, 126346, *user, 126347, *lines_between, *tokenizer.encode("Ann <|eot_id|>"), 126348),
        *(126346, *assistant, 126347, *lines_between, 126336, 126336, *tokenizer.encode(" so "), 126336),
    ]
    assert 126348 not in tokenizer.encode("Ann <|eot_id|>")


def test_the_page_counts_the_delimiter(done: Done) -> None:
    tokenizer: Any = load(done.folder / "instruct", "reference").tokenizer
    assert done.said[2].strip() == str(len(tokenizer.encode(DELIMITER)))


def test_the_template_files_are_those_that_the_page_tells(done: Done) -> None:
    assert (done.folder / "instruct.txt").read_text() == TEMPLATE
    for name in ("plain", "math", "instruct", "base"):
        assert Template.parse((done.folder / f"{name}.txt").read_text()).fields == ("prompt",)


def test_t1_and_t2_share_their_answers(done: Done) -> None:
    rows = lines(done.folder / "plain.jsonl")
    assert len(rows) == 6 * len(TEST)  # one of seven policies is in both
    assert {row["expected"] for row in rows} == {"7", "1,018"}
    assert sorted(passes(rows).values()) == [[3, 3], [6, 6], *[[12, 12]] * 4]
    for row in rows:
        numbers = re.findall(r"\d+", row["text"])
        assert row["answer"] == (numbers[-1] if numbers else "")
    math = lines(done.folder / "math.jsonl")
    assert sorted(passes(math).values()) == [[3], [6], [12]]
    assert {row["expected"] for row in math} == {"\\frac{1}{2}"}


@pytest.mark.parametrize(("file", "count"), [("early", 4 * len(TEST)), ("tuned", 4 * len(TEST)), ("train.answers", 3)])
def test_answers_are_read_from_their_slot(done: Done, file: str, count: int) -> None:
    rows = lines(done.folder / f"{file}.jsonl")
    assert len(rows) == count
    for row in rows:
        reasoning, found, answer = row["text"].partition(DELIMITER)
        assert found
        assert row["answer"] == re.findall(r"\d+", answer)[0]
        assert len(reasoning.split()) <= 12


def test_t5_takes_fewer_passes(done: Done) -> None:
    found = passes(lines(done.folder / "early.jsonl"))
    one, exits, med, both = found.values()
    assert one == [22, 22]
    for fewer, more in ((exits, one), (med, one), (both, med)):
        assert all(a <= b for a, b in zip(fewer, more, strict=True)) and sum(fewer) < sum(more)


def test_t3_asks_again_what_was_answered_wrong(done: Done) -> None:
    answered = {row["id"]: row["solved"] for row in lines(done.folder / "train.answers.jsonl")}
    assert answered == {0: False, 1: True, 2: False}
    assert lines(done.folder / "wrong.jsonl") == [
        {"id": 0, "prompt": TRAIN[0]["question"], "reasoning": "5-2 = 3", "answer": "3}."},
        {"id": 2, "prompt": TRAIN[2]["question"], "reasoning": "2*12 = 24", "answer": "24}."},
    ]


@pytest.mark.parametrize(
    ("file", "ids"), [("wrong.instruct", [0, 2]), ("wrong.base", [0, 2]), ("posterior", [0, 1, 2])]
)
def test_traces_lead_to_the_answer_that_was_given(done: Done, file: str, ids: list[int]) -> None:
    rows = sorted(lines(done.folder / f"{file}.jsonl"), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == ids
    for row in rows:
        [trace] = row["traces"]
        assert row["prompt"] == TRAIN[row["id"]]["question"]
        assert trace["slots"]["answer"] == row["given"]["answer"]
        assert trace["text"] == f"{trace['slots']['reasoning']}{DELIMITER}{row['given']['answer']}"
        assert len(trace["scores"]) == 5 and all(score < 0 for score in trace["scores"])
        assert trace["kept"] and 0 < trace["nfe"] <= 12


@pytest.mark.parametrize(("name", "examples"), [("human", 3), ("posterior", 3), ("both", 6)])
def test_t4_adapts_a_model_that_loads(done: Done, name: str, examples: int) -> None:
    folder = done.folder / f"tuned-{name}"
    report = json.loads((folder / "report.json").read_text())
    assert (report["examples"], report["steps"]) == (examples, 2)
    assert len(lines(folder / "loss.jsonl")) == 2
    assert load(folder).tokenizer.special == load(done.folder / "base").tokenizer.special
    before, after = (load_file(path / "model.safetensors") for path in (done.folder / "base", folder))
    assert before.keys() == after.keys()
    changed = {part for part in before if not torch.equal(before[part], after[part])}
    assert changed and all("blocks" in part and "norm" not in part for part in changed)
    models = {row["model"] for row in lines(done.folder / "tuned.jsonl")}
    assert models == {"base", "tuned-human", "tuned-posterior", "tuned-both"}

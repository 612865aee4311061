"""What the documentation shows is so: commands and Python snippets run as printed and print what stands below them."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pages
import pytest
import typer.main
from hypothesis import settings
from mdsample_cli.main import app
from pages import NOT_RUN, PAGES, ROOT

import mdsample
from mdsample import testing
from mdsample.testing import part

pytestmark = pytest.mark.docs
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
COMMANDS = typer.main.get_command(app)


@pytest.mark.slow
@by_page
def test_snippets_run(page: Path) -> None:
    names: dict[str, object] = {}
    snippets = pages.snippets(page)
    if any("import torch" in code for code, _ in snippets):
        pytest.importorskip("torch")
    for code, shown in snippets:
        printed = pages.execute(code, page, names)
        assert shown is None or pages.same(shown, printed), f"it prints\n{printed}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("your-own-part.md", "Beside"),
        ("your-own-part.md", "Certain"),
        ("your-own-part.md", "Lipogram"),
        ("your-own-part.md", "SecondLook"),
        ("tutorials/own-order.md", "OutsideIn"),
    ],
)
def test_the_parts_that_are_shown_are_parts(page: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "_STEADY", settings(part._STEADY, max_examples=20))
    names: dict[str, Any] = {}
    for code, _ in pages.snippets(ROOT / "docs" / page):
        pages.execute(code, Path(page), names)
    testing.check_part(names[name])


@pytest.mark.slow
@by_page
def test_commands_run(page: Path, tmp_path: Path) -> None:
    environment = pages.folder(tmp_path)
    for command in pages.commands(page):
        if not command.why_not:
            code, told = pages.run(command, tmp_path, environment)
            if command.shown is None:
                assert code == 0, f"{command.text}\n{told}"
            else:
                assert pages.same(command.shown, told), f"{command.text}\nprints\n{told}"
                assert (code != 0) == command.shown.startswith("error:"), f"{command.text} ends with {code}"


@by_page
def test_commands_that_are_not_run_are_right_as_far_as_can_be_told(page: Path) -> None:
    """Bash reads them, their options exist, and their policies can be read; those in the text too."""
    inside = re.findall(r"`((?:mdsample [a-z]|python benchmarks/)[^`]*)`", page.read_text(encoding="utf-8"))
    for text in [*(command.text for command in pages.commands(page)), *(x for x in inside if "…" not in x)]:
        subprocess.run(["bash", "-n", "-c", text], check=True, timeout=30)
        words = pages.words(text)
        if words[:2] == ["mdsample", "lm-eval"]:
            continue  # its options are the harness's
        if words[0] == "mdsample":
            right_command(words[1:], text)
        elif words[0] == "python" and words[1].startswith("benchmarks/"):
            code = (ROOT / words[1]).read_text() + (ROOT / "benchmarks" / "common.py").read_text()
            assert all(f'"{word}"' in code for word in words if word.startswith("--")), text


def right_command(words: list[str], text: str) -> None:
    command = COMMANDS.commands[words[0]]  # pyright: ignore[reportAttributeAccessIssue]
    options = {name: option for option in command.params for name in option.opts if name.startswith("-")}
    given = [word for word in words[1:] if re.match(r"--?[a-z]", word)]
    assert set(given) <= {*options, "--help", "--no-chat"}, text
    for option, value in pairwise(words):
        if option in ("-p", "--policy"):
            assert mdsample.parse(value), text


def test_what_is_not_run_is_there_and_has_a_reason() -> None:
    shown = [command for page in PAGES for command in pages.commands(page)]
    assert len(shown) > 50
    for what in NOT_RUN:
        assert any(command.why_not == NOT_RUN[what] for command in shown), f"no command fits {what}"


def test_what_a_page_shows_is_compared(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```\n$ echo one\none\n$ sleep 0; echo 'it took\n0.3 s …'\n```\n"
        "```\n$ printf '%s\\n' 'a  b' \\\n    c\na  b\n…\n```\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n"
    )
    one, two = pages.commands(page)  # with `…` in it a command is not spelled out
    assert (one.text, one.shown) == ("echo one", "one\n")
    assert two.text == "printf '%s\\n' 'a  b' \\\n    c"
    environment = pages.folder(tmp_path)
    assert [pages.same(x.shown or "", pages.run(x, tmp_path, environment)[1]) for x in (one, two)] == [True, True]
    assert pages.snippets(page) == [("print(1)\n", "1\n")]
    assert pages.same("took 3.5 s, … bytes\n", "took 12 s, 7 bytes") and not pages.same("3 passes", "4 passes")
    assert not pages.same("", "something")


def test_the_continuous_integration_runs_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("run", "test"):
        assert re.search(rf"<!-- {name} -->\n```\n[^`]+\n```\n", readme)
        assert f"command_of {name}" in run

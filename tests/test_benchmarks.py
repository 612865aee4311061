"""Every benchmark says what it does before it does anything, and refuses what it does not know."""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mdsample

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
#: where it says how it is run; `common` is what the others share
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if path.name != "common.py"]

Run = Callable[[Path, str], int | str | None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """Runs a script in this process, in an empty folder; gives what it exits with."""

    def run(script: Path, argument: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [str(script), argument])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        return ended.value.code

    environment = dict(os.environ)  # a script may say how many threads it wants
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield run
    for name in {path.stem for path in FOLDER.glob("*.py")} & (set(sys.modules) - before):
        del sys.modules[name]
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_comes_before_any_work(script: Path, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = script.read_text(encoding="utf-8")
    for module, sign in (("matplotlib", "mdsample_cli.show"), ("tokenizers", "tokenizers")):
        if sign in code:
            pytest.importorskip(module)
    assert run(script, "--help") == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"usage: {script.name} [-h]") and not told.err
    assert f"python benchmarks/{script.name}" in told.out
    assert run(script, "--no-such-option") == 2
    told = capsys.readouterr()
    assert "error:" in told.err and not told.out
    assert not list(tmp_path.iterdir())


def test_the_readme_shows_a_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    names = runpy.run_path(str(FOLDER / "canvas.py"))
    row = mdsample.sample(mdsample.load("tiny-gsm", backend="reference"), names["PROMPT"], policy="med")
    kept = names["PICTURE"].read_text()
    assert names["picture"](row) == kept
    # all letters in the order of reading, and a cover over each that was written
    letters = "".join(re.findall(r">([^<])</text>", kept)).replace("&", "")
    assert letters == row.canvas_text().replace("·", "").replace(" ", "").replace("\n", "")
    written = {place for place, _ in row.shown()} & set(row.written)
    assert kept.count('<rect class="c c') == sum(place in written for _, place in names["letters"](row))
    assert f"in {row.nfe} forward passes" in (ROOT / "README.md").read_text()

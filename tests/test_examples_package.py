"""The example package, found by its entry points alone: in text, TOML, menus, commands, and as a backend."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mdsample
from mdsample.errors import SpecError
from mdsample.evaluation.calibrate import settings
from mdsample.policy.menu import parts_menu, presets_menu
from mdsample.policy.toml import from_toml, to_toml

EXAMPLE = Path(__file__).parents[1] / "examples" / "mdsample_half"


def write_metadata(folder: Path, name: str, groups: dict[str, dict[str, str]]) -> None:
    """What an installer would write: enough for `importlib.metadata` to find entry points."""
    info = folder / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [line for group, named in groups.items() for line in (f"[{group}]", *map(" = ".join, named.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package as if it were installed."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    write_metadata(tmp_path / "site", project["name"], project["entry-points"])
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path / "site"
    for module in [name for name in sys.modules if name.split(".")[0] == "mdsample_half"]:
        del sys.modules[module]


def command(site: Path, *arguments: str) -> str:
    code = f"import sys; sys.path[:0] = [{str(site)!r}, {str(EXAMPLE)!r}]; from mdsample_cli.main import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_its_names_are_read_in_text_and_toml(site: Path) -> None:
    policy = mdsample.parse("entropy+half(0.25)")
    assert str(policy) == "entropy+half(0.25)"
    assert from_toml(to_toml(policy)) == policy
    assert mdsample.parse("halves(0.25)") == mdsample.Whole() + policy
    with pytest.raises(SpecError, match=r"half\(share=…\) must be a number, above 0 and at most 1; got 7.0"):
        mdsample.parse("half(7)")
    with pytest.raises(SpecError, match="did you mean 'halves'"):
        mdsample.parse("halve")


def test_it_is_on_the_menu_and_can_be_calibrated(site: Path) -> None:
    assert parts_menu()["selection"][-1].signature == "half(0.5)"
    assert presets_menu()[-1].parts == "whole+entropy+half"
    assert [value for value, _ in settings("entropy+half(?)")] == [0.1, 0.2, 0.3, 0.5, 0.8]


def test_its_backend_runs_its_part(site: Path, tmp_path: Path) -> None:
    (tmp_path / "sharpness.txt").write_text("2")
    model = mdsample.load(tmp_path, backend="wave")
    canvas = mdsample.Template.parse("{answer:8}").canvas(model.tokenizer, [{}])
    assert mdsample.Sampler(mdsample.parse("halves")).run(model, canvas).rows[0].nfe == 4


def test_the_commands_know_it(site: Path) -> None:
    explained = " ".join(command(site, "explain", "half(0.25)").split())
    assert "share = 0.25 given; default 0.5; a number, above 0 and at most 1" in explained
    assert "+half(share=0.5)+" in command(site, "bench", "--limit", "1", "--policy", "entropy+half", "--json")


def test_its_own_tests_pass(site: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(site)!r}, {str(EXAMPLE)!r}]; import pytest; "
        "from hypothesis import settings; "
        "settings.register_profile('few', max_examples=5); settings.load_profile('few'); "
        "late = 'ignore::pytest.PytestAssertRewriteWarning'; "  # Hypothesis is imported before its plugin is
        f"raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider', '-W', late, {str(EXAMPLE)!r}]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"top": "mdsample_half.parts:Half"}, "the installed package 'other' calls a part 'top', a built-in name"),
        ({"half": "mdsample_half.backend:Wave"}, "both have a part 'half'; uninstall one"),
        ({"third": "mdsample_half.parts:Half"}, "the part 'half' is given as 'third'"),
        ({"third": "mdsample_half.backend:Wave"}, "'third' must be a class of parts or a function"),
        ({"third": "mdsample_half.absent:Half"}, "the part 'third' cannot be imported"),
    ],
)
def test_names_that_clash_or_do_not_load_are_refused(site: Path, named: dict[str, str], message: str) -> None:
    write_metadata(site, "other", {"mdsample.parts": named})
    with pytest.raises(SpecError, match=message):
        mdsample.parse("third")


def test_built_in_names_read_no_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def scanned(**_: Any) -> Any:
        raise AssertionError("entry points were read")

    monkeypatch.setattr("importlib.metadata.entry_points", scanned)
    mdsample.parse("med(0.3)+early-exit")
    from_toml("policy = 'med'")

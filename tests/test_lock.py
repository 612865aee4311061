"""The lock file is of the public index, of what pyproject.toml asks for, and of the versions that are tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "uv.lock").read_text(encoding="utf-8")
LOCK: dict[str, Any] = tomllib.loads(TEXT)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOW = "run: make lock"


def test_everything_comes_from_the_public_index() -> None:
    assert set(re.findall(r"https?://[^/\"]+", TEXT)) == {"https://pypi.org", "https://files.pythonhosted.org"}


def test_it_answers_what_is_asked_for() -> None:
    [package] = [entry for entry in LOCK["package"] if entry["name"] == "mdsample"]
    asked = PROJECT["project"]
    extras, groups = asked["optional-dependencies"], PROJECT["dependency-groups"]
    assert set(package["metadata"]["provides-extras"]) == set(extras), HOW
    found = {(entry["name"], entry.get("specifier", "")) for entry in package["metadata"]["requires-dist"]}
    lists = [asked["dependencies"], *extras.values()]
    wanted = {(one.name, str(one.specifier)) for entries in lists for one in map(Requirement, entries)}
    assert found == {(name, specifier) for name, specifier in wanted if name != "mdsample"}, HOW
    for group, entries in groups.items():
        locked = {(entry["name"], entry["specifier"]) for entry in package["metadata"]["requires-dev"][group]}
        assert locked == {(one.name, str(one.specifier)) for one in map(Requirement, entries)}, HOW


def test_it_has_the_versions_that_the_tests_are_run_with() -> None:
    locked: dict[str, set[str]] = {}
    for entry in LOCK["package"]:
        locked.setdefault(entry["name"], set()).add(entry.get("version", ""))
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pins
    for name, version in pins:
        assert locked.get(name) == {version}, HOW

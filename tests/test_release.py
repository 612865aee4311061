"""What a release says of itself: one version in the package, the changelog, the citation and the tag."""

from __future__ import annotations

import re
import subprocess
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

from mdsample import __version__

ROOT = Path(__file__).parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def headings() -> list[tuple[str, str]]:
    """Versions of the changelog with their dates, the newest first; what is not released yet may stand above."""
    lines = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    return [tuple(line.split(" - ")) for line in lines if line != "Unreleased"]


def test_the_newest_version_of_the_changelog_is_the_packages() -> None:
    assert headings()[0][0] == __version__
    assert re.search("^## Unreleased$", CHANGELOG, re.MULTILINE) is None or CHANGELOG.index("## Unreleased") < (
        CHANGELOG.index(f"## {__version__}")
    )


def test_versions_and_dates_fall() -> None:
    for (newer, later), (older, earlier) in pairwise(headings()):
        assert [*map(int, newer.split("."))] > [*map(int, older.split("."))]
        assert date.fromisoformat(later) >= date.fromisoformat(earlier)


def test_changes_are_added_changed_or_fixed() -> None:
    kinds = re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)
    assert kinds and set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r'^version: "?([^"\n]+)"?$', citation, re.MULTILINE)[1] == __version__  # pyright: ignore
    assert re.search(r'^date-released: "?([^"\n]+)"?$', citation, re.MULTILINE)[1] == headings()[0][1]  # pyright: ignore


def test_the_tag_is_of_this_version() -> None:
    """Where this is a checkout whose commit has a tag."""
    asked = subprocess.run(["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    tags = [tag for tag in asked.stdout.split() if re.fullmatch(r"v\d.*", tag)] if asked.returncode == 0 else []
    if not tags:
        pytest.skip("no version is tagged here")
    assert tags == [f"v{__version__}"]

"""The site holds together: every page is reached, every link leads somewhere, every public name is described once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pages
import prose
import pytest
import typer.main
from mdsample_cli.main import app
from pages import ROOT

import mdsample
from mdsample import exact, testing
from mdsample.policy.menu import presets_menu

DOCS = ROOT / "docs"
MARKDOWN = prose.pages()
_FENCED = re.compile(r"^(```+|:::+).*?^\1$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^]\[]*\]\(([^)\s]+)\)")


@cache
def unfenced(page: Path) -> str:
    """A page's text without blocks of code, and without code in its lines."""
    return re.sub(r"`[^`\n]*`", "", _FENCED.sub("", page.read_text(encoding="utf-8")))


@cache
def anchors(page: Path) -> frozenset[str]:
    """What GitHub and MyST call the sections of a page."""
    text, found = _FENCED.sub("", page.read_text(encoding="utf-8")), Counter[str]()
    names: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return frozenset(names)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Where a page's links within the repository lead: a file, and an anchor or nothing."""
    for target in _LINK.findall(unfenced(page)):
        if not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            yield (page.parent / name).resolve() if name else page, anchor


def included(page: Path) -> Path:
    """The page itself, or the one that it includes as a whole."""
    found = re.search(r"^:::\{include\} (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return (page.parent / found[1]).resolve() if found else page


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for file, anchor in links(page):
        assert file.exists(), f"{page.name} links to {file}, which is not there"
        assert not anchor or anchor in anchors(included(file)), f"{page.name}: {file.name} has no section #{anchor}"


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_one_sentence_a_line_and_no_long_lines(page: Path) -> None:
    found = list(prose.faults(page))
    assert not found, "\n".join(["python tests/helpers/prose.py --write mends:", *found])


def test_prose_that_is_rewritten_stays_as_it_is() -> None:
    text = (
        "A first. A `second. One`, e.g. This [third. Link](x.md).\n\n"
        f"- {'word, ' * 40}end.\n  More.\n\n```\n{'x' * 200}. Y. Z.\n```\n\n| {'t. ' * 80}|\n"
    )
    once = prose.rewritten(text)
    assert once == prose.rewritten(once)
    assert once.split() == text.split()  # nothing but line ends changes
    assert once.startswith("A first.\nA `second. One`, e.g. This [third. Link](x.md).\n")
    assert max(len(line) for line in once.splitlines() if line.startswith(("- ", "  "))) <= prose.WIDTH


def test_every_page_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    named = [
        line.strip()
        for block in re.findall(r"^:::\{toctree\}\n(.*?)^:::$", index, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line.strip() and not line.startswith(":")
    ]
    there = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")} - {"index"}
    assert Counter(named) == Counter(there), "docs/index.md lists every page once"


def test_what_people_come_for_is_one_click_away() -> None:
    linked = {str(file.relative_to(DOCS)) for file, _ in links(DOCS / "index.md")}
    wanted = ("on-a-mac", "json", "server", "own-order", "study", "first-answer")
    assert linked >= {f"tutorials/{name}.md" for name in wanted} | {"migrating.md", "bounds.md", "citing.md"}


def described() -> Counter[tuple[str, str]]:
    """Names that the reference describes, with their modules."""
    return Counter(
        (module, name)
        for page in (DOCS / "reference").glob("*.md")
        for module, block in re.findall(
            r"^:::\{public\} (\S+)\n(.*?)^:::$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        for name in block.split()
    )


def test_every_public_name_is_described_once() -> None:
    modules = (mdsample, exact, testing, pytest.importorskip("mdsample_torch", exc_type=ImportError))
    assert described() == Counter((module.__name__, name) for module in modules for name in module.__all__)


def test_every_command_is_described_once() -> None:
    text = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    there = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    assert Counter(re.findall(r"^:::\{command\} (\S+)$", text, re.MULTILINE)) == Counter(there.keys())


def test_every_source_of_a_preset_is_cited() -> None:
    cited = (DOCS / "citing.md").read_text(encoding="utf-8")
    for preset in presets_menu():
        assert all(source in cited for source in preset.sources), preset.name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_pictures_say_what_they_show() -> None:
    for page in pages.PAGES:
        for said in re.findall(r"!\[([^]]*)\]\(", page.read_text(encoding="utf-8")):
            assert len(said) > 20, f"{page.name}: a picture is described as {said!r}"

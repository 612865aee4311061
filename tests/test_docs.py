"""The Python snippets of the documentation run as they stand, each page from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
pytestmark = pytest.mark.docs
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    snippets = SNIPPET.findall(page.read_text(encoding="utf-8"))
    if any("import torch" in snippet for snippet in snippets):
        pytest.importorskip("torch")
    for snippet in snippets:
        exec(compile(snippet, page.name, "exec"), names)


def test_the_continuous_integration_runs_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("run", "test"):
        assert re.search(rf"<!-- {name} -->\n```\n[^`]+\n```\n", readme)
        assert f"command_of {name}" in run

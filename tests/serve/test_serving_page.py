"""The pages about serving: their requests are what a running server answers, and what stands below them."""

from __future__ import annotations

import io
import json
import re
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pages
import pytest
from servers import serving

from mdsample.models.denoiser import Denoiser

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(sh|py)\n(.*?)^```$(?:\n*^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("page", "outputs"), [("serving.md", 3), ("tutorials/server.md", 1)])
def test_the_requests_on_the_page(page: str, outputs: int, tiny_gsm: Denoiser) -> None:
    names: dict[str, object] = {}
    shown = 0
    with serving(tiny_gsm, name="tiny-gsm") as here:
        for language, block, below in _BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
            code = block.replace("http://127.0.0.1:8000", here.url)
            if language == "sh":
                told = subprocess.run(["bash", "-c", code], check=True, capture_output=True, text=True).stdout
                assert json.loads(told)["slots"]["answer"] == "7"
                continue
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile(code, page, "exec"), names)
            assert pages.same(below, out.getvalue()), out.getvalue()
            shown += 1
        names["client"].close()  # type: ignore[attr-defined]
    assert shown == outputs

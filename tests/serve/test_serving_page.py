"""docs/serving.md: its requests are what a running server answers, and what stands below them."""

from __future__ import annotations

import io
import json
import re
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pages
from servers import serving

from mdsample.models.denoiser import Denoiser

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
_BLOCK = re.compile(r"^```(sh|py)\n(.*?)^```$(?:\n*^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def test_the_requests_on_the_page(tiny_gsm: Denoiser) -> None:
    names: dict[str, object] = {}
    shown = 0
    with serving(tiny_gsm, name="tiny-gsm") as here:
        for language, block, below in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            code = block.replace("http://127.0.0.1:8000", here.url)
            if language == "sh":
                told = subprocess.run(["bash", "-c", code], check=True, capture_output=True, text=True).stdout
                assert json.loads(told)["slots"]["answer"] == "7"
                continue
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile(code, PAGE.name, "exec"), names)
            assert pages.same(below, out.getvalue()), out.getvalue()
            shown += 1
        names["client"].close()  # type: ignore[attr-defined]
    assert shown == 3

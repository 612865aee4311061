"""The player: its frames are the states of the trace, and no text gets out of a saved file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import browser, page_of
from commands import is_refused
from mdsample_cli.main import main
from mdsample_serve.saved import saved
from servers import Here

from mdsample.core.template import Template
from mdsample.jobs.job import Job
from mdsample.jobs.records import Request
from mdsample.models.denoiser import Denoiser
from mdsample.policy.parsing import parse
from mdsample.sampling.film import Pieces, film
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.trace import Trace

HOSTILE = "</script><script>window.hacked = 1</script><!--<img src=x onerror=hacked=1> \u202eback\u202c $& é"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


def traced(model: Denoiser, policy: str, prompts: list[str], template: str) -> Trace:
    job = Job(model, Template.parse(template), Sampler(parse(policy), seed=1))
    last: list[Any] = []
    rows = [Request(name, {"prompt": prompt}) for name, prompt in enumerate(prompts)]
    list(job.answers(rows, one_chunk=True, on_step=lambda state: last.append(state)))
    return job.trace(last[-1])


FRAMES = """async (data) => { const { Film } = await import('./film.js');
  return data.header.canvas.map((_, row) => { const film = new Film(data.header, row);
    let cells = film.begin.slice();
    for (const step of data.steps) film.add(step);
    const frames = film.frames.map((frame) => { for (const { at, to } of frame.changes) cells[at] = to;
      return { ...frame, seen: 0, bound: frame.bound === Infinity ? -1 : frame.bound,
        differ: frame.differ === Infinity ? -1 : frame.differ, kinds: cells.map((c) => c.kind),
        texts: cells.map((c) => c.text), passes: frame.passes }; });
    for (const { changes } of film.frames.slice().reverse()) for (const { at, from } of changes) cells[at] = from;
    return { frames, back: JSON.stringify(cells) === JSON.stringify(film.begin) }; }); }"""


@pytest.mark.parametrize(
    "policy",
    [
        "med",
        "above-confidence(0.3)+below-confidence(0.9)",
        "steps(4)+temperature+remdm-remask",
        "lookahead(3)+top(2)+cfg(1.5)",
    ],
)
def test_frames_are_the_states_of_the_trace(chromium: Any, here: Here, tiny_gsm: Denoiser, policy: str) -> None:
    trace = traced(tiny_gsm, policy, ["2 + 3", "Ann has 12 apples and Ben 30."], "{prompt} {a:9} so{answer:3}")
    pieces = Pieces(tiny_gsm.tokenizer)
    with page_of(chromium, here.url) as page:
        rows = page.evaluate(FRAMES, film(trace, tiny_gsm.tokenizer))
    for row, got in enumerate(rows):
        assert got["back"], "from the last frame back to the first"
        states = [
            s
            for s, e in zip(trace.states(), (None, *trace.events), strict=True)
            if e is None or row in (*e.rows, *e.row)
        ]
        assert len(states) == len(got["frames"])
        for state, frame in zip(states, got["frames"], strict=True):
            blank, length = state.blank[row], len(frame["kinds"])
            assert [kind == "blank" for kind in frame["kinds"]] == blank[:length].tolist()
            assert (
                frame["passes"] == state.nfe[row] and frame["filled"] == (state.canvas.blank & ~state.blank)[row].sum()
            )
            for at in np.flatnonzero(state.canvas.blank[row] & ~blank):
                assert frame["texts"][at] == pieces.written(int(state.tokens[row, at]))
            remasked = state.remasked[row] > 0
            assert frame["bound"] == pytest.approx(-1 if remasked else state.error_bound[row], abs=1e-6)
            assert frame["differ"] == pytest.approx(-1 if remasked else state.tv_sum[row], abs=1e-6)


def test_letters_that_are_spread_over_tokens_come_whole(chromium: Any, here: Here) -> None:
    rng, text = np.random.default_rng(0), "naïve 你好 🧑‍🚀 \u202e"
    data = text.encode()
    pieces: list[Any] = []
    for _ in range(60):
        cuts = sorted({0, len(data), *rng.integers(0, len(data), 8).tolist()})
        parts = [data[a:b] for a, b in pairwise(cuts)]
        pieces.append([_piece(part) for part in parts])
    with page_of(chromium, here.url) as page:
        shown = page.evaluate(
            "async (all) => { const { texts } = await import('./film.js'); return all.map((p) => texts(p).join('')); }",
            pieces,
        )
    assert {*shown} == {text.replace("\u202e", "\\u{202e}")}


def _piece(part: bytes) -> str | list[int]:
    try:
        return part.decode()
    except UnicodeDecodeError:
        return [*part]


def test_no_text_gets_out_of_a_saved_file(
    chromium: Any, here: Here, tiny_gsm: Denoiser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.jsonl"
    traced(tiny_gsm, "top(3)", [HOSTILE, "the other row"], "{prompt} {answer:6}").save(path)
    assert main(["replay", "--html", str(path), "--row", "0"]) == 0
    text = (tmp_path / "trace.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and "http:" not in text.replace("http://www.w3.org/2000/svg", "")
    with page_of(chromium, (tmp_path / "trace.html").as_uri()) as page:
        shown: str = page.locator(".canvas").inner_text()
        assert HOSTILE.replace("\u202e", "\\u{202e}").replace("\u202c", "\\u{202c}") in shown
        assert page.evaluate("window.hacked === undefined && document.images.length === 0")
        page.get_by_label("Row").select_option("1")
        assert "the other row" in page.locator(".canvas").inner_text()
    is_refused(["replay", str(path), "out.html"], "give --html", capsys)
    is_refused(["replay", "--html", "--json", str(path)], "two forms", capsys)
    is_refused(["replay", "--html", str(path), str(path)], "same file", capsys)
    (tmp_path / "mine.html").write_text("mine")
    is_refused(["replay", "--html", str(path), str(tmp_path / "mine.html")], "not an HTML file", capsys)


def test_a_token_that_is_a_tag_stays_text(chromium: Any, here: Here, tiny_gsm: Denoiser, tmp_path: Path) -> None:
    """Tokens of the model here are short; another one's may be a whole tag."""
    found = film(traced(tiny_gsm, "top(3)", ["a"], "{prompt} {answer:3}"), tiny_gsm.tokenizer)
    found["header"]["model"] = HOSTILE
    for step in found["steps"]:
        step["text"] = [HOSTILE for _ in step["text"]]
        step["token"] = [-1 for _ in step["token"]]
    html = saved([found])
    assert "<" not in html.partition('type="application/json">')[2].partition("</script>")[0]
    (tmp_path / "run.html").write_text(html, encoding="utf-8")
    with page_of(chromium, (tmp_path / "run.html").as_uri()) as page:
        assert page.get_by_text("window.hacked = 1", exact=False).count() > 1
        page.get_by_role("listbox").press("Home")
        assert "onerror=hacked" in page.locator(".readout").inner_text()
        assert page.evaluate("window.hacked === undefined && document.images.length === 0")


def test_the_page_saves_what_the_command_saves(chromium: Any, here: Here, tiny_gsm: Denoiser) -> None:
    films = [film(traced(tiny_gsm, "top(3)", [HOSTILE], "{prompt} {answer:6}"), tiny_gsm.tokenizer)]
    with page_of(chromium, here.url) as page:
        html: str = page.evaluate("async (films) => (await import('./save.js')).saved(films)", films)
    mine, start, end = saved(films), '<script id="data" type="application/json">', "</script>"
    assert html.partition(start)[0] == mine.partition(start)[0]
    data, _, rest = html.partition(start)[2].partition(end)
    other, _, tail = mine.partition(start)[2].partition(end)
    assert rest == tail and json.loads(data) == json.loads(other)


def test_a_saved_file_needs_nothing_of_the_server() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('fastapi', 'starlette', 'uvicorn', 'pydantic')));"
        "from mdsample_serve.saved import saved; print(saved([])[:15])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "<!doctype html>\n"

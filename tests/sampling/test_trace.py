"""Traces on disk: whole or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest

import mdsample
from mdsample import testing
from mdsample.errors import TraceError, WriteError
from mdsample.models.cache import Dual
from mdsample.models.denoiser import Noise
from mdsample.policy.complete import as_run
from mdsample.sampling.trace import Trace
from mdsample.testing import ScriptedDenoiser, Symbols

#: one token a step, so that a row has many events
POLICY = mdsample.Top(1) + mdsample.EarlyExit(1e-6)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    symbols = Symbols(4)
    model = ScriptedDenoiser(symbols)
    canvas = mdsample.Template.parse("ab{reasoning:5}c{answer:2}").canvas(symbols, [{}, {}], ["one", 2])
    path = tmp_path / "trace.jsonl"
    Trace.of(testing.run(POLICY, model, canvas)).save(path)
    return path


def test_the_record_names_what_made_it(saved: Path) -> None:
    trace = Trace.load(saved)
    assert trace.policy == as_run(POLICY, None)
    assert (trace.seed, trace.model, trace.backend) == (0, "scripted", "toy")
    assert trace.versions["mdsample"] == mdsample.__version__
    assert trace.canvas.ids == ("one", 2)


def test_the_record_names_the_cache() -> None:
    model = ScriptedDenoiser(Symbols(4), cache=Dual())
    canvas = mdsample.Template.parse("ab{answer:2}").canvas(model.tokenizer, [{}])
    result = mdsample.Sampler("top(1)").run(model, canvas)
    assert result.cache == Trace.of(result).cache == "dual"


@pytest.mark.parametrize("noise", ["mask", "uniform"])
def test_a_trace_that_was_read_is_written_as_it_was(saved: Path, tmp_path: Path, noise: Noise) -> None:
    trace = Trace.load(saved)
    attrs.evolve(trace, noise=noise, canvas=attrs.evolve(trace.canvas, blind=("answer",))).save(saved)
    Trace.load(saved).save(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == saved.read_bytes()
    assert Trace.load(saved).noise == noise


def test_a_cut_file_is_refused_at_any_byte(saved: Path) -> None:
    whole = saved.read_bytes()
    for size in range(0, len(whole) - 1, 37):
        saved.write_bytes(whole[:size])
        with pytest.raises(TraceError):
            Trace.load(saved)


@pytest.mark.parametrize("text", ["", "{}\n", "not json", "[1, 2]\n", '{"format": 99}\n', "\x00\n"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(TraceError, match="other"):
        Trace.load(path)


def test_binary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(TraceError):
        Trace.load(path)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("policy", lambda t: t.replace('"policy": "', '"policy": 5, "was": "', 1)),
        ("versions", lambda t: t.replace('"versions": {', '"versions": 3, "were": {', 1)),
        ("OverflowError", lambda t: _event(t, "token", 1 << 40)),
        ("probability", lambda t: _event(t, "probability", 7.5)),
        ("probability", lambda t: _event(t, "probability", float("nan"))),
        ("entropy", lambda t: _event(t, "entropy", -3.0)),
        ("confidence", lambda t: _event(t, "confidence", 1.5)),
        ("not blank", lambda t: _event(t, "position", 0)),
        ("price", lambda t: _event(t, "price", -5)),
        ("had left", lambda t: _event(t, "left", 0)),
        ("RecursionError", lambda _: "[" * 200_000),
    ],
)
def test_an_edited_trace_is_refused(saved: Path, name: str, edit: Callable[[str], str]) -> None:
    saved.write_text(edit(saved.read_text()))
    with pytest.raises(TraceError, match=name):
        Trace.load(saved)


def test_a_trace_from_before_top_probabilities_were_kept_is_read_with_what_it_knows(tmp_path: Path) -> None:
    symbols = Symbols(4)
    canvas = mdsample.Template.parse("ab{reasoning:5}c{answer:2}").canvas(symbols, [{}, {}])
    result = testing.run(mdsample.Whole() + mdsample.Top(2), ScriptedDenoiser(symbols, sharpness=8.0), canvas)
    path = tmp_path / "trace.jsonl"
    Trace.of(result).save(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in x.items() if k != "confidence"}) + "\n" for x in lines))
    old = Trace.load(path).replay()
    assert (old.tokens == result.state.tokens).all() and (old.error_bound == result.state.error_bound).all()
    # Pinsker's inequality is what is left
    total = np.zeros(2)
    for event in result.state.events:
        for row in set(event.row.tolist()):
            h = event.entropy[event.row == row].astype(np.float64)
            total[row] += min(1.0, np.sqrt((h.sum() - h.max()) / 2))
    np.testing.assert_allclose(old.tv_sum, total, atol=1e-12)
    assert (result.state.tv_sum < old.tv_sum).all()


def _event(text: str, name: str, value: float) -> str:
    """The trace with one value set, in its first event that writes something."""
    lines = [json.loads(line) for line in text.splitlines()]
    event = next(line for line in lines if line.get("row"))
    event[name] = [value, *event[name][1:]] if isinstance(event[name], list) else value
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(WriteError, match="folder: Is a directory"):
        Trace.load(str(saved)).save(str(folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", saved.name]

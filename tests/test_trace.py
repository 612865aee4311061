"""Traces on disk: whole or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import mdsample
from mdsample import testing
from mdsample.testing import ScriptedDenoiser, Symbols
from mdsample.trace import Trace, TraceError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    symbols = Symbols(4)
    model = ScriptedDenoiser(symbols)
    canvas = mdsample.Template.parse("ab{reasoning:5}c{answer:2}").canvas(symbols, [{}, {}], ["one", 2])
    path = tmp_path / "trace.jsonl"
    Trace.of(testing.run(mdsample.med(1.0) + mdsample.EarlyExit(1.0), model, canvas)).save(path)
    return path


def test_the_record_names_what_made_it(saved: Path) -> None:
    trace = Trace.load(saved)
    assert mdsample.parse(trace.policy).completed() == (mdsample.med(1.0) + mdsample.EarlyExit(1.0)).completed()
    assert (trace.seed, trace.model, trace.backend) == (0, "scripted", "toy")
    assert trace.versions["mdsample"] == mdsample.__version__
    assert trace.canvas.ids == ("one", 2)


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

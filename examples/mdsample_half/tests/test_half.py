"""The part and the backend keep mdsample's promises."""

from pathlib import Path

from mdsample_half.backend import Wave, open_model
from mdsample_half.parts import Half, halves

import mdsample
from mdsample import testing


def test_half_is_a_part() -> None:
    testing.check_part(Half)


def test_half_fills_half() -> None:
    model = Wave("wave", 2.0)
    canvas = mdsample.Template.parse("{text:8}").canvas(model.tokenizer, [{}])
    [row] = mdsample.Sampler(halves(0.5)).run(model, canvas).rows
    assert [sum(commit.step == step for commit in row.commits) for step in range(row.steps)] == [4, 2, 1, 1]


def test_wave_is_a_backend(tmp_path: Path) -> None:
    (tmp_path / "sharpness.txt").write_text("2")
    testing.check_denoiser(Wave("wave", 2.0))
    testing.check_backend(open_model, tmp_path)

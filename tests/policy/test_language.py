"""The parts that hold a slot to numbers and days: every setting says something, and what is wrong is refused."""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest

import mdsample
from mdsample import Date, Integer, Number
from mdsample.policy.language import Expression


@pytest.mark.parametrize(
    ("part", "settings", "fits", "fails"),
    [
        (Integer, {"min": 3, "max": 40}, ["3", " 40", " 7"], ["2", "41", "07", "  7", "3.0"]),
        (Number, {"decimals": 1, "min": 0.5, "max": 2.0}, ["0.5", " 2", "1.9"], ["0.4", "2.1", "1.25", "-1"]),
        (
            Date,
            {"form": "%d.%m.%Y", "first": 1999, "last": 2000},
            ["29.02.2000", " 31.12.1999"],
            ["29.02.1999", "1.1.2000"],
        ),
    ],
)
def test_expressions_say_exactly_that(
    part: type[Expression], settings: dict[str, Any], fits: list[str], fails: list[str]
) -> None:
    whole = part(**settings)
    assert all(re.fullmatch(whole.expression, text) for text in fits)
    assert not any(re.fullmatch(whole.expression, text) for text in fails)
    for name, value in settings.items():
        default = attrs.fields_dict(part)[name].default
        assert value != default
        assert attrs.evolve(whole, **{name: default}).expression != whole.expression, name
    assert mdsample.parse(str(mdsample.Policy.of(whole))) == mdsample.Policy.of(whole)
    elsewhere = attrs.evolve(whole, slot="b")
    with pytest.raises(mdsample.PolicyError, match="there is no slot 'b'"):
        denoiser = mdsample.load("tiny-gsm", backend="reference")
        mdsample.sample(denoiser, "x", policy=elsewhere, template="{prompt}{a:12}")

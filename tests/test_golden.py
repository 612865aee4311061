"""The golden set (`tests/golden/jobs.py`): every job gives what it gave, floats closely and all else exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import pytest
from jobs import GROUPS, Json, plain, replayed, stored

#: relative and absolute; float32 forward passes round as the machine's BLAS does
TOLERANCE = {"commands": 1e-3}
CLOSE = 1e-5


@cache
def kept(group: str) -> dict[str, Json]:
    return stored(group)


def differences(now: Json, before: Json, tolerance: float, place: str = "") -> Iterator[str]:
    """Where two outputs differ, and how."""
    if isinstance(now, dict) and isinstance(before, dict):
        if list(now) != list(before):
            yield f"{place}: keys {list(now)}, before {list(before)}"
        for name in now.keys() & before.keys():
            yield from differences(now[name], before[name], tolerance, f"{place}[{name!r}]")
    elif isinstance(now, list) and isinstance(before, list):
        if len(now) != len(before):
            yield f"{place}: {len(now)} members, before {len(before)}"
        for number, (one, other) in enumerate(zip(now, before, strict=False)):
            yield from differences(one, other, tolerance, f"{place}[{number}]")
    elif isinstance(now, float) and isinstance(before, float):
        if not math.isclose(now, before, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{place}: {now}, before {before}"
    elif type(now) is not type(before) or now != before:
        yield f"{place}: {now!r}, before {before!r}"


def same(now: Json, before: Json, tolerance: float = CLOSE) -> None:
    found = list(differences(now, before, tolerance))
    assert not found, "\n".join([f"{len(found)} differences", *found[:20]])


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(group, name, marks=[pytest.mark.slow] * (group == "commands"))
        for group, jobs in GROUPS.items()
        for name in jobs
    ],
)
def test_a_job_gives_what_it_gave(group: str, name: str) -> None:
    same(plain(GROUPS[group][name]()), kept(group)[name], TOLERANCE.get(group, CLOSE))


@pytest.mark.parametrize("group", GROUPS)
def test_every_kept_output_has_its_job(group: str) -> None:
    assert list(kept(group)) == list(GROUPS[group])


@pytest.mark.parametrize("name", GROUPS["traces"])
def test_a_trace_of_before_is_still_read(name: str) -> None:
    before = kept("traces")[name]
    same(plain(replayed(before["lines"])), before["replay"])

"""Patterns: exactly the integers, numbers and days that they say."""

from __future__ import annotations

import calendar
import re
from datetime import date as Day
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdsample.constraints.multiples import multiples
from mdsample.constraints.patterns import date, integer, number
from mdsample.errors import PolicyError

limits = st.none() | st.integers(-1200, 1200)
NONE = 10**9


@settings(max_examples=30)
@given(one=limits, other=limits)
def test_integers_in_a_range(one: int | None, other: int | None) -> None:
    low, high = (one, other) if one is None or other is None or one <= other else (other, one)
    pattern = re.compile(integer(low, high))
    there = {value for value in range(-2500, 2500) if pattern.fullmatch(str(value))}
    first, last = -NONE if low is None else low, NONE if high is None else high
    assert there == {value for value in range(-2500, 2500) if first <= value <= last}
    assert not any(pattern.fullmatch(text) for text in ("-0", "007", "", "-", "+1", "1.0", "-01", " 1", "10x"))


@settings(max_examples=30)
@given(low=st.integers(0, 10**30), more=st.integers(0, 10**28), value=st.integers(-(10**5), 10**5))
def test_long_integers_at_their_limits(low: int, more: int, value: int) -> None:
    for sign in (1, -1):
        first, last = sorted((sign * low, sign * (low + more)))
        pattern = re.compile(integer(first, last))
        for near in (first + value, last + value, first, last, first - 1, last + 1):
            assert bool(pattern.fullmatch(str(near))) == (first <= near <= last)


hundredths = st.none() | st.integers(-400, 400).map(lambda value: Decimal(value) / 100)


@settings(max_examples=25)
@given(one=hundredths, other=hundredths, decimals=st.integers(0, 3))
def test_numbers_in_a_range(one: Decimal | None, other: Decimal | None, decimals: int) -> None:
    low, high = (one, other) if one is None or other is None or one <= other else (other, one)
    every = [(Decimal(value).scaleb(-places), places) for places in range(3) for value in range(-500, 500)]
    expected = {
        f"{value:.{places}f}"
        for value, places in every
        if places <= decimals and not (low is not None and value < low) and not (high is not None and value > high)
    }
    try:
        pattern = re.compile(number(low, high, decimals))
    except PolicyError:
        assert not expected
        return
    written = {f"{value:.{places}f}" for value, places in every}
    assert {text for text in written if pattern.fullmatch(text)} == expected
    assert not any(pattern.fullmatch(text) for text in ("-0", "-0.0", "00.1", "1.", ".5", "-", "1e3", "-0.00"))


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%-d/%-m/%Y", "%B %d, %Y", "%Y (%b-%d) %%"])
def test_every_day_there_is_and_no_other(form: str) -> None:
    pattern = re.compile(date(form, 1896, 1904))
    first, last = Day(1895, 1, 1), Day(1906, 1, 1)
    for day in (first + timedelta(n) for n in range((last - first).days)):
        assert bool(pattern.fullmatch(day.strftime(form))) == (1896 <= day.year <= 1904), day
    for year in range(1896, 1905):
        for month in range(1, 13):
            for day in range(calendar.monthrange(year, month)[1] + 1, 34):
                text = form.replace("%Y", str(year)).replace("%m", f"{month:02}").replace("%-m", str(month))
                text = text.replace("%B", calendar.month_name[month]).replace("%b", calendar.month_abbr[month])
                text = text.replace("%d", str(day)).replace("%-d", str(day)).replace("%%", "%")
                assert not pattern.fullmatch(text), text


def test_parts_of_a_date_and_times() -> None:
    assert re.fullmatch(date("%d.%m."), "29.02.") and not re.fullmatch(date("%d.%m."), "30.02.")
    assert re.fullmatch(date("%H:%M:%S"), "23:59:59") and not re.fullmatch(date("%H:%M:%S"), "24:00:00")
    assert re.fullmatch(date("%d"), "31") and not re.fullmatch(date("%d"), "00")
    assert re.fullmatch(date("(%Y)"), "(2024)") and not re.fullmatch(date("(%Y)"), "2024")
    assert not re.fullmatch(date(first=1900, last=1903), "1900-02-29"), "no year of them is a leap year"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: integer(3, 1), "swap the two limits"),
        (lambda: number(0.25, 0.5, 0), "widen the limits"),
        (lambda: number(float("nan")), "at most 100 digits; got nan"),
        (lambda: number(True), "got True"),
        (lambda: number("one"), "got 'one'"),
        (lambda: number("1e1000"), "100 digits"),
        (lambda: number(1, 2, -1), "decimals are 0 to 100"),
        (lambda: date("%Y-%q"), "each once at most; got '%Y-%q'"),
        (lambda: date("%d %-d"), "each once at most"),
        (lambda: date("today"), "got 'today'"),
        (lambda: date("%"), "got '%'"),
        (lambda: date(first=2000, last=1999), "got 2000 to 1999"),
        (lambda: date(first=200, last=1999), "1000 to 9999"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, said: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(said)):
        make()  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 4, 5, 8, 10, 25, 125, 500]) | st.integers(1, 60),
    st.none() | st.integers(-2500, 2500),
    st.none() | st.integers(0, 4000),
)
def test_multiples_in_limits(of: int, low: int | None, more: int | None) -> None:
    high = None if more is None else (low or 0) + more

    def fits(number: int) -> bool:
        return number % of == 0 and (low is None or number >= low) and (high is None or number <= high)

    try:
        pattern = re.compile(multiples(of, low, high))
    except PolicyError:
        few = low is not None and high is not None and (high - low) // of < 999
        assert not any(map(fits, range(-7000, 7000))) or (not few and 1000 % of)
        return
    for value in range(-3000, 7000, 1 if of > 1 else 7):
        assert bool(pattern.fullmatch(str(value))) == fits(value), value
    assert not any(pattern.fullmatch(text) for text in ("-0", "00", "-00", "05", "", "000"))

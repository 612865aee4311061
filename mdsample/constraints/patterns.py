"""Patterns: regular expressions of exactly these integers, numbers, dates. Pure functions from settings to text.

Every expression is a group of its own, so that it can stand beside others.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation

from mdsample.errors import PolicyError, shown

#: digits of a limit
DIGITS = 100
#: years that are written with four digits
_YEARS = (1000, 9999)
_DIRECTIVE = re.compile(r"%(-?[A-Za-z%])")
_TIMES = {"H": "(?:[01][0-9]|2[0-3])", "M": "[0-5][0-9]", "S": "[0-5][0-9]", "%": "%"}


def integer(minimum: int | None = None, maximum: int | None = None) -> str:
    """The integers from `minimum` to `maximum`, both included, without leading zeros and -0; `None`: no limit."""
    return number(minimum, maximum, 0)


def number(
    minimum: float | str | Decimal | None = None, maximum: float | str | Decimal | None = None, decimals: int = 2
) -> str:
    """The numbers from `minimum` to `maximum`, both included, with at most `decimals` digits after a point.

    There are no leading zeros and no -0; zeros at the end are as good as other digits. `None`: no limit. Floats mean
    the shortest decimal number that they are written as.
    """
    low, high = _limit(minimum), _limit(maximum)
    if type(decimals) is not int or not 0 <= decimals <= DIGITS:
        raise PolicyError(f"decimals are 0 to {DIGITS} digits after the point; got {shown(decimals)}")
    if low is not None and high is not None and low > high:
        raise PolicyError(f"there is no number from {low} to {high}; swap the two limits")
    ways = [way for places in range(decimals + 1) for way in _signed(low, high, places)]
    if not ways:
        digits = f"{decimals} digits after the point" if decimals else "no digits after the point"
        raise PolicyError(f"there is no number with {digits} from {low} to {high}; widen the limits, or allow more")
    return _any(ways)


def _limit(value: float | str | Decimal | None) -> Decimal | None:
    if value is None:
        return None
    try:
        read = Decimal("nan") if isinstance(value, bool) else Decimal(str(value) if isinstance(value, float) else value)
    except InvalidOperation:
        read = Decimal("nan")
    if not read.is_finite() or max(abs(read.adjusted()), len(read.as_tuple().digits)) > DIGITS:
        raise PolicyError(f"a limit is a number of at most {DIGITS} digits; got {shown(value)}")
    return read


def _signed(low: Decimal | None, high: Decimal | None, places: int) -> Iterator[str]:
    """The numbers with exactly so many places, as integers of the last place."""
    first = None if low is None else -_floor(low, places, -1)
    last = None if high is None else _floor(high, places, 1)
    least = 1 if last is None else max(1, -last)
    if first is None or -first >= least:
        yield from (f"-{way}" for way in _placed(least, None if first is None else -first, places))
    least = 0 if first is None else max(0, first)
    if last is None or last >= least:
        yield from _placed(least, last, places)


def _floor(value: Decimal, places: int, sign: int) -> int:
    """The integer at or below `sign` times the value, counted in its last place."""
    above, below = value.as_integer_ratio()  # a Decimal's own arithmetic rounds to 28 digits
    return sign * above * 10**places // below


def _placed(low: int, high: int | None, places: int) -> Iterator[str]:
    """The numbers `low` to `high` (0 or more, both of the last place) with a point before the last `places` digits."""
    if not places:
        yield _whole(low, high)
        return
    one = 10**places
    before, after = divmod(low, one)
    if high is not None and before == high // one:
        yield rf"{before}\.{_between(f'{after:0{places}}', f'{high % one:0{places}}')}"
        return
    if after:
        yield rf"{before}\.{_at_least(f'{after:0{places}}')}"
        before += 1
    if high is None:
        yield rf"{_whole(before, None)}\.{_digits(places)}"
        return
    full = high // one - (high % one < one - 1)
    if before <= full:
        yield rf"{_whole(before, full)}\.{_digits(places)}"
    if full < high // one:
        yield rf"{high // one}\.{_at_most(f'{high % one:0{places}}')}"


def _whole(low: int, high: int | None) -> str:
    """The integers from `low` to `high`, both 0 or more."""
    length = len(str(low))
    most = None if high is None else len(str(high))
    if high is not None and most == length:
        return _between(str(low), str(high))
    # those of the length of `low`, those of lengths in between, those of the length of `high`
    ways = [_at_least(str(low)) if low else "[0-9]"]
    if most is None:
        ways.append(f"[1-9][0-9]{{{length},}}")
    elif most - length > 1:
        ways.append(f"[1-9][0-9]{{{length},{most - 2}}}" if most - length > 2 else f"[1-9]{_digits(length)}")
    if high is not None:
        ways.append(_between("1" + "0" * (len(str(high)) - 1), str(high)))
    return _any(ways)


def _between(low: str, high: str) -> str:
    """The digits from `low` to `high`, of one length."""
    if not low:
        return ""
    if not low[1:].strip("0") and not high[1:].strip("9"):
        return _span(int(low[0]), int(high[0]), len(low) - 1)
    if low[0] == high[0]:
        return low[0] + _between(low[1:], high[1:])
    ways = [low[0] + _at_least(low[1:]), _span(int(low[0]) + 1, int(high[0]) - 1, len(low) - 1)]
    return _any([*ways, high[0] + _at_most(high[1:])])


def _at_least(low: str) -> str:
    return _between(low, "9" * len(low))


def _at_most(high: str) -> str:
    return _between("0" * len(high), high)


def _span(first: int, last: int, rest: int) -> str:
    """Digits that begin with one from `first` to `last`; nothing if there is none."""
    if first > last:
        return ""
    return (str(first) if first == last else f"[{first}-{last}]") + _digits(rest)


def _digits(count: int) -> str:
    return f"[0-9]{{{count}}}" if count > 1 else "[0-9]" * count


def _any(ways: list[str]) -> str:
    """One of these; those that are empty are none."""
    ways = [*dict.fromkeys(way for way in ways if way)]
    return f"(?:{'|'.join(ways)})" if len(ways) > 1 else ways[0]


def date(form: str = "%Y-%m-%d", first: int = 1900, last: int = 2099) -> str:
    """The days of the years `first` to `last` (1000 to 9999), as `form` writes them.

    `form` is as in `strftime`, with `%Y %m %-m %B %b %d %-d` for the day, `%H %M %S` for a time of the day, `%%` for
    the sign; names of months are English. Each may stand once. Where it names year, month and day, only days that there
    are match; without the year there is always a 29 February, and without the month every day up to 31.
    """
    if not (type(first) is int and type(last) is int and _YEARS[0] <= first <= last <= _YEARS[1]):
        raise PolicyError(f"the years of a date are from {_YEARS[0]} to {_YEARS[1]}; got {first!r} to {last!r}")
    parts = _DIRECTIVE.split(form)
    names = parts[1::2]
    months: dict[str, Callable[[int], str]] = {
        "m": lambda month: f"{month:02}",
        "-m": str,
        "B": lambda month: calendar.month_name[month],
        "b": lambda month: calendar.month_abbr[month],
    }
    known = {"Y", "d", "-d", *months, *_TIMES}
    seats = ["month" if name in months else name.lstrip("-") for name in names if name != "%"]
    if "%" in "".join(parts[::2]) or not known.issuperset(names) or len({*seats}) < len(seats) or not seats:
        raise PolicyError(
            f"a date is written with %Y, %m, %-m, %B, %b, %d, %-d, %H, %M, %S and %%, each once at most; got {form!r}"
        )
    long, short = [1, 3, 5, 7, 8, 10, 12], [4, 6, 9, 11]
    years, leap = _whole(first, last), [year for year in range(first, last + 1) if calendar.isleap(year)]
    kinds = [(years, long, 31), (years, short, 30), (years, [2], 28)]
    if leap or "Y" not in names:
        kinds.append((_by_decade(leap) if leap else "", [2], 29))
    ways: list[str] = []
    for year, among, days in kinds:
        written = _TIMES | {"Y": year, "d": _padded(days), "-d": _whole(1, days)}
        written |= {name: _any([month(number) for number in among]) for name, month in months.items()}
        ways.append("".join(re.escape(part) if n % 2 == 0 else written[part] for n, part in enumerate(parts)))
    return _any(ways)


def _padded(days: int) -> str:
    """01 to `days`."""
    return _between("01", f"{days:02}")


def _by_decade(years: list[int]) -> str:
    decades = dict.fromkeys(year // 10 for year in years)
    return _any(
        [f"{decade}[{''.join(str(year % 10) for year in years if year // 10 == decade)}]" for decade in decades]
    )

"""Multiples: regular expressions of the integers that a number divides, in exactly given limits."""

from __future__ import annotations

from collections.abc import Iterator

from mdsample.constraints.patterns import integer
from mdsample.errors import PolicyError

#: multiples that are written out
_LISTED = 1_000
#: last digits that may tell a multiple
_DIGITS = 3


def multiples(of: int, minimum: int | None = None, maximum: int | None = None) -> str:
    """The multiples of a number from `minimum` to `maximum`, both included, without leading zeros and -0.

    `None`: no limit. A number that divides 10, 100 or 1,000 is told by the last digits, whatever the limits; of any
    other the multiples are listed. `PolicyError`, a sentence without its subject, if there are none or too many.
    """
    first = None if minimum is None else -(-minimum // of)
    last = None if maximum is None else maximum // of
    if first is not None and last is not None:
        if first > last:
            raise PolicyError(f"there is no multiple of {of} from {minimum} to {maximum}; widen the limits")
        if last - first < _LISTED:
            return f"(?:{'|'.join(str(of * number) for number in range(first, last + 1))})"
    digits = next((count for count in range(1, _DIGITS + 1) if 10**count % of == 0), None)
    if digits is None:
        raise PolicyError(
            f"multiples of {of} are listed, at most {_LISTED:,} of them: set limits that lie closer together"
        )
    ways: list[str] = []
    if minimum is None or minimum < 0:
        least = 1 if maximum is None else max(1, -maximum)
        ways += (f"-{way}" for way in _by_digits(of, digits, least, None if minimum is None else -minimum))
    if maximum is None or maximum >= 0:
        ways += _by_digits(of, digits, max(0, minimum or 0), maximum)
    return f"(?:{'|'.join(ways)})"


def _by_digits(of: int, digits: int, low: int, high: int | None) -> Iterator[str]:
    """Those from `low`, 0 or more, on: what stands before the last digits, and which these may be."""
    one = 10**digits
    groups: dict[tuple[int, int | None], list[str]] = {}
    for rest in range(0, one, of):
        first, last = max(0, -(-(low - rest) // one)), None if high is None else (high - rest) // one
        if first == 0 and (last is None or last >= 0):
            yield str(rest)
        if last is None or last >= max(first, 1):
            groups.setdefault((max(first, 1), last), []).append(f"{rest:0{digits}}")
    for (first, last), rests in groups.items():
        yield f"{integer(first, last)}(?:{'|'.join(rests)})"

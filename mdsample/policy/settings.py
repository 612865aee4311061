"""Settings: attrs fields of a part that know what they accept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

_LARGEST = 2**31 - 1  # counts meet int32 arrays


def real(
    default: Any = attrs.NOTHING,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    optional: bool = False,
    kw_only: bool = False,
) -> Any:
    """An attrs field for a finite real number within stated limits."""

    def convert(value: Any) -> Any:
        try:
            return value if isinstance(value, (bool, str, bytes)) else float(value)
        except (TypeError, ValueError, OverflowError):
            return value  # the validator says what is wrong with it

    limits = _limits(above=above, at_least=at_least, at_most=at_most, below=below)

    def fits(value: Any) -> bool:
        return isinstance(value, float) and math.isfinite(value) and limits.hold(value)

    return _field(default, convert, fits, f"a number{limits.words}", optional, kw_only)


def integer(
    default: Any = attrs.NOTHING,
    *,
    at_least: int | None = None,
    at_most: int | None = None,
    optional: bool = False,
    kw_only: bool = False,
) -> Any:
    """An attrs field for an integer within stated limits, below 2^31."""

    def convert(value: Any) -> Any:
        # numpy integers are welcome; 2.0 is not, it is more likely a slip than a count
        index = getattr(value, "__index__", None)
        return value if isinstance(value, bool) or index is None else index()

    limits = _limits(above=None, at_least=at_least, at_most=at_most, below=None)

    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and limits.hold(value) and value <= _LARGEST

    return _field(default, convert, fits, f"a whole number{limits.words}", optional, kw_only)


def text(default: Any = attrs.NOTHING, *, kw_only: bool = False) -> Any:
    """An attrs field for a non-empty string."""

    def fits(value: Any) -> bool:
        return isinstance(value, str) and bool(value)

    return _field(default, lambda value: value, fits, "a text that is not empty", False, kw_only)


def items(kind: str, accepts: Callable[[Any], bool], *, kw_only: bool = False) -> Any:
    """An attrs field for a non-empty tuple (given as list or tuple) whose members pass `accepts`."""

    def convert(value: Any) -> Any:
        return tuple(value) if isinstance(value, (list, tuple)) else value  # type: ignore[arg-type]

    def fits(value: Any) -> bool:
        return isinstance(value, tuple) and bool(value) and all(accepts(v) for v in value)  # type: ignore[misc]

    return _field(attrs.NOTHING, convert, fits, f"a list of {kind}", False, kw_only)


@attrs.frozen
class _Limits:
    above: float | None
    at_least: float | None
    at_most: float | None
    below: float | None

    def hold(self, value: float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    @property
    def words(self) -> str:
        said = [
            f"{word} {limit:g}"
            for word, limit in (
                ("above", self.above),
                ("at least", self.at_least),
                ("at most", self.at_most),
                ("below", self.below),
            )
            if limit is not None
        ]
        return f", {' and '.join(said)}" if said else ""


def _limits(**limits: float | None) -> _Limits:
    return _Limits(**limits)


def _field(
    default: Any,
    convert: Callable[[Any], Any],
    fits: Callable[[Any], bool],
    wanted: str,
    optional: bool,
    kw_only: bool,
) -> Any:
    def check(part: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if optional and value is None:
            return
        if not fits(value):
            spare = ", or none" if optional else ""
            most = f", at most {_LARGEST}" if type(value) is int and value > _LARGEST else ""
            raise ValueError(f"{part.name}({attribute.name}=…) must be {wanted}{most}{spare}; got {value!r}")

    return attrs.field(
        default=default,
        converter=(lambda value: None if optional and value is None else convert(value)),
        validator=check,
        kw_only=kw_only,
    )

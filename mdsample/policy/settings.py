"""Settings: attrs fields of a part that know what they accept, and say so in their metadata as a `Domain`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, dataclass_transform, final

import attrs

from mdsample.errors import shown

_T = TypeVar("_T")
_LARGEST = 2**31 - 1  # counts meet int32 arrays
#: key of a setting's `Domain` in the metadata of its attrs field
DOMAIN = "domain"


@final
@attrs.frozen
class Domain:
    """What a setting accepts."""

    kind: Literal["number", "whole number", "text", "choice", "list"]
    #: for people: `a number, above 0`
    words: str
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    #: whether `None` is accepted
    optional: bool = False
    #: of a text or a list: what is meant, as in `slot` or `texts`; not checked
    of: str = ""
    #: of a choice: all that is accepted; of a number: settings worth trying, from safe to bold; else examples
    values: tuple[Any, ...] = ()

    def holds(self, number: float) -> bool:
        """Whether a number keeps the limits."""
        return (
            (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )


def domains(part: type) -> dict[str, Domain | None]:
    """The domain of each setting of a part's class; `None` for a field that was not made here."""
    return {field.name: field.metadata.get(DOMAIN) for field in attrs.fields(part)}


def real(
    *,
    default: Any = attrs.NOTHING,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    optional: bool = False,
    values: Sequence[float] = (),
    kw_only: bool = False,
) -> Any:
    """A field for a finite real number within stated limits; `values` are worth trying, from safe to bold.

    `default` and `kw_only` are given by name at the field itself, where type checkers look for them (see `part`).
    """

    def convert(value: Any) -> Any:
        try:
            return value if isinstance(value, (bool, str, bytes)) else float(value)
        except (TypeError, ValueError, OverflowError):
            return value  # the validator says what is wrong with it

    words = "a number" + _limits(above, at_least, at_most, below)
    domain = Domain("number", words, above, at_least, at_most, below, optional, values=tuple(values))

    def fits(value: Any) -> bool:
        return isinstance(value, float) and math.isfinite(value) and domain.holds(value)

    return _field(default, convert, fits, domain, kw_only)


def integer(
    *,
    default: Any = attrs.NOTHING,
    at_least: int | None = None,
    at_most: int | None = None,
    optional: bool = False,
    values: Sequence[int] = (),
    kw_only: bool = False,
) -> Any:
    """An attrs field for an integer within stated limits, below 2^31; `values` as in `real`."""

    def convert(value: Any) -> Any:
        # numpy integers are welcome; 2.0 is not, it is more likely a slip than a count
        index = getattr(value, "__index__", None)
        try:
            return value if isinstance(value, bool) or index is None else index()
        except TypeError:  # an array
            return value

    words = "a whole number" + _limits(None, at_least, at_most, None)
    domain = Domain("whole number", words, None, at_least, at_most, None, optional, values=tuple(values))

    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and domain.holds(value) and value <= _LARGEST

    return _field(default, convert, fits, domain, kw_only)


def text(*, default: Any = attrs.NOTHING, of: str = "", values: Sequence[str] = (), kw_only: bool = False) -> Any:
    """An attrs field for a non-empty string.

    `of` is what it means: `slot`, `special token`, `characters`; of any other, `values` has examples.
    """

    def fits(value: Any) -> bool:
        return isinstance(value, str) and bool(value)

    return _field(
        default,
        lambda value: value,
        fits,
        Domain("text", "a text that is not empty", of=of, values=tuple(values)),
        kw_only,
    )


def choice(options: Sequence[str], *, default: Any = attrs.NOTHING, kw_only: bool = False) -> Any:
    """An attrs field for one of several strings."""
    domain = Domain("choice", f"one of {', '.join(options)}", values=tuple(options))
    return _field(default, lambda value: value, lambda value: value in options, domain, kw_only)


def items(
    kind: str, accepts: Callable[[Any], bool], *, of: str = "", values: Sequence[Any] = (), kw_only: bool = False
) -> Any:
    """An attrs field for a non-empty tuple (given as list or tuple) whose members, called `kind`, pass `accepts`.

    `of` is what the list means: `tokens`, `texts` of a slot, `permutation`; of any other, `values` has examples.
    """

    def convert(value: Any) -> Any:
        return tuple(value) if isinstance(value, (list, tuple)) else value  # type: ignore[arg-type]

    def fits(value: Any) -> bool:
        return isinstance(value, tuple) and bool(value) and all(accepts(v) for v in value)  # type: ignore[misc]

    return _field(
        attrs.NOTHING, convert, fits, Domain("list", f"a list of {kind}", of=of, values=tuple(values)), kw_only
    )


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field, real, integer, text, choice, items))
def part(cls: type[_T]) -> type[_T]:
    """`attrs.frozen` for a part, so that type checkers and editors see which settings are required and keyword-only."""
    return attrs.frozen(cls)


def _limits(above: float | None, at_least: float | None, at_most: float | None, below: float | None) -> str:
    named = (("above", above), ("at least", at_least), ("at most", at_most), ("below", below))
    limits = [f"{word} {limit:g}" for word, limit in named if limit is not None]
    return f", {' and '.join(limits)}" if limits else ""


def _field(
    default: Any, convert: Callable[[Any], Any], fits: Callable[[Any], bool], domain: Domain, kw_only: bool
) -> Any:
    def check(part: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if domain.optional and value is None:
            return
        if not fits(value):
            spare = ", or none" if domain.optional else ""
            most = f", at most {_LARGEST}" if type(value) is int and value > _LARGEST else ""
            raise ValueError(
                f"{part.name}({attribute.name}=…) must be {domain.words}{most}{spare}; got {shown(value, 200)}"
            )

    return attrs.field(
        default=default,
        converter=(lambda value: None if domain.optional and value is None else convert(value)),
        validator=check,
        kw_only=kw_only,
        metadata={DOMAIN: domain},
    )

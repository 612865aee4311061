"""Parts and policies: a part is a frozen value with a name and a seat; a policy is a sum of parts."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, cast, final

import attrs

from mdsample.core import html
from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer
from mdsample.errors import PolicyError, shown
from mdsample.policy.view import Evidence
from mdsample.policy.writing import value_text

Seat = Literal["window", "order", "selection", "draw", "stop", "constraint", "revise", "guide"]
#: the seats in the order in which a policy is written
SEATS: tuple[Seat, ...] = ("window", "order", "selection", "draw", "stop", "constraint", "revise", "guide")
#: seats that hold any number of parts
MANY: frozenset[Seat] = frozenset({"stop", "constraint"})


class Part(abc.ABC):
    """A frozen attrs value that fills one seat of a policy. Parts are pure functions of what they are shown."""

    __slots__ = ()

    #: the part's name in policy text, in kebab case
    name: ClassVar[str]
    #: the seat it fills
    seat: ClassVar[Seat]
    #: whether it reads the past (`batch.written`, `batch.probability`, `batch.error_bound`, `batch.tv_sum`); exact laws
    #: must then keep histories apart
    remembers: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """What it must know beyond the marginals (`View.get`); the loop provides it. Default: nothing."""
        return ()

    @property
    def promise(self) -> str:
        """What a run under these very settings keeps, in a sentence; `explain` says it. Default: nothing to say."""
        return ""

    def check(self, canvas: Canvas, tokenizer: Tokenizer) -> None:  # noqa: B027, most parts fit anything
        """Raises `ValueError`, with the remedy, if the part does not fit this canvas; before any forward pass."""

    def conflict(self, other: Part, tokenizer: Tokenizer) -> str:
        """Why it does not go together with another part of the policy, with the remedy; empty if it does."""
        return ""

    def __add__(self, other: Part | Policy) -> Policy:
        """The policy that has both parts; raises `PolicyError` if they want the same single seat."""
        return Policy.of(self) + other


def _by_seat(parts: Iterable[Part]) -> tuple[Part, ...]:
    listed: tuple[object, ...] = tuple(parts) if hasattr(parts, "__iter__") else (parts,)
    if strange := [part for part in listed if not isinstance(part, Part)]:
        raise TypeError(f"a policy is a sum of parts, such as Top(1); got {shown(strange[0])}; parse reads text")
    parts = cast("tuple[Part, ...]", listed)
    return tuple(sorted(dict.fromkeys(parts), key=lambda part: SEATS.index(part.seat)))


@final
@attrs.frozen(repr=False)
class Policy:
    """A sum of parts: one at most in each single seat, any number of stops and constraints.

    `a + b` has the parts of both; two different parts for one single seat are refused (the same part twice is one
    part). `+` is associative, and `Policy()` is its identity.
    """

    #: sorted by seat, within a seat as they were added
    parts: tuple[Part, ...] = attrs.field(default=(), converter=_by_seat)

    def __attrs_post_init__(self) -> None:
        """Refuses two parts for one single seat."""
        for part, other in zip(self.parts, self.parts[1:], strict=False):
            if fault := clash(part, other):
                raise PolicyError(f"{fault}; keep one, or swap them with policy.replace")

    @staticmethod
    def of(*parts: Part) -> Policy:
        """The sum of parts."""
        return Policy(parts)

    def __add__(self, other: Part | Policy) -> Policy:
        """The policy that has the parts of both."""
        match other:
            case Policy():
                return Policy((*self.parts, *other.parts))
            case Part():
                return Policy((*self.parts, other))
            case _:
                return NotImplemented

    def at(self, *seats: Seat) -> tuple[Part, ...]:
        """The parts in these seats."""
        return tuple(part for part in self.parts if part.seat in seats)

    def without(self, *seats: Seat) -> Policy:
        """The policy with these seats free; `PolicyError` for a seat that does not exist."""
        for seat in seats:
            if seat not in SEATS:
                raise PolicyError(f"there is no seat {seat!r}; seats: {', '.join(SEATS)}")
        return Policy(part for part in self.parts if part.seat not in seats)

    def replace(self, *parts: Part) -> Policy:
        """The policy with these parts in place of those in their seats; of stops and constraints, of their names."""
        new = {part.name if part.seat in MANY else part.seat for part in parts}
        return Policy((*(p for p in self.parts if (p.name if p.seat in MANY else p.seat) not in new), *parts))

    def __str__(self) -> str:
        """The shortest text that parses back."""
        return policy_text(self)

    def __repr__(self) -> str:
        """The text, as `parse` reads it."""
        return f"Policy({str(self)!r})"

    def __rich_repr__(self) -> Iterator[tuple[str, str]]:
        """As rich shows it: seats and their parts."""
        for part in self.parts:
            yield part.seat, part_text(part)

    def _repr_html_(self) -> str:
        return html.picture(html.chips((part.seat, part_text(part)) for part in self.parts) or "the default policy")


def clash(part: Part, other: Part) -> str:
    """That two different parts want one single seat; empty if they do not."""
    if part == other or part.seat != other.seat or part.seat in MANY:
        return ""
    return f"two parts want the {part.seat} seat: {part_text(part)} and {part_text(other)}"


def policy_text(policy: Policy, full: bool = False) -> str:
    """The shortest text that parses back to the policy; with `full`, every setting of its parts by name."""
    return "+".join(part_text(part, full) for part in policy.parts)


def part_text(part: Part, full: bool = False) -> str:
    """The shortest text of a part, without defaults; with `full`, every setting by name."""
    settings: list[str] = []
    for number, field in enumerate(attrs.fields(type(part))):
        value = getattr(part, field.name)
        if full or value != field.default:
            name = f"{field.name}=" if number > 0 or field.kw_only or full else ""
            settings.append(name + value_text(value))
    return f"{part.name}({','.join(settings)})" if settings else part.name

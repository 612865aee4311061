"""Policy: parts add up to it, one per single seat, any number of stops and constraints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar, final

import attrs

from mdsample.constraint import Constraint
from mdsample.draw import Draw, Greedy
from mdsample.errors import PolicyError
from mdsample.guide import Guide, NoGuide
from mdsample.order import Entropy, Order
from mdsample.part import Part
from mdsample.revise import Never, Revise
from mdsample.selection import Selection, Top
from mdsample.stopping import Stop
from mdsample.window import Blocks, Window
from mdsample.written import part_text, policy_text

_T = TypeVar("_T")


def _once(parts: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(parts))


@final
@attrs.frozen
class Policy:
    """Seats and the parts that fill them; `None` is a seat that is still free.

    `a + b` fills the free seats of `a` with the parts of `b`; two different parts for one single seat are refused
    (the same part twice is one part). `+` is associative, and `Policy()` is its identity.
    """

    window: Window | None = None
    order: Order | None = None
    selection: Selection | None = None
    draw: Draw | None = None
    stops: tuple[Stop, ...] = attrs.field(default=(), converter=_once)
    constraints: tuple[Constraint, ...] = attrs.field(default=(), converter=_once)
    revise: Revise | None = None
    guide: Guide | None = None

    @staticmethod
    def of(*parts: Part) -> Policy:
        """The sum of parts."""
        policy = Policy()
        for part in parts:
            policy = policy + part
        return policy

    def __add__(self, other: Part | Policy) -> Policy:
        """The policy that has the parts of both."""
        if isinstance(other, Policy):
            total = self
            for part in other.parts():
                total = total + part
            return total
        if not isinstance(other, Part):  # pyright: ignore[reportUnnecessaryIsInstance]
            return NotImplemented
        if isinstance(other, Stop):
            return attrs.evolve(self, stops=(*self.stops, other))
        if isinstance(other, Constraint):
            return attrs.evolve(self, constraints=(*self.constraints, other))
        held: Part | None = getattr(self, other.seat)
        if held is not None and held != other:
            raise PolicyError(
                f"two parts want the {other.seat} seat: {part_text(held)} and {part_text(other)}; keep one"
            )
        return attrs.evolve(self, **{other.seat: other})

    def parts(self) -> Iterator[Part]:
        """The parts that are there, in the order of the seats."""
        for part in (self.window, self.order, self.selection, self.draw):
            if part is not None:
                yield part
        yield from self.stops
        yield from self.constraints
        for part in (self.revise, self.guide):
            if part is not None:
                yield part

    def completed(self) -> CompletePolicy:
        """Free seats taken by the defaults: `blocks(32)+entropy+top(1)+greedy+never+none`."""
        return CompletePolicy(
            self.window or Blocks(),
            self.order or Entropy(),
            self.selection or Top(),
            self.draw or Greedy(),
            self.stops,
            self.constraints,
            self.revise or Never(),
            self.guide or NoGuide(),
        )

    def __str__(self) -> str:
        """The shortest text that parses back."""
        return policy_text(self)

    def in_full(self) -> str:
        """The text of the completed policy with every setting written out, for records."""
        return policy_text(Policy(*attrs.astuple(self.completed(), recurse=False)), full=True)


@final
@attrs.frozen
class CompletePolicy:
    """A policy whose every seat is taken; what the loop runs."""

    window: Window
    order: Order
    selection: Selection
    draw: Draw
    stops: tuple[Stop, ...]
    constraints: tuple[Constraint, ...]
    revise: Revise
    guide: Guide

"""Complete policies: every seat taken, free ones by the defaults; what the loop runs."""

from __future__ import annotations

from typing import Any, final

import attrs

from mdsample.policy.base import MANY, SEATS, Part, Policy, policy_text
from mdsample.policy.constraint import Constraint
from mdsample.policy.draw import Draw, Greedy
from mdsample.policy.guide import Guide, NoGuide
from mdsample.policy.order import Entropy, Order
from mdsample.policy.revise import Never, Revise
from mdsample.policy.selection import Selection, Top
from mdsample.policy.stop import Stop
from mdsample.policy.window import BLOCK, Blocks, Window

#: what takes a free seat
DEFAULTS = (Blocks(), Entropy(), Top(), Greedy(), Never(), NoGuide())


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

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of them, in the order of the seats."""
        return (
            self.window, self.order, self.selection, self.draw, *self.stops, *self.constraints, self.revise, self.guide
        )  # fmt: skip


def complete(policy: Policy) -> CompletePolicy:
    """Free seats taken by the defaults: `blocks+entropy+top(1)+greedy+never+none`."""
    taken = {part.seat for part in policy.parts}
    whole = policy + Policy(part for part in DEFAULTS if part.seat not in taken)
    seated: list[Any] = [whole.at(seat) if seat in MANY else whole.at(seat)[0] for seat in SEATS]
    return CompletePolicy(*seated)


def in_full(policy: Policy) -> str:
    """The text of the completed policy with every setting written out."""
    return policy_text(Policy(complete(policy).parts), full=True)


def as_run(policy: Policy, block: int | None) -> str:
    """The same for records: `blocks` without a size is what it means on a model of this `Denoiser.block`."""
    whole = Policy(complete(policy).parts)
    return in_full(whole.replace(Blocks(block or BLOCK)) if whole.at("window") == (Blocks(),) else whole)

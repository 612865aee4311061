"""A slot that grows: it gets more positions as long as the model does not see an end, and then it runs.

The rule is the first stage of DAEDAL (arXiv 2508.00819; Li-Jinsong/DAEDAL). All of the slot is blank; one forward pass;
of the positions whose most probable token ends a text, the last ones count, `window` at most; the end is *seen* if
their probabilities sum to half of `window` or more. Else the slot gets `Slot.step` more positions, up to its most. With
64 positions to begin with, window and step are the published 32 and 8; with fewer they shrink in proportion.

What follows is the run of the template with that length, to the token, so a row depends on nothing but itself. The
passes that found the length count as the row's. DAEDAL's second stage, which puts masks into the middle of a text that
is being written, is not here: positions are what random numbers, constraints and traces go by. Nor are the end tokens
that it writes behind the slot before that stage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeVar

import attrs
import numpy as np

from mdsample.core.rows import Rows
from mdsample.core.template import Slot
from mdsample.errors import NoTextError, PolicyError
from mdsample.models.denoiser import Denoiser, Query
from mdsample.policy.guide import Credit, NoGuide, Tuned
from mdsample.sampling.languages import with_spans
from mdsample.sampling.observe import Asking, restrict
from mdsample.sampling.plan import Plan
from mdsample.sampling.prepared import Prepared
from mdsample.sampling.row import Grown, Row
from mdsample.sampling.sampler import Sampler
from mdsample.sampling.speculate import Speculation
from mdsample.sampling.state import State

T = TypeVar("T")
#: the end is seen where the mean over the window is this
_SEEN = 0.5


@attrs.define(eq=False)
class Growing:
    """A row whose slot grows, with the length that it has reached."""

    row: Prepared
    #: its place among the rows that were given, and how they run
    place: int
    sampler: Sampler
    slots: tuple[str, ...]
    speculate: Speculation | None
    #: what was seen at each length, the last one its own
    looks: list[Grown] = attrs.field(factory=list[Grown])
    #: whether it has found its length
    over: bool = False

    @property
    def slot(self) -> Slot:
        """The template's."""
        assert self.row.growth is not None
        return self.row.growth.slot

    def require(self, denoiser: Denoiser, make: Callable[[Prepared], object]) -> None:
        """`PolicyError` where no look tells whether a text ends in a blank slot, and as `make` raises it for the most.

        `make`: makes the row ready to run.
        """
        cache, slot = denoiser.cache, self.slot
        reason = ""
        if not denoiser.tokenizer.ends:
            reason = f"{denoiser.name} has no token that ends a text"
        elif denoiser.noise != "mask":
            reason = f"what {denoiser.name} is shown in blanks is drawn anew for every pass"
        elif denoiser.block is not None:
            reason = f"{denoiser.name} fills a row block by block, and sees no end before its block comes"
        elif cache is not None and cache.approximate:
            reason = f"the cache {str(cache)!r} is approximate, and would mix its looks with those of the run"
        if reason:
            raise PolicyError(
                f"slot {slot.name!r} grows until the model sees an end, but {reason}; "
                f"write one length, as in {{{slot.name}:{slot.length}}}"
            )
        with suppress(NoTextError):  # a shorter one may have a text
            make(self.row.grown(slot.length, denoiser.tokenizer.mask_id))

    def fitted(self, make: Callable[[Prepared], T], mask_id: int, *, longer: bool) -> T:
        """What `make` makes of the row in its length or the next one, and takes that length up.

        Lengths at which there is no text of the slot's language are passed over; `NoTextError` if none is left.
        """
        now = self.row.lengths[self.slot.name]
        fault: NoTextError | None = None
        for length in self.slot.lengths:
            if length < now + longer:
                continue
            row = self.row.grown(length, mask_id)
            try:
                made = make(row)
            except NoTextError as reason:
                fault = reason
                continue
            self.row = row
            return made
        raise fault or NoTextError(f"slot {self.slot.name!r} has grown to its most, {now} positions")

    def look(self, plan: Plan, state: State) -> Asking[Grown]:
        """One pass over the row, all of whose slot is blank."""
        assert self.row.growth is not None
        batch = plan.batch(state, np.zeros(1, np.int32))
        inside = np.array([self.row.slot]) == self.row.growth.number
        restriction = restrict(plan, np.zeros(1, np.int32), batch.tokens, batch.blank)
        wanted = with_spans(inside & batch.blank, restriction.spans, batch.blank)
        fixed = batch.valid & ~batch.initially_blank
        # guides that remember earlier steps have nothing to go by yet
        guide = NoGuide() if isinstance(plan.policy.guide, Tuned | Credit) else plan.policy.guide
        names = Rows(plan.keys, batch.step)
        prediction = yield Query(batch.tokens, batch.valid, wanted, fixed, restriction, guide, names)
        marginals = prediction.marginals
        token = np.where(batch.blank, marginals.token, batch.tokens)[0]
        chance = np.where(batch.blank, np.exp(marginals.log_probability, dtype=np.float64), 1.0)[0]
        length = self.row.lengths[self.slot.name]
        return Grown(length, end_seen(token[inside[0]], chance[inside[0]], plan.tokenizer.ends, self.window))

    @property
    def window(self) -> int:
        """How many end tokens are counted: half of the fewest positions, at most 32."""
        return min(32, max(1, (self.slot.shortest or 1) // 2))

    def take_down(self, look: Grown) -> bool:
        """Takes down what was seen; whether the slot is to grow."""
        self.looks.append(look)
        self.over = look.end >= _SEEN or look.length >= self.slot.length
        return not self.over

    def told(self, row: Row, passes: int) -> Row:
        """A row that is done, with what its length cost; `passes`: of one look."""
        looks = len(self.looks)
        return attrs.evolve(row, nfe=row.nfe + passes * looks, rounds=row.rounds + looks, grown=tuple(self.looks))


def end_seen(token: np.ndarray, chance: np.ndarray, ends: Collection[int], window: int) -> float:
    """The mean probability of the last `window` end tokens among the most probable tokens, `[n]` both; 0 if missing."""
    found = chance[np.isin(token, [*ends])][::-1][:window]
    return float(found.sum()) / window

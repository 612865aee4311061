"""Stop: which rows are done early, and what is filled when they leave?"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints, any_in_row
from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer, token_id, until_end
from mdsample.policy.base import Part, Seat
from mdsample.policy.evidence import StandingStill
from mdsample.policy.language import Choices, Language
from mdsample.policy.settings import choice, integer, items, part, real, text
from mdsample.policy.view import Batch, Evidence, View


@attrs.frozen(eq=False)
class BeforePass:
    """What a stop rule wants before the forward pass."""

    #: positions it must see, `[B, L]`, besides those inside the window
    watch: Bools
    #: rows that need no further pass, `[B]`
    finished: Bools
    #: tokens to write into blanks that count as filled without a look, −1 elsewhere, `[B, L]` int32
    fill: Ints
    #: what a person is told when a row leaves because of `over`; if empty, the part's `sentence`
    why: str = ""


@attrs.frozen(eq=False)
class AfterPass:
    """What a stop rule decides after the forward pass."""

    #: rows that leave, `[B]`
    done: Bools
    #: blanks that are filled from this same look on leaving, `[B, L]`; other blanks stay blank
    last: Bools
    #: rows whose window is final after this pass, at the most probable tokens, `[B]`; `None`: none
    settled: Bools | None = None


class Stop(Part):
    """Decides when a row is done although it still has blanks."""

    __slots__ = ()
    seat: ClassVar[Seat] = "stop"

    @property
    @abc.abstractmethod
    def sentence(self) -> str:
        """What a person is told when a row left because of this part."""

    @abc.abstractmethod
    def before_pass(self, batch: Batch) -> BeforePass:
        """Before the forward pass."""

    @abc.abstractmethod
    def after_pass(self, view: View) -> AfterPass:
        """After the forward pass."""


def _nowhere(batch: Batch) -> Bools:
    return np.zeros_like(batch.blank)


def _nothing(batch: Batch) -> Ints:
    return np.full(batch.blank.shape, -1, np.int32)


def _no_row(batch: Batch) -> Bools:
    return np.zeros(len(batch.blank), np.bool_)


@final
@part
class EarlyExit(Stop):
    """Leave when the slot's marginal entropies sum to less than `entropy` nats; fill the slot from the same look.

    The sum bounds the joint entropy of the answer (arXiv 2510.19990); 0.1 is the paper's setting. Blanks outside the
    slot stay blank. A row whose slot is already filled leaves without a further pass; one to which the slot was
    given has nothing to wait for and goes on until the rest is filled.
    """

    name: ClassVar[str] = "early-exit"
    entropy: float = real(default=0.1, above=0, values=(0.001, 0.01, 0.03, 0.1, 0.3, 1.0))
    slot: str = text(default="answer", of="slot", kw_only=True)

    def check(self, canvas: Canvas, tokenizer: Tokenizer) -> None:
        """The slot must exist."""
        if self.slot not in canvas.names:
            names = ", ".join(canvas.names) or "none"
            raise ValueError(f"early-exit(slot={self.slot!r}): there is no such slot; slots here: {names}")

    @property
    def sentence(self) -> str:
        """What happened."""
        return f"The slot {self.slot!r} was certain enough (below {self.entropy:g} nats), so it was filled early."

    def before_pass(self, batch: Batch) -> BeforePass:
        """Watches the slot's blanks."""
        slot = batch.in_slot(self.slot)
        why = f"The slot {self.slot!r} was filled, so the rest was left."
        finished = self._waited(batch) & ~any_in_row(slot & batch.unsettled)
        return BeforePass(slot & batch.blank, finished, _nothing(batch), why)

    def after_pass(self, view: View) -> AfterPass:
        """Sums the slot's entropies."""
        blanks = view.batch.in_slot(self.slot) & view.batch.blank
        total = np.where(blanks, view.marginals.entropy, 0).sum(1, dtype=np.float64)
        # a slot without blanks is there only if what stands in it may still change
        return AfterPass(self._waited(view.batch) & any_in_row(blanks) & (total < self.entropy), blanks)

    def _waited(self, batch: Batch) -> Bools:
        """Rows in which the slot was to be filled, `[B]`."""
        return any_in_row(batch.in_slot(self.slot) & batch.initially_blank)


@final
@part
class Budget(Stop):
    """At most `nfe` forward passes a row; the last one fills whatever is still blank.

    Guidance counts two passes a step: with it a row takes at most ⌊nfe / 2⌋ steps, and one step in any case.
    """

    name: ClassVar[str] = "budget"
    nfe: int = integer(at_least=1)

    @property
    def sentence(self) -> str:
        """What happened."""
        return f"The budget of {self.nfe} forward passes was spent; its last pass filled all remaining blanks."

    def before_pass(self, batch: Batch) -> BeforePass:
        """In the last step all blanks are looked at."""
        watch = batch.blank & self._last(batch)[:, None]
        return BeforePass(watch, _no_row(batch), _nothing(batch))

    def after_pass(self, view: View) -> AfterPass:
        """Fills everything in the last step."""
        return AfterPass(self._last(view.batch), view.batch.blank)

    def _last(self, batch: Batch) -> Bools:
        return batch.nfe + 2 * batch.passes > self.nfe


@final
@part
class Converged(Stop):
    """A window is final, at its most probable tokens, when these were the same before and their entropy is low.

    The same in the last `passes` predictions and in this one, and a mean entropy below `entropy` nats over all of the
    window. DiffusionGemma's adaptive stopping with its numbers (`StableAndConfidentStoppingCriteria` of transformers
    5.23), for `renoise`; elsewhere it fills the rest of a window at once. The row goes on with its next window.
    """

    name: ClassVar[str] = "converged"
    entropy: float = real(default=0.005, above=0)
    passes: int = integer(default=1, at_least=0, kw_only=True)

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """The most probable texts of the predictions before."""
        return (StandingStill(self.passes),) if self.passes else ()

    @property
    def sentence(self) -> str:
        """Not why a row leaves: that is that all of it is filled."""
        return "Every window had converged."

    def before_pass(self, batch: Batch) -> BeforePass:
        """Nothing."""
        return BeforePass(_nowhere(batch), _no_row(batch), _nothing(batch))

    def after_pass(self, view: View) -> AfterPass:
        """Asks how long the text has stood still, and how certain it is."""
        total = np.where(view.window, view.marginals.entropy, 0).cumsum(1, dtype=np.float64)[:, -1]
        still = any_in_row(view.window) & (total < self.entropy * view.window.sum(1))
        if self.passes:
            still &= view.get(StandingStill(self.passes)) >= self.passes
        return AfterPass(_no_row(view.batch), _nowhere(view.batch), still)


@final
@part
class Ended(Stop):
    """After an end token in a slot the slot's rest counts as filled: the end token is written there without a look.

    `token`: the text of the ending token; 'end' (default) means each that ends a text of the model or a chat's turn.
    `when` reached: not before the slot is written up to it, so that what comes before is written as if nothing had
    ended, as LLaDA2, SDAR and Fast-dLLM v2 do; by default as soon as it is seen, which spares more passes.
    """

    name: ClassVar[str] = "ended"
    token: str = text(default="end", of="special token")
    when: str = choice(("seen", "reached"), default="seen", kw_only=True)

    def check(self, canvas: Canvas, tokenizer: Tokenizer) -> None:
        """The token must exist."""
        self.endings(tokenizer)

    def conflict(self, other: Part, tokenizer: Tokenizer) -> str:
        """No text of a slot's language may hold the token before its end."""
        if isinstance(other, Choices):
            for choice in other.texts:
                if not self.endings(tokenizer).isdisjoint(tokenizer.encode(choice)[:-1]):
                    return (
                        f"ended({self.token!r}) would cut off {choice!r}, a choice for slot {other.slot!r}; "
                        "leave one of them out"
                    )
        elif isinstance(other, Language) and not self.endings(tokenizer) <= tokenizer.ends:
            return (
                f"ended({self.token!r}) would cut off texts of the language of slot {other.slot!r}; "
                "leave one of them out, or take ended(), which knows the model's own end tokens"
            )
        return ""

    def endings(self, tokenizer: Tokenizer) -> frozenset[int]:
        """The ids of the ending tokens; `ValueError` if the model has none."""
        if self.token != "end":
            return frozenset([token_id(self.token, tokenizer, tokenizer.size, self.name)])
        if not tokenizer.ends:
            raise ValueError("ended: this model has no end token; name one, as in ended('.')")
        return tokenizer.ends

    @property
    def sentence(self) -> str:
        """What happened."""
        return "Every slot had ended."

    def before_pass(self, batch: Batch) -> BeforePass:
        """Closes the blanks after the first ending token of each slot."""
        endings = self.endings(batch.tokenizer)
        ending = np.isin(batch.tokens, sorted(endings)) & ~batch.unsettled
        closed = np.zeros_like(batch.blank)
        for number in range(len(batch.names)):
            inside = batch.slot == number
            after = np.cumsum(ending & inside, 1) > 0
            if self.when == "reached":
                after &= ~any_in_row(batch.blank & inside & ~after)[:, None]
            closed |= inside & after
        fill = min(endings) if batch.tokenizer.end_id is None else batch.tokenizer.end_id
        return BeforePass(_nowhere(batch), _no_row(batch), np.where(closed & batch.blank, np.int32(fill), np.int32(-1)))

    def after_pass(self, view: View) -> AfterPass:
        """Never by itself: a row all of whose blanks are closed is filled."""
        return AfterPass(_no_row(view.batch), _nowhere(view.batch))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


@final
@part
class Until(Stop):
    """After one of these texts in a slot the slot's rest counts as filled: end tokens are written there without a look.

    A text counts once all of the slot up to its end is written, so what stands up to the first of them is what the run
    would have written without this part (unless a revise part takes written tokens back). The text itself stays in the
    slot.
    """

    name: ClassVar[str] = "until"
    texts: tuple[str, ...] = items("texts that are not empty", _is_text, of="endings")

    def check(self, canvas: Canvas, tokenizer: Tokenizer) -> None:
        """The model must have a token for what stands after an end."""
        if tokenizer.end_id is None:
            raise ValueError("until: this model has no end token to write after a text; leave until out")

    def conflict(self, other: Part, tokenizer: Tokenizer) -> str:
        """No text of a slot's language may hold one of these before its end."""
        if isinstance(other, Choices):
            for choice in other.texts:
                if text := next((text for text in self.texts if text in choice and not choice.endswith(text)), ""):
                    return f"until({text!r}) would cut off {choice!r}, a choice for slot {other.slot!r}; leave one out"
        elif isinstance(other, Language):
            return f"until would cut off texts of the language of slot {other.slot!r}; leave one of them out"
        return ""

    @property
    def sentence(self) -> str:
        """What happened."""
        return "Every slot had come to one of the texts that end it."

    def before_pass(self, batch: Batch) -> BeforePass:
        """Closes the blanks after the first of the texts in each slot."""
        fill, end = _nothing(batch), batch.tokenizer.end_id
        assert end is not None  # checked before the run
        open_slots = np.where(batch.blank, batch.slot, np.int32(-1))
        for row, slots in enumerate(open_slots):
            for number in set(slots[slots >= 0].tolist()):
                places = np.flatnonzero(batch.slot[row] == number)
                written = places[: int(np.argmax(batch.blank[row, places]))]
                tokens = until_end(batch.tokens[row, written].tolist(), batch.tokenizer)
                if len(tokens) == len(written) and self._in(batch.tokenizer.decode(tokens)):
                    fill[row, places[len(written) :]] = end
        return BeforePass(_nowhere(batch), _no_row(batch), np.where(batch.blank, fill, np.int32(-1)))

    def after_pass(self, view: View) -> AfterPass:
        """Never by itself: a row all of whose blanks are closed is filled."""
        return AfterPass(_no_row(view.batch), _nowhere(view.batch))

    def _in(self, written: str) -> bool:
        return any(text in written for text in self.texts)

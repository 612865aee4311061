"""Guide: how are the logits changed before anything is measured? Data only; the backend obeys it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Floats, Ints, Longs, any_in_row
from mdsample.core.credits import Credits
from mdsample.policy.base import Part, Seat
from mdsample.policy.draw import Temperature
from mdsample.policy.evidence import CreditLeft
from mdsample.policy.settings import integer, part, real
from mdsample.policy.view import Evidence


class Guide(Part):
    """How logits are changed. Backends know the final classes below and refuse others."""

    __slots__ = ()
    seat: ClassVar[Seat] = "guide"
    #: forward passes that one prediction takes
    passes: ClassVar[int] = 1

    def credits(self, offered: Bools, before: Sequence[Mapping[Evidence, Any]]) -> Credits | None:
        """What a prediction of B rows must know beside the guide; `None`: nothing.

        `offered [B, L]`: what is on offer now. `before`: what evidence kept of each row, `[B]`.
        """
        return None


@final
@part
class NoGuide(Guide):
    """The model's logits as they are."""

    name: ClassVar[str] = "none"


@final
@part
class Cfg(Guide):
    """Classifier-free guidance: logits = u + (`scale` + 1)(c − u), u from the text with its fixed part masked.

    LLaDA's convention: 0 changes nothing (and still costs the second pass; leave the guide out instead). Each step
    counts two forward passes. Default 1.
    """

    name: ClassVar[str] = "cfg"
    passes: ClassVar[int] = 2
    scale: float = real(default=1.0, at_least=0)


@final
@part
class Cooling(Guide):
    """Everything is measured at temperature `t`, after `top_k`, `min_p` and `top_p`, as `temperature` would draw there.

    So confidences, margins, entropies and thresholds are those of the cooled law, as in Dream, which measures after its
    temperature and its cuts; `temperature(1)` then draws from it. A cut is made after bans and constraints. Promises
    about the model's own law do not hold under it. Default 1, with nothing cut: no change.
    """

    name: ClassVar[str] = "cooling"
    t: float = real(default=1.0, above=0)
    top_p: float = real(default=1.0, above=0, at_most=1, kw_only=True)
    top_k: int = integer(default=0, at_least=0, kw_only=True)
    min_p: float = real(default=0.0, at_least=0, below=1, kw_only=True)

    @property
    def law(self) -> Temperature:
        """What is measured, as a draw from the model's own conditional."""
        return Temperature(self.t, top_p=self.top_p, top_k=self.top_k, min_p=self.min_p)


class Tuned(Guide):
    """A guide that changes logits place by place before anything is measured; what is to change, the query says."""

    __slots__ = ()

    def divisor(self, age: Ints) -> Floats:
        """What the logits of rows are divided by, `[B]`; `age [B]` as `Batch.age`. Default: 1."""
        return np.ones(len(age), np.float32)

    @property
    def lowered(self) -> float:
        """How much is taken off the logit of the token on the left. Default: 0."""
        return 0.0


@final
@part
class Annealing(Tuned):
    """Everything is measured at a temperature that falls evenly from `start`, at first, towards `end`, after `steps`.

    In step i of a window, counted from 0, it is `end` + (`start` − `end`)(1 − i / `steps`), and `end` from step `steps`
    on; where no revision holds windows, i counts the row's steps. As under `cooling`, statistics and thresholds are
    those of the law at that temperature, from which `temperature(1)` then draws. Defaults are DiffusionGemma's
    (`LinearTemperatureScheduleLogitsProcessor` of transformers 5.23).
    """

    name: ClassVar[str] = "annealing"
    start: float = real(default=0.8, above=0)
    end: float = real(default=0.4, above=0, kw_only=True)
    steps: int = integer(default=48, at_least=1, kw_only=True)

    def divisor(self, age: Ints) -> Floats:
        """The temperature."""
        left = np.maximum(1 - age.astype(np.float64) / self.steps, 0)
        return (self.end + (self.start - self.end) * left).astype(np.float32)


@final
@part
class Repetition(Tuned):
    """The logit of the token that stands on the left is lowered by `penalty`, so that tokens are repeated less.

    LLaDA2.1's `penalty_lambda` (SGLang's `JointThreshold`), with which `edit` takes repetitions back: of a model in
    blocks the first place of each has no left. Blanks repeat nothing. Unit: nats. Default 1; none is published.
    """

    name: ClassVar[str] = "repetition"
    penalty: float = real(default=1.0, at_least=0)

    @property
    def lowered(self) -> float:
        """`penalty`."""
        return self.penalty


@final
@part
class Credit(Guide):
    """A token that was its position's best in earlier passes gains `weight` · ln(1 + credit) on its logit.

    In every pass the best token of each position on offer earns its probability to the power `power`, this pass
    included; `decay` is what a pass leaves of the credit before it. So a token that keeps being the best goes sooner.
    Probabilities that earn are those without credit, after bans (CreditDecoding, arXiv 2510.06133; defaults as in
    dInfer's code). A row remembers a few tokens a position. Promises about the model's own law do not hold under it.
    """

    name: ClassVar[str] = "credit"
    weight: float = real(default=0.7, at_least=0)
    power: float = real(default=0.2, at_least=0, kw_only=True)
    decay: float = real(default=0.8, at_least=0, at_most=1, kw_only=True)

    @property
    def needs(self) -> tuple[Evidence, ...]:
        """What a row has earned so far."""
        return (CreditLeft(),)

    def credits(self, offered: Bools, before: Sequence[Mapping[Evidence, Any]]) -> Credits:
        """What the rows have earned in earlier passes; it counts where blanks are on offer."""
        rows: list[Credits] = [row.get(CreditLeft(), Credits.none(1)) for row in before]
        return attrs.evolve(Credits.joined(rows, offered.shape[1]), here=offered)

    def earned(self, before: Credits, best: Ints, log_probability: Floats) -> Credits:
        """The credit after a pass in which `best [B, L]` were the best tokens, with these log-probabilities."""
        free = np.full((*best.shape, 1), -1, np.int32)
        token = np.concatenate([before.token, free], 2)
        amount = np.concatenate([before.amount * np.float32(self.decay), np.zeros(free.shape, np.float32)], 2)
        row, position = np.nonzero(before.here)
        own = token[row, position] == best[row, position, None]
        # a token without credit yet takes the first free column
        free_column: Longs = (token[row, position] < 0).argmax(1)
        column = np.where(any_in_row(own), own.argmax(1).astype(np.int64), free_column)
        at = (row, position, column)
        token[at] = best[row, position]
        amount[at] += np.exp(np.float32(self.power) * log_probability[row, position])
        return Credits(before.here, token, amount)

    def added(self, credits: Credits, rows: Ints, positions: Ints) -> tuple[Ints, Floats]:
        """Tokens and what their scores gain at N places, `[N, K]` both; a column without a token gains nothing."""
        token = np.maximum(credits.token[rows, positions], 0)
        gain = np.float32(self.weight) * np.log1p(credits.amount[rows, positions])
        return token, np.where(credits.here[rows, positions][:, None], gain, np.float32(0))


def cooled_law(guide: Guide) -> Temperature | None:
    """The law that is measured in place of the conditional; `None`: the conditional itself."""
    return guide.law if isinstance(guide, Cooling) else None

"""Guide: how are the logits changed before anything is measured? Data only; the backend obeys it."""

from __future__ import annotations

from typing import ClassVar, final

from mdsample.policy.base import Part, Seat
from mdsample.policy.draw import Temperature
from mdsample.policy.settings import integer, part, real


class Guide(Part):
    """How logits are changed. Backends know the final classes below and refuse others."""

    __slots__ = ()
    seat: ClassVar[Seat] = "guide"
    #: forward passes that one prediction takes
    passes: ClassVar[int] = 1


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


def cooled_law(guide: Guide) -> Temperature | None:
    """The law that is measured in place of the conditional; `None`: the conditional itself."""
    return guide.law if isinstance(guide, Cooling) else None

"""Guide: how are the logits changed before anything is measured? Data only; the backend obeys it."""

from __future__ import annotations

from typing import ClassVar, final

from mdsample.policy.base import Part, Seat
from mdsample.policy.settings import part, real


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

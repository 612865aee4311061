"""Draw: how is a token drawn from the conditional of a chosen position? Data only; the backend obeys it."""

from __future__ import annotations

from typing import ClassVar, final

from mdsample.policy.base import Part, Seat
from mdsample.policy.settings import integer, part, real


class Draw(Part):
    """How a token is drawn. Backends know the final classes below and refuse others."""

    __slots__ = ()
    seat: ClassVar[Seat] = "draw"


@final
@part
class Greedy(Draw):
    """The most probable token, the lowest id among equals (LLaDA, Dream, Fast-dLLM at their default, temperature 0)."""

    name: ClassVar[str] = "greedy"


@final
@part
class Temperature(Draw):
    """A draw from softmax(logits / `t`), by inverse CDF with one uniform per position.

    `top_k` keeps the k most probable tokens, `min_p` those with at least that share of the highest probability,
    `top_p` the smallest set whose probability reaches it (the token that crosses it is kept). They apply in this
    order, each to the tempered and renormalised distribution the one before left. 0, 0 and 1 are off. What is measured
    stays at temperature 1: only `temperature(1)` samples the model's own law.
    """

    name: ClassVar[str] = "temperature"
    t: float = real(default=1.0, above=0)
    top_p: float = real(default=1.0, above=0, at_most=1, kw_only=True)
    top_k: int = integer(default=0, at_least=0, kw_only=True)
    min_p: float = real(default=0.0, at_least=0, below=1, kw_only=True)

"""Methods: how the probability of a text is taken, of which a masked model has no single way."""

from __future__ import annotations

from typing import final

import attrs

from mdsample.errors import ScoreError, shown
from mdsample.policy.base import Policy
from mdsample.policy.order import LeftToRight, Order
from mdsample.sampling.arguments import as_seed


def _check_order(_: object, attribute: attrs.Attribute[Order], order: Order) -> None:
    if not isinstance(order, Order):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"the chain rule takes an order, such as LeftToRight(); got {shown(order)}")
    if any(evidence.passes for evidence in order.needs):
        raise ScoreError(f"{order.name} tries places in further passes, and scores try none; take another order")


def _check_samples(_: object, attribute: attrs.Attribute[int], samples: int) -> None:
    if isinstance(samples, bool) or not hasattr(samples, "__index__") or samples < 2:
        raise ScoreError(f"the bound takes a whole number of samples, at least 2; got {shown(samples)}")


@final
@attrs.frozen
class ChainRule:
    """Σ log p(token | the tokens before it in `order`, the rest of the slot masked): n passes for a slot of n.

    Where the model's conditionals belong to one joint distribution every order gives the same, the joint's. An order
    that looks at the model's statistics (`Entropy()`, `Margin()`, …) takes the place that it likes best next, and the
    candidate's token there, whatever its probability. `seed`: of orders that draw.
    """

    order: Order = attrs.field(factory=LeftToRight, validator=_check_order)
    seed: int = attrs.field(default=0, kw_only=True, converter=as_seed)

    def __str__(self) -> str:
        """For people and records."""
        return f"chain rule, {Policy.of(self.order)}"


@final
@attrs.frozen
class MarginalProduct:
    """Σ log p(token | all of the slot masked): one pass for all candidates of a row; as if places were independent."""

    def __str__(self) -> str:
        """For people and records."""
        return "product of marginals"


@final
@attrs.frozen
class MonteCarloBound:
    """LLaDA's bound (arXiv 2502.09992, section 2.1 and appendix B.5): −E[n/l · Σ over the masked log p], a lower bound.

    l is uniform over 1 … n, and l places of the n are masked: the variant with a stated number of masks, which the
    paper's evaluation takes because it varies less. l is stratified over the `samples`, and every candidate of a row
    sees the same masks, so differences between candidates vary less than each does. Its mean is that of the chain rule
    over all orders: by Jensen's inequality a lower bound on the log-probability under a random order.
    """

    samples: int = attrs.field(default=128, validator=_check_samples)
    seed: int = attrs.field(default=0, kw_only=True, converter=as_seed)

    def __str__(self) -> str:
        """For people and records."""
        return f"Monte Carlo bound, {self.samples} samples"


#: how a text's probability is taken
Method = ChainRule | MarginalProduct | MonteCarloBound

"""Calibrate: the cheapest setting of a policy that keeps a stated loss, on a model and a sample of one's own.

Settings are tried from the safest to the boldest, and trying ends at the first that cannot be shown to keep the loss:
its upper confidence limit lies above what is allowed. Tested in a fixed order like this, the chance that a setting
with a larger loss is chosen is at most 1 − confidence however many are tried (fixed-sequence testing, as in *Learn then
Test*, arXiv 2110.01052). Limits of shares are exact for any number of problems (Clopper and Pearson), the limit of a
mean error bound is the normal one. The sample must be like what the policy is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Literal

import attrs
import numpy as np

from mdsample.errors import BenchError, PolicyError, SpecError
from mdsample.evaluation.answers import Answered
from mdsample.evaluation.bench import Runs
from mdsample.evaluation.intervals import Interval, mean
from mdsample.policy.base import SEATS, Part, Policy
from mdsample.policy.catalog import PARTS
from mdsample.policy.parsing import parse
from mdsample.policy.settings import Domain, domains
from mdsample.sampling.state import State

#: what stands in policy text for the setting to be found
HOLE = "?"
Kind = Literal["accuracy", "agreement", "error-bound", "total-variation"]


@attrs.frozen
class Loss:
    """What may be lost, and how sure one wants to be."""

    #: `accuracy`: share of problems solved, less than the reference; `agreement`: share of answers that differ from the
    #: reference's; `error-bound`: mean error bound of a row, nats; `total-variation`: mean `tv_bound` of a row
    kind: Kind
    at_most: float = attrs.field(validator=attrs.validators.ge(0))
    confidence: float = attrs.field(default=0.95, validator=[attrs.validators.ge(0.5), attrs.validators.lt(1)])


@attrs.frozen
class Trial:
    """A setting, what it costs and what it loses."""

    value: float
    policy: Policy
    nfe: Interval
    #: as measured, and its upper confidence limit
    loss: float
    limit: float
    kept: bool


def settings(text: str, values: Sequence[float] | None = None) -> list[tuple[float, Policy]]:
    """The policies that `text` means with each of `values` in the place of its `?`; safest first.

    By default those that the setting lists itself, from safe to bold (`values=` in `mdsample.policy.settings`). Raises
    `BenchError`, and `SpecError` for a setting that the part does not take.
    """
    if text.count(HOLE) != 1:
        raise BenchError(f"write the number to be found as ?, once, as in med(?); got {text!r}")
    chosen = values if values is not None else _values(text)
    if not chosen:
        raise BenchError("there are no settings to try")
    return [(value, parse(text.replace(HOLE, _digits(value)))) for value in chosen]


def _digits(value: float) -> str:
    """A number in as many digits as tell it from all others."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _values(text: str) -> tuple[float, ...]:
    """What the setting that is the `?` lists in its domain; it is the one that two numbers make different."""
    pairs: list[tuple[Part, ...]] = []
    for guess in (0.5, 0.25, 2, 3):
        try:
            pairs.append(parse(text.replace(HOLE, f"{guess:g}")).parts)
        except (SpecError, PolicyError, ValueError):
            continue
    if len(pairs) < 2:
        parse(text.replace(HOLE, "1"))  # says what is wrong with the rest of the text
    changed = [
        domain
        for left, right in (zip(pairs[0], pairs[-1], strict=True) if pairs else ())
        for name, domain in domains(type(left)).items()
        if getattr(left, name) != getattr(right, name)
    ]
    match changed:
        case [Domain(values=values)] if values:
            return values
        case _:
            raise BenchError(
                f"no settings are known for the ? of {text!r} (known: {', '.join(_known())}); "
                "give them, safest first (--values 0.1,0.2)"
            )


def _known() -> list[str]:
    """Built-in parts with values to try, by seat; thresholds before counts."""
    kinds = {
        part: next((d.kind for d in domains(part).values() if d and d.kind != "choice" and d.values), None)
        for part in PARTS.values()
    }
    known = [(SEATS.index(part.seat), kind, part) for part, kind in kinds.items() if kind]
    return [part.name for *_, part in sorted(known, key=lambda line: line[:2])]


def calibrate(
    runs: Runs,
    reference: Policy,
    tried: Sequence[tuple[float, Policy]],
    loss: Loss,
    watch: Callable[[Policy, int], None] | None = None,
    on_step: Callable[[State], None] | None = None,
) -> Iterator[Trial]:
    """Runs the reference, then each setting in order, up to and including the first that does not keep the loss.

    The last one yielded with `kept` is the answer. Every policy is checked before the first forward pass. `watch` and
    `on_step` as in `bench`.
    """
    begun = [(policy, *runs.begin(policy)) for policy in (reference, *(policy for _, policy in tried))]

    def trials() -> Iterator[Trial]:
        base = runs.run(*begun[0], watch, on_step)
        for (value, policy), job in zip(tried, begun[1:], strict=True):
            rows = runs.run(*job, watch, on_step)
            measured, limit = _loss(loss, rows, base)
            kept = limit <= loss.at_most
            yield Trial(value, policy, mean([answered.nfe for answered in rows]), measured, limit, kept)
            if not kept:
                return

    return trials()


def _loss(loss: Loss, rows: Sequence[Answered], base: Sequence[Answered]) -> tuple[float, float]:
    """As measured, and its one-sided upper limit."""
    pairs = list(zip(rows, base, strict=True))
    if loss.kind == "agreement":
        differing = sum(row.answer != reference.answer for row, reference in pairs)
        return differing / len(pairs), exact_limit(differing, len(pairs), loss.confidence)
    if loss.kind in ("error-bound", "total-variation"):
        bounds = np.array([row.error_bound if loss.kind == "error-bound" else row.tv_bound for row in rows])
        if not np.isfinite(bounds).all():
            return math.inf, math.inf
        standard_error = float(bounds.std(ddof=1)) / math.sqrt(len(bounds)) if len(bounds) > 1 else math.inf
        return float(bounds.mean()), float(bounds.mean()) + NormalDist().inv_cdf(loss.confidence) * standard_error
    lost = sum(reference.solved and not row.solved for row, reference in pairs)
    gained = sum(row.solved and not reference.solved for row, reference in pairs)
    # two exact limits, each at half the risk, so that both hold
    half = (1 + loss.confidence) / 2
    most_lost, least_gained = (
        exact_limit(lost, len(pairs), half),
        1 - exact_limit(len(pairs) - gained, len(pairs), half),
    )
    return (lost - gained) / len(pairs), most_lost - least_gained


def exact_limit(events: int, trials: int, confidence: float) -> float:
    """Clopper and Pearson's upper limit of a proportion: with it, so few events have probability 1 − confidence."""
    if events >= trials:
        return 1.0
    k = np.arange(events + 1)
    choose = np.array([math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1) for i in k.tolist()])
    low, high = events / trials, 1.0
    for _ in range(60):
        p = (low + high) / 2
        chance = float(np.exp(choose + k * math.log(p) + (trials - k) * math.log1p(-p)).sum()) if 0 < p < 1 else 1.0 - p
        low, high = (p, high) if chance > 1 - confidence else (low, p)
    return high

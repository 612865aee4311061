"""An independent law: plain recursion over a joint given as a dict, written from the definitions alone.

It shares no code with `mdsample.sampling.sampler` or `mdsample.exact`. A row is a tuple with `None` for a blank. Draws
are at temperature 1. Statistics are rounded to float32 before anything is compared, as the library's are.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = tuple[int | None, ...]


@dataclass(frozen=True)
class Place:
    """What the model says of one blank."""

    position: int
    p: list[float]

    @property
    def entropy(self) -> float:
        return -sum(q * math.log(q) for q in self.p if q > 0)

    @property
    def h(self) -> np.float32:
        return np.float32(self.entropy)

    @property
    def log_c(self) -> np.float32:
        return np.float32(math.log(max(self.p)))

    @property
    def c(self) -> np.float32:
        return np.exp(self.log_c)

    @property
    def margin(self) -> np.float32:
        second = sorted(self.p)[-2]
        return self.c - (np.exp(np.float32(math.log(second))) if second > 0 else np.float32(0))


#: positions on offer, given the row and the open positions
Window = Callable[[Row], list[int]]
#: rank (lower first) of a place
Order = Callable[[Place], Any]


#: Σ b and Σ d of the steps so far
Spent = tuple[float, float]

#: what was on offer in each look so far, and what the model said of it
Looks = tuple[dict[int, list[float]], ...]


@dataclass(frozen=True)
class Past:
    """What a selection may know besides the places: steps taken, blanks left and at first, Σb and Σd so far, looks."""

    step: int
    blanks: int
    open: int
    spent: Spent
    looks: Looks


#: probability of each count, given places in order
Selection = Callable[[list[Place], Past], dict[int, float]]


@dataclass(frozen=True)
class Brute:
    joint: dict[tuple[int, ...], float]
    size: int
    window: Window
    order: Order | Lookahead
    selection: Selection
    noise: float = 0.0

    def places(self, row: Row) -> list[Place]:
        agreeing = [
            (x, p) for x, p in self.joint.items() if all(a is None or a == b for a, b in zip(row, x, strict=True))
        ]
        total = sum(p for _, p in agreeing)
        found = []
        for i in range(len(row)):
            weight = [sum(p for x, p in agreeing if x[i] == v) for v in range(self.size)]
            found.append(Place(i, [w / total if total > 0 else 1 / self.size for w in weight]))
        return found

    def orderings(self, row: Row, offered: list[Place], past: Past) -> Iterator[tuple[float, list[Place]]]:
        """Every ranking with its probability; what the selection wants first is ranked before the rest."""
        ready = self.selection.ready(offered, past) if isinstance(self.selection, Stable) else []
        order = self.order
        if isinstance(order, Lookahead):
            scores = order.scores(self, row, offered)
            order = lambda place: scores[place.position]  # noqa: E731
        for chance, front in self.ranked(ready, order):
            for other, back in self.ranked([place for place in offered if place not in ready], order):
                yield chance * other, front + back

    def ranked(self, offered: list[Place], order: Order) -> Iterator[tuple[float, list[Place]]]:
        if not self.noise:
            yield 1.0, sorted(offered, key=lambda place: (order(place), place.position))
            return
        for ordering in itertools.permutations(offered):
            chance, left = 1.0, list(ordering)
            for place in ordering:  # Plackett-Luce, one place after another
                scores = [math.exp(-(float(order(q)) - float(order(place))) / self.noise) for q in left]
                chance /= sum(scores)
                left.remove(place)
            yield chance, list(ordering)

    def predict(self, row: Row) -> dict[int, list[float]]:
        places = self.places(row)
        return {i: places[i].p for i in self.window(row)}

    def sets(self, row: Row, spent: Spent, looks: Looks) -> Iterator[tuple[float, list[Place]]]:
        """Every set that may be committed, with its probability (the same set may come several times)."""
        offered = [Place(i, p) for i, p in looks[-1].items()]
        past = Past(len(looks) - 1, sum(token is None for token in row), len(row), spent, looks)
        for chance, ordering in self.orderings(row, offered, past):
            for count, probability in self.selection(ordering, past).items():
                yield chance * probability, ordering[: max(1, min(count, len(ordering)))]

    def run(self, row: Row) -> tuple[dict[Row, float], float, float]:
        """The law of the final row, the expected NFE, and E Σ d over the sampler's own visits."""
        law: dict[Row, float] = defaultdict(float)
        totals = [0.0, 0.0]

        def go(row: Row, looks: Looks, weight: float, spent: Spent) -> None:
            if None not in row:
                law[row] += weight
                return
            looks = (*looks, self.predict(row))
            tried = min(self.order.k, len(looks[-1])) if isinstance(self.order, Lookahead) else 0
            totals[0] += weight * (1 + tried * (tried > 1))
            for chance, chosen in self.sets(row, spent, looks):
                totals[1] += weight * chance * tv_bound([place.p for place in chosen])
                for tokens in itertools.product(range(self.size), repeat=len(chosen)):
                    drawn = math.prod(place.p[token] for place, token in zip(chosen, tokens, strict=True))
                    if drawn > 0:
                        after = filled(row, chosen, tokens)
                        go(after, looks, weight * chance * drawn, paid(spent, chosen))

        go(row, (), 1.0, (0.0, 0.0))
        return law, totals[0], totals[1]

    def dealt(self, row: Row) -> float:
        """E Σ b when the tokens are dealt from the joint: x is drawn first, the policy only decides what is shown."""

        def go(row: Row, x: tuple[int, ...], looks: Looks, weight: float, spent: Spent) -> float:
            if None not in row:
                return 0.0
            total = 0.0
            looks = (*looks, self.predict(row))
            for chance, chosen in self.sets(row, spent, looks):
                after = filled(row, chosen, [x[place.position] for place in chosen])
                total += weight * chance * bound(chosen)
                total += go(after, x, looks, weight * chance, paid(spent, chosen))
            return total

        return sum(go(row, x, (), p, (0.0, 0.0)) for x, p in self.joint.items() if p > 0)


def bound(chosen: list[Place]) -> float:
    entropies = [place.entropy for place in chosen]
    return sum(entropies) - max(entropies)


def tv_bound(marginals: list[list[float]]) -> float:
    """No joint with these marginals is further from their product."""
    entropies = [-sum(q * math.log(q) for q in p if q > 0) for p in marginals]
    return coupled([max(p) for p in marginals], sum(entropies) - max(entropies))


def coupled(c: list[float], b: float) -> float:
    c = sorted(c)
    wrong = sum(1 - x for x in c)
    given_the_least_certain = 1 - math.prod(c[1:]) * max(0.0, 1 - (wrong - (1 - c[0])))
    return min(1.0, math.sqrt(max(b, 0.0) / 2), given_the_least_certain, *([1 - math.prod(c)] if wrong <= 1 else []))


def rounded_bound(chosen: list[Place]) -> float:
    entropies = [float(place.h) for place in chosen]
    return sum(entropies) - max(entropies)


def rounded_tv_bound(chosen: list[Place]) -> float:
    return coupled([float(place.c) for place in chosen], rounded_bound(chosen))


def paid(spent: Spent, chosen: list[Place]) -> Spent:
    return spent[0] + rounded_bound(chosen), spent[1] + rounded_tv_bound(chosen)


def filled(row: Row, chosen: list[Place], tokens: object) -> Row:
    after = list(row)
    for place, token in zip(chosen, tokens, strict=True):  # type: ignore[call-overload]
        after[place.position] = token
    return tuple(after)


def whole(row: Row) -> list[int]:
    return [i for i, token in enumerate(row) if token is None]


def blocks(size: int) -> Window:
    def offered(row: Row) -> list[int]:
        blanks = whole(row)
        return [i for i in blanks if i // size == blanks[0] // size]

    return offered


def dilated(size: int, base: int) -> Window:
    def round_of(position: int) -> int:
        t = 1
        while position % size % max(1, size // base**t):
            t += 1
        return t

    def offered(row: Row) -> list[int]:
        first = blocks(size)(row)
        return [i for i in first if round_of(i) == min(map(round_of, first))]

    return offered


ORDERS: dict[str, Order] = {
    "confidence": lambda place: -place.log_c,
    "margin": lambda place: -place.margin,
    "entropy": lambda place: place.h,
    "position-biased": lambda place: 0.4 * place.position - float(place.log_c),
    "left-to-right": lambda place: place.position,
    "right-to-left": lambda place: -place.position,
    "random": lambda place: 0.0,
    # with noise the confidence is the probability itself
    "noisy-confidence": lambda place: -place.c,
}


def longest(passes: Callable[[list[Place]], bool], k: int | None = None) -> Selection:
    """The longest prefix all of whose prefixes pass."""

    def count(ordering: list[Place], past: Past) -> dict[int, float]:
        n = 0
        while n < len(ordering) and passes(ordering[: n + 1]):
            n += 1
        return {n if k is None else min(n, k): 1.0}

    return count


def top(k: int) -> Selection:
    return lambda ordering, past: {k: 1.0}


def below_entropy(limit: float, k: int | None = None) -> Selection:
    return longest(lambda s: all(place.h < limit for place in s), k)


def entropy_bound(limit: float) -> Selection:
    return longest(lambda s: rounded_bound(s) <= limit)


def error_budget(total: float) -> Selection:
    def count(ordering: list[Place], past: Past) -> dict[int, float]:
        def within(s: list[Place]) -> bool:
            return past.spent[0] + rounded_bound(s) <= total * (past.open - past.blanks + len(s)) / past.open

        return longest(within)(ordering, past)

    return count


def tv_budget(total: float) -> Selection:
    def count(ordering: list[Place], past: Past) -> dict[int, float]:
        def within(s: list[Place]) -> bool:
            return rounded_tv_bound(s) <= (total - past.spent[1]) * math.sqrt(len(s) / past.blanks)

        return longest(within)(ordering, past)

    return count


def above_confidence(limit: float) -> Selection:
    return longest(lambda s: all(place.c >= limit for place in s))


def cumulative_confidence(limit: float) -> Selection:
    return longest(lambda s: math.prod(float(place.c) for place in s) >= limit)


def factor(limit: float) -> Selection:
    return longest(lambda s: (len(s) + 1) * (1 - min(float(place.c) for place in s)) < limit)


def frechet(limit: float) -> Selection:
    def passes(s: list[Place]) -> bool:
        c = [float(place.c) for place in s]
        return sum(c) - (len(c) - 1) - (1 - min(c)) > limit

    return longest(passes)


def steps(n: int) -> Selection:
    def count(ordering: list[Place], past: Past) -> dict[int, float]:
        share = max(1, max(1, n - past.step) * len(ordering) // past.blanks)
        return {math.ceil(len(ordering) / share): 1.0}

    return count


def linear_time(n: int) -> Selection:
    def count(ordering: list[Place], past: Past) -> dict[int, float]:
        p, m = 1 / max(1, n - past.step), len(ordering)
        return {k: math.comb(m, k) * p**k * (1 - p) ** (m - k) for k in range(m + 1)}

    return count


@dataclass(frozen=True)
class Stable:
    """All that are confident and stood still, which is also what comes first."""

    probability: float
    shift: float
    looks: int

    def __call__(self, ordering: list[Place], past: Past) -> dict[int, float]:
        return {len(self.ready(ordering, past)): 1.0}

    def ready(self, offered: list[Place], past: Past) -> list[Place]:
        return [place for place in offered if place.c >= self.probability and self.still(place.position, past.looks)]

    def still(self, position: int, looks: Looks) -> bool:
        if len(looks) <= self.looks or any(position not in prediction for prediction in looks[-self.looks - 1 :]):
            return False
        steps = itertools.pairwise(prediction[position] for prediction in looks[-self.looks - 1 :])
        return all(np.float32(divergence(now, before)) < self.shift for before, now in steps)


def divergence(p: list[float], q: list[float]) -> float:
    if any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
        return math.inf
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@dataclass(frozen=True)
class Lookahead:
    """Each of the k most certain places is filled with its best token to see how uncertain the rest is then."""

    k: int
    own: float

    def scores(self, brute: Brute, row: Row, offered: list[Place]) -> dict[int, tuple[bool, float]]:
        pool = sorted(offered, key=lambda place: (place.h, place.position))[: self.k]
        scores = {place.position: (True, float(place.h)) for place in offered}
        for place in pool if len(pool) > 1 else []:
            after = filled(row, [place], [place.p.index(max(place.p))])
            rest = [float(other.h) for other in brute.places(after) if after[other.position] is None]
            scores[place.position] = (False, self.own * float(place.h) + sum(rest) / len(rest))
        return scores

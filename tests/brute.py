"""An independent law: plain recursion over a joint given as a dict, written from the definitions alone.

It shares no code with `mdsample.sampler` or `mdsample.exact`. A row is a tuple with `None` for a blank. Draws are at
temperature 1. Statistics are rounded to float32 before anything is compared, as the library's are.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
Order = Callable[[Place], float]


@dataclass(frozen=True)
class Past:
    """What a selection may know besides the places: steps taken, blanks left and at first, nats spent."""

    step: int
    blanks: int
    open: int
    spent: float


#: probability of each count, given places in order
Selection = Callable[[list[Place], Past], dict[int, float]]


@dataclass(frozen=True)
class Brute:
    joint: dict[tuple[int, ...], float]
    size: int
    window: Window
    order: Order
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

    def orderings(self, offered: list[Place]) -> Iterator[tuple[float, list[Place]]]:
        if not self.noise:
            yield 1.0, sorted(offered, key=lambda place: (self.order(place), place.position))
            return
        for ordering in itertools.permutations(offered):
            chance, left = 1.0, list(ordering)
            for place in ordering:  # Plackett-Luce, one place after another
                scores = [math.exp(-(float(self.order(q)) - float(self.order(place))) / self.noise) for q in left]
                chance /= sum(scores)
                left.remove(place)
            yield chance, list(ordering)

    def sets(self, row: Row, step: int, spent: float = 0.0) -> Iterator[tuple[float, list[Place]]]:
        """Every set that may be committed, with its probability (the same set may come several times)."""
        places = self.places(row)
        offered = [places[i] for i in self.window(row)]
        past = Past(step, sum(token is None for token in row), len(row), spent)
        for chance, ordering in self.orderings(offered):
            for count, probability in self.selection(ordering, past).items():
                yield chance * probability, ordering[: max(1, min(count, len(ordering)))]

    def run(self, row: Row) -> tuple[dict[Row, float], float, float]:
        """The law of the final row, the expected NFE, and E Σ √(b/2) over the sampler's own visits."""
        law: dict[Row, float] = defaultdict(float)
        totals = [0.0, 0.0]

        def go(row: Row, step: int, weight: float, spent: float) -> None:
            if None not in row:
                law[row] += weight
                return
            totals[0] += weight
            for chance, chosen in self.sets(row, step, spent):
                totals[1] += weight * chance * math.sqrt(bound(chosen) / 2)
                for tokens in itertools.product(range(self.size), repeat=len(chosen)):
                    drawn = math.prod(place.p[token] for place, token in zip(chosen, tokens, strict=True))
                    if drawn > 0:
                        after = filled(row, chosen, tokens)
                        go(after, step + 1, weight * chance * drawn, spent + rounded_bound(chosen))

        go(row, 0, 1.0, 0.0)
        return law, totals[0], totals[1]

    def dealt(self, row: Row) -> float:
        """E Σ b when the tokens are dealt from the joint: x is drawn first, the policy only decides what is shown."""

        def go(row: Row, x: tuple[int, ...], step: int, weight: float, spent: float) -> float:
            if None not in row:
                return 0.0
            total = 0.0
            for chance, chosen in self.sets(row, step, spent):
                after = filled(row, chosen, [x[place.position] for place in chosen])
                total += weight * chance * bound(chosen)
                total += go(after, x, step + 1, weight * chance, spent + rounded_bound(chosen))
            return total

        return sum(go(row, x, 0, p, 0.0) for x, p in self.joint.items() if p > 0)


def bound(chosen: list[Place]) -> float:
    entropies = [place.entropy for place in chosen]
    return sum(entropies) - max(entropies)


def rounded_bound(chosen: list[Place]) -> float:
    entropies = [float(place.h) for place in chosen]
    return sum(entropies) - max(entropies)


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
        def paid(s: list[Place]) -> bool:
            return past.spent + rounded_bound(s) <= total * (past.open - past.blanks + len(s)) / past.open

        return longest(paid)(ordering, past)

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

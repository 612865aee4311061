"""MED, EB, Fast-dLLM's threshold and factor, Fréchet and plain counts, at equal expected NFE, by exact laws.

    python benchmarks/exact_study.py

Writes docs/data/exact_frontier.jsonl and docs/pictures/exact_frontier.{png,svg}, and prints the tables of
docs/exact-study.md. Every law is exact; only the joints and the bootstrap are drawn, from fixed seeds. About two
minutes on one core.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import matplotlib as mpl  # noqa: TID251
import numpy as np
from matplotlib.figure import Figure  # noqa: TID251

from mdsample.exact import RULES, TOYS, Point, Toy, at_equal_nfe, coupled, frontier, hull

DOCS = Path(__file__).parents[1] / "docs"
NAMES = [rule.name for rule in RULES]
#: (length, tokens, joints per strength): 200 joints in all
SIZES = ((5, 3, 15), (5, 4, 5), (6, 3, 5))
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
#: where rules are compared, from everything at once (0) to one at a time (1)
SHARES = np.linspace(0.05, 0.95, 19)
#: settings per rule. Measured: with 400, means over every 14th joint change by less than 0.2 mnat; with 256, the KL of
#: mixture and markov at the middle NFE by less than 0.1
VALUES, VALUES_OF_TOYS = 32, 128
#: rules within this of the best count as best, nats
TIE = 1e-6

# Okabe and Ito's colours, which the colour-blind can tell apart; line and marker differ too
LOOKS = dict(
    zip(
        NAMES,
        (
            ("#D55E00", "-", "o"),
            ("#0072B2", "-", "s"),
            ("#009E73", "--", "^"),
            ("#CC79A7", "--", "D"),
            ("#E69F00", "--", "v"),
            ("#56B4E9", ":", "P"),
            ("#000000", ":", "X"),
        ),
        strict=True,
    )
)


def joints() -> list[tuple[float, Toy]]:
    return [
        (strength, coupled(strength, seed=1000 * length + 100 * size + seed, length=length, size=size))
        for length, size, count in SIZES
        for strength in STRENGTHS
        for seed in range(count)
    ]


def points_of(toy: Toy, blanks: int, values: int) -> list[Point]:
    # sets of places in random order are too many on the larger toys
    rules = RULES if blanks <= 6 else [rule for rule in RULES if rule.name != "random-k"]
    return frontier(toy, rules=rules, values=values)


def bootstrap(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over joints and its 95 % interval."""
    draw = np.random.default_rng(0).integers(0, len(values), (4000, len(values)))
    low, high = np.quantile(values[draw].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def on_hull(points: list[Point]) -> list[Point]:
    kept: list[Point] = []
    for name in NAMES:
        curve = [point for point in points if point.rule == name]
        x, y = hull([point.expected_nfe for point in curve], [point.kl for point in curve])
        corners = set(zip(x.tolist(), y.tolist(), strict=True))
        seen: set[tuple[float, float]] = set()
        for point in curve:
            corner = (point.expected_nfe, point.kl)
            if corner in corners and corner not in seen:
                seen.add(corner)
                kept.append(point)
    return kept


def table(head: list[str], rows: list[list[str]]) -> None:
    width = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * w for w in width], *rows]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)) + " |")
    print()


def main() -> None:
    start = time.process_time()
    lines: list[str] = []

    def record(name: str, points: list[Point]) -> None:
        for p in on_hull(points):
            fields = {"toy": name, "rule": p.rule, "setting": p.setting, "nfe": p.expected_nfe, "kl": p.kl, "tv": p.tv}
            lines.append(json.dumps({k: round(v, 9) if isinstance(v, float) else v for k, v in fields.items()}))

    world = joints()
    curves = np.empty((len(world), len(NAMES), len(SHARES)))
    ends = np.empty(len(world))
    for i, (_, toy) in enumerate(world):
        points = points_of(toy, toy.length, VALUES)
        record(f"{toy.name} {toy.length}x{toy.size} #{i}", points)
        reached = at_equal_nfe(points, 1 + SHARES * (toy.length - 1))
        curves[i] = [reached[name] for name in NAMES]
        ends[i] = at_equal_nfe(points, [1])["top-k"][0]

    excess = curves - curves.min(1, keepdims=True)
    mean = excess.mean(2)
    best = (excess <= TIE).mean(2)
    alone = ((excess <= TIE) & ((excess <= TIE).sum(1, keepdims=True) == 1)).mean(2)
    print(f"{len(world)} random joints, {len(SHARES)} values of NFE each; total correlation {ends.mean():.3f} nats\n")
    rows = []
    for r, name in enumerate(NAMES):
        value, low, high = bootstrap(1000 * mean[:, r])
        rows.append(
            [
                name,
                f"{value:.1f}",
                f"[{low:.1f}, {high:.1f}]",
                f"{100 * best[:, r].mean():.0f} %",
                f"{100 * alone[:, r].mean():.0f} %",
            ]
        )
    table(["rule", "excess KL, mnat", "95 % interval", "best", "best alone"], rows)

    print("MED minus the other rule at equal NFE, mnat:\n")
    rows = []
    for r, name in enumerate(NAMES[1:], 1):
        value, low, high = bootstrap(1000 * (curves[:, 0] - curves[:, r]).mean(1))
        wins = (curves[:, 0] < curves[:, r] - TIE).mean()
        losses = (curves[:, 0] > curves[:, r] + TIE).mean()
        rows.append(
            [name, f"{value:+.1f}", f"[{low:+.1f}, {high:+.1f}]", f"{100 * wins:.0f} %", f"{100 * losses:.0f} %"]
        )
    table(["other rule", "MED minus it", "95 % interval", "MED better", "MED worse"], rows)

    print("Mean KL at a share of the way from all at once (0) to one at a time (1), mnat:\n")
    shares = (1, 4, 7, 9, 12, 15, 18)
    rows = [[name, *(f"{1000 * curves[:, r, s].mean():.1f}" for s in shares)] for r, name in enumerate(NAMES)]
    table(["rule", *(f"{SHARES[s]:.2f}" for s in shares)], rows)

    print("Excess KL over the best rule by strength of the coupling, mnat:\n")
    strengths = np.array([strength for strength, _ in world])
    by_strength = np.stack([1000 * mean[strengths == s].mean(0) for s in STRENGTHS])
    rows = [[name, *(f"{v:.1f}" for v in by_strength[:, r])] for r, name in enumerate(NAMES)]
    rows.append(["total correlation", *(f"{1000 * ends[strengths == s].mean():.0f}" for s in STRENGTHS)])
    table(["rule", *(f"{s:g}" for s in STRENGTHS)], rows)

    print("KL at the middle NFE, halfway between all at once and one at a time, mnat:\n")
    shown: dict[str, tuple[int, list[Point]]] = {}
    rows = []
    for name, factory in TOYS.items():
        toy = factory()
        blanks = int(toy.canvas().blank.sum())
        points = points_of(toy, blanks, VALUES_OF_TOYS)
        record(name, points)
        shown[name] = (blanks, points)
        reached = at_equal_nfe(points, [1, (1 + blanks) / 2])
        cells = [f"{1000 * abs(reached[r][1]):.1f}" if r in reached else "–" for r in NAMES]
        rows.append([name, f"{(1 + blanks) / 2:g}", *cells, f"{1000 * reached['top-k'][0]:.0f}"])
    table(["toy", "NFE", *NAMES, "at NFE 1"], rows)

    (DOCS / "data").mkdir(parents=True, exist_ok=True)
    (DOCS / "pictures").mkdir(parents=True, exist_ok=True)
    (DOCS / "data" / "exact_frontier.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    picture(curves, by_strength, shown)
    print(f"{time.process_time() - start:.0f} s of one core")


def picture(curves: np.ndarray, by_strength: np.ndarray, shown: dict[str, tuple[int, list[Point]]]) -> None:
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "exact"})
    figure = Figure(figsize=(11.5, 6.6), layout="constrained")
    grid = figure.subplots(2, 3)

    def line(axes, name: str, x, y, **more) -> None:
        colour, dash, marker = LOOKS[name]
        axes.plot(x, y, color=colour, ls=dash, marker=marker, ms=4, lw=1.4, label=name, **more)

    def chords(axes, name: str, x, y) -> None:
        # between two settings one can toss a coin: a straight line, which a root scale shows as a curve
        fine = np.unique(np.concatenate([np.linspace(x[0], x[-1], 200), x]))
        line(axes, name, fine, np.interp(fine, x, y), markevery=np.searchsorted(fine, x).tolist())

    axes = grid[0, 0]
    for r, name in enumerate(NAMES):
        line(axes, name, SHARES, curves[:, r].mean(0), markevery=3)
    axes.set(yscale="log", xlabel="share of the way from all at once to one at a time", ylabel="KL, nats")
    axes.set_title(f"{len(curves)} random joints, mean", loc="left")

    axes = grid[0, 1]
    for r, name in enumerate(NAMES):
        line(axes, name, STRENGTHS, by_strength[:, r])
    axes.set(xlabel="strength of the coupling", ylabel="KL above the best rule, mnat", ylim=(0, None))
    axes.set_title("the same, by coupling", loc="left")

    for axes, name in zip(grid.flat[2:], ("markov", "hmm", "mixture", "nae-sat"), strict=True):
        _, points = shown[name]
        for rule in NAMES:
            curve = [point for point in points if point.rule == rule]
            if curve:
                chords(axes, rule, *hull([p.expected_nfe for p in curve], [p.kl for p in curve]))
        # a root scale: errors near 0 can be told apart, and 0 itself can be shown
        axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
        axes.set(xlabel="expected NFE", ylabel="KL, nats (root scale)", ylim=(0, None))
        axes.set_title(name, loc="left")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(NAMES), frameon=False)
    figure.savefig(DOCS / "pictures" / "exact_frontier.png", dpi=160)
    figure.savefig(DOCS / "pictures" / "exact_frontier.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

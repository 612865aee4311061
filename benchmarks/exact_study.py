"""Every rule with a setting, at equal expected NFE, by exact laws.

    python benchmarks/exact_study.py [--write] [--draw]

Prints the tables of docs/exact-study.md. With `--write` it also writes docs/data/exact_frontier.jsonl and
docs/pictures/exact_frontier.{png,svg}. Every law is exact; only the joints and the bootstrap are drawn, from fixed
seeds. About six minutes on one core; with `--draw` a second, for the picture alone, from the corners that were written.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import numpy as np
from common import add_write, bootstrap, command_line, progress, resamples
from matplotlib.axes import Axes  # noqa: TID251
from matplotlib.figure import Figure  # noqa: TID251
from mdsample_cli.show.plot import GROUPS
from mdsample_cli.show.style import drawing, legend_below, look, save

from mdsample import Confidence, Entropy, LeftToRight, Margin, Random, Temperature, Top, Whole
from mdsample.exact import RULES, TOYS, Point, Toy, at_equal_nfe, coupled, frontier, hull, kl, law, settings, tv

DATA = Path(__file__).parents[1] / "docs" / "data" / "exact_frontier.jsonl"
PICTURE = DATA.parents[1] / "pictures" / "exact_frontier"
NAMES = list(dict.fromkeys(rule.name for rule in RULES))
#: (length, tokens, joints per strength): 120 joints in all
SIZES = ((5, 3, 9), (5, 4, 3), (6, 3, 3))
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
#: of these, per strength, joints of 5 positions of 3 tokens on which rules share one setting, and orders are swapped
SHARED, SWAPPED = 5, 3
#: where rules are compared, from everything at once (0) to one at a time (1)
SHARES = np.linspace(0.05, 0.95, 19)
#: settings per rule: of each joint, of each toy, for all joints at once, and where orders are swapped
VALUES, VALUES_OF_TOYS, VALUES_SHARED, VALUES_SWAPPED = 24, 128, 20, 12
#: rules within this of the best count as best, nats
TIE = 1e-6
#: toys in the picture
SHOWN = ("markov", "mixture", "nae-sat")
#: mean NFE at which rules with one setting for all joints are compared
BUDGETS = (2.0, 3.0, 4.0)

#: how each rule is drawn, in the panel of its group
LOOKS = {name: look(number) for group in GROUPS.values() for number, name in enumerate(group)}


def joints() -> list[tuple[float, Toy]]:
    return [
        (strength, coupled(strength, seed=1000 * length + 100 * size + seed, length=length, size=size))
        for length, size, count in SIZES
        for strength in STRENGTHS
        for seed in range(count)
    ]


def points_of(toy: Toy, values: int) -> list[Point]:
    """Points of all rules; each may also fill everything at once, which KLASS and lookahead never do by themselves."""
    blanks = int(toy.canvas().blank.sum())
    # sets of places in random order are too many on the larger toys
    points = frontier(toy, rules=[r for r in RULES if blanks <= 6 or r.name != "random-k"], values=values)
    policy = Whole() + Top(blanks) + Temperature(1.0)
    found = law(policy, toy)
    together = Point("", str(policy), found.expected_nfe, kl(toy, found), tv(toy, found))
    return points + [together._replace(rule=name) for name in dict.fromkeys(point.rule for point in points)]


def on_hull(points: Sequence[Point], of: str) -> list[Point]:
    """The corners of one rule's curve, by increasing NFE."""
    x, y = hull([point.expected_nfe for point in points], [getattr(point, of) for point in points])
    corners = {(point.expected_nfe, getattr(point, of)): point for point in reversed(points)}
    return [corners[corner] for corner in zip(x.tolist(), y.tolist(), strict=True)]


def short(policy: str) -> str:
    """A policy's order and selection, six digits."""
    text = policy.removeprefix("whole+").removesuffix("+temperature")
    return re.sub(r"\d*\.\d+(e-?\d+)?", lambda number: f"{float(number[0]):.6g}", text)


def table(head: list[str], rows: list[list[str]]) -> None:
    width = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * w for w in width], *rows]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)) + " |")
    print(flush=True)


def interval(values: np.ndarray, sign: str = "") -> list[str]:
    mean = bootstrap(values, draws=4000)
    return [f"{mean.value:{sign}.1f}", f"[{mean.low:{sign}.1f}, {mean.high:{sign}.1f}]"]


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--draw", action="store_true", help="the picture alone, from the corners that were written")
    add_write(parser, "docs/data/exact_frontier.jsonl and the picture")
    options = parser.parse_args()
    picture() if options.draw else study(options.write)


def study(write: bool) -> None:
    """Everything: laws, tables and, to `write`, corners and the picture."""
    start = time.process_time()
    lines: list[str] = []

    def record(name: str, points: list[Point]) -> None:
        for rule in dict.fromkeys(point.rule for point in points):
            curve = [point for point in points if point.rule == rule]
            corners = dict.fromkeys([*on_hull(curve, "kl"), *on_hull(curve, "tv")])
            found = [
                [short(p.policy), *(float(f"{x:.6g}") if x > 1e-12 else 0 for x in (p.expected_nfe, p.kl, p.tv))]
                for p in sorted(corners, key=lambda p: p.expected_nfe)
            ]
            lines.append(json.dumps({"toy": name, "rule": rule, "corners": found}, separators=(",", ":")))

    world = joints()
    curves = np.empty((2, len(world), len(NAMES), len(SHARES)))
    ends = np.empty((2, len(world)))
    steps = np.empty(len(world))
    for i, (_, toy) in enumerate(world):
        if i % 10 == 0:
            progress(f"laws of joint {i + 1} of {len(world)} …")
        points = points_of(toy, VALUES)
        record(f"{toy.name} {toy.length}x{toy.size} #{i}", points)
        for j, of in enumerate(("kl", "tv")):
            reached = at_equal_nfe(points, 1 + SHARES * (toy.length - 1), of)
            curves[j, i] = [reached[name] for name in NAMES]
            ends[j, i] = at_equal_nfe(points, [1], of)["top-k"][0]
        steps[i] = by_step(points, toy.length)

    measured = {"kl": curves[0], "tv": curves[1]}
    excess = {of: found - found.min(1, keepdims=True) for of, found in measured.items()}
    best = excess["kl"] <= TIE
    alone = best & (best.sum(1, keepdims=True) == 1)
    print(
        f"{len(world)} random joints, {len(SHARES)} values of NFE each; total correlation {ends[0].mean():.3f} nats, "
        f"TV of everything at once {ends[1].mean():.3f}\n"
    )
    rows = [
        [
            name,
            *interval(1000 * excess["kl"].mean(2)[:, r]),
            *interval(1000 * excess["tv"].mean(2)[:, r]),
            f"{100 * best[:, r].mean():.0f} %",
            f"{100 * alone[:, r].mean():.0f} %",
        ]
        for r, name in enumerate(NAMES)
    ]
    table(["rule", "excess KL, mnat", "95 %", "excess TV, ‰", "95 %", "best", "best alone"], rows)

    print("MED minus the other rule at equal NFE, mnat and ‰:\n")
    rows = []
    for r, name in enumerate(NAMES[1:], 1):
        gap = {of: found[:, 0] - found[:, r] for of, found in measured.items()}
        wins, losses = (gap["kl"] < -TIE).mean(), (gap["kl"] > TIE).mean()
        cells = [*interval(1000 * gap["kl"].mean(1), "+"), *interval(1000 * gap["tv"].mean(1), "+")]
        rows.append([name, *cells, f"{100 * wins:.0f} %", f"{100 * losses:.0f} %"])
    table(["other rule", "MED minus it, KL", "95 %", "MED minus it, TV", "95 %", "MED better", "MED worse"], rows)

    shares = (1, 4, 7, 9, 12, 15, 18)
    for of, unit in (("kl", "KL, mnat"), ("tv", "TV, ‰")):
        print(f"Mean {unit}, at a share of the way from all at once (0) to one at a time (1):\n")
        found = 1000 * measured[of].mean(0)
        table(
            ["rule", *(f"{SHARES[s]:.2f}" for s in shares)],
            [[name, *(f"{found[r, s]:.1f}" for s in shares)] for r, name in enumerate(NAMES)],
        )

    print("Excess KL over the best rule by strength of the coupling, mnat:\n")
    strengths = np.array([strength for strength, _ in world])
    by_strength = np.stack([1000 * excess["kl"].mean(2)[strengths == s].mean(0) for s in STRENGTHS])
    rows = [[name, *(f"{v:.1f}" for v in by_strength[:, r])] for r, name in enumerate(NAMES)]
    rows.append(["total correlation", *(f"{1000 * ends[0, strengths == s].mean():.0f}" for s in STRENGTHS)])
    table(["rule", *(f"{s:g}" for s in STRENGTHS)], rows)

    ahead = " ".join(interval(1000 * steps, "+"))
    print(f"lookahead(4) minus top-k at equal steps, its passes not counted, mnat: {ahead}\n")

    small = [toy for _, toy in world if (toy.length, toy.size) == SIZES[0][:2]]
    few = [[toy for i, toy in enumerate(small) if i % SIZES[0][2] < count] for count in (SHARED, SWAPPED)]
    one_setting(few[0])
    swapped(few[1])

    print("KL at the middle NFE, halfway between all at once and one at a time, mnat:\n")
    rows = []
    for name, factory in TOYS.items():
        toy = factory()
        blanks = int(toy.canvas().blank.sum())
        points = points_of(toy, VALUES_OF_TOYS)
        record(name, points)
        reached = at_equal_nfe(points, [1, (1 + blanks) / 2])
        cells = [f"{1000 * abs(reached[r][1]):.1f}" if r in reached else "–" for r in NAMES]
        rows.append([name, f"{(1 + blanks) / 2:g}", *cells, f"{1000 * reached['top-k'][0]:.0f}"])
    table(["toy", "NFE", *NAMES, "at NFE 1"], rows)

    if write:
        DATA.write_text("\n".join(lines) + "\n", encoding="utf-8")
        picture()
    print(f"{time.process_time() - start:.0f} s of one core")


def by_step(points: Sequence[Point], length: int) -> float:
    """KL of lookahead(4)+top(k) minus that of entropy+top(k), mean over k = 2 … length − 1: equal steps."""
    found = {short(point.policy): point.kl for point in points}
    return float(np.mean([found[f"lookahead(4)+top({k})"] - found[f"entropy+top({k})"] for k in range(2, length)]))


def one_setting(worlds: Sequence[Toy]) -> None:
    """Rules with one and the same setting on all joints, found by the same search for each rule."""
    found: dict[str, list[tuple[str, np.ndarray, np.ndarray]]] = {}
    for rule in RULES:
        values = max(2, round(VALUES_SHARED / np.sqrt(sum(other.name == rule.name for other in RULES))))
        pool = np.concatenate([settings(rule, toy, values=32) for toy in worlds])
        grid = np.unique(pool) if rule.test is None else np.quantile(pool, np.linspace(0, 1, values))
        for setting in np.unique(grid).tolist():
            policy = rule.policy(setting)
            laws = [(toy, law(policy, toy)) for toy in worlds]
            nfe, error = [x.expected_nfe for _, x in laws], [kl(toy, x) for toy, x in laws]
            found.setdefault(rule.name, []).append((short(str(policy)), np.array(nfe), np.array(error)))
    together = [kl(toy, law(Whole() + Top(toy.length) + Temperature(1.0), toy)) for toy in worlds]
    for curve in found.values():
        curve.append(("everything at once", np.ones(len(worlds)), np.array(together)))

    def reached(name: str, who: np.ndarray) -> np.ndarray:
        x, y = hull(*zip(*((nfe[who].mean(), error[who].mean()) for _, nfe, error in found[name]), strict=True))
        return np.interp(BUDGETS, x, y)

    everyone = np.arange(len(worlds))
    draws = resamples(len(worlds), draws=500)
    base = np.array([reached("EB", who) for who in draws])
    rows = []
    for name in NAMES:
        value = 1000 * reached(name, everyone)
        low, high = 1000 * np.quantile(np.array([reached(name, who) for who in draws]) - base, [0.025, 0.975], axis=0)
        gap = value - 1000 * reached("EB", everyone)
        fits = [(nfe.mean(), text) for text, nfe, _ in found[name]]
        text = min(fits, key=lambda fit: abs(fit[0] - BUDGETS[1]))[1]
        ends = "–" if name == "EB" else f"{gap[1]:+.1f} [{low[1]:+.1f}, {high[1]:+.1f}]"
        rows.append([name, f"`{text}`", *(f"{v:.1f}" for v in value), ends])
    print(f"One setting for all of {len(worlds)} joints, chosen for its mean NFE; mean KL, mnat:\n")
    head = [*(f"NFE {budget:g}" for budget in BUDGETS), f"minus EB at {BUDGETS[1]:g}, 95 %"]
    table(["rule", f"setting nearest to NFE {BUDGETS[1]:g}", *head], rows)


def swapped(worlds: Sequence[Toy]) -> None:
    """MED's test, EB's and a count, each in every order: mean KL over the shares of the way."""
    orders = (Entropy(), Confidence(), Margin(), LeftToRight(), Random())
    tests = [next(rule for rule in RULES if rule.name == name) for name in ("MED", "EB", "top-k")]
    error = np.empty((len(worlds), len(tests), len(orders)))
    for i, toy in enumerate(worlds):
        for t, rule in enumerate(tests):
            values = settings(rule, toy, values=VALUES_SWAPPED)
            for o, order in enumerate(orders):
                laws = [law(attrs.evolve(rule, order=order).policy(setting), toy) for setting in values]
                points = [Point("", "", found.expected_nfe, kl(toy, found), 0.0) for found in laws]
                points.append(Point("", "", 1.0, kl(toy, law(Whole() + Top(toy.length) + Temperature(1.0), toy)), 0.0))
                error[i, t, o] = at_equal_nfe(points, 1 + SHARES * (toy.length - 1))[""].mean()
    print(f"Tests in other orders, {len(worlds)} joints: mean KL minus that in order of entropy, mnat [95 %]:\n")
    rows = []
    for t, rule in enumerate(tests):
        more = 1000 * (error[:, t] - error[:, t, :1])
        cells = [" ".join(interval(more[:, o], "+")) for o in range(1, len(orders))]
        rows.append([rule.name, f"{1000 * error[:, t, 0].mean():.1f}", *cells])
    table(["test", "entropy: KL", *(order.name for order in orders[1:])], rows)


def picture(path: Path = PICTURE) -> None:
    """Draws the corners that were written, as `path` with .png and .svg."""
    with drawing("exact"):
        figure = from_corners()
        save(figure, path.with_suffix(".png"), dpi=110)
        save(figure, path.with_suffix(".svg"))


def from_corners() -> Figure:
    """The picture."""
    corners: dict[str, dict[str, np.ndarray]] = {}
    for text in DATA.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        corners.setdefault(line["toy"], {})[line["rule"]] = np.array([corner[1:3] for corner in line["corners"]])
    drawn = [
        (float(found[1]), int(found[2]), rules)
        for toy, rules in corners.items()
        if (found := re.fullmatch(r"coupled\((.*)\) (\d)x\d #\d+", toy))
    ]
    curves = np.array(
        [[np.interp(1 + SHARES * (length - 1), *hull(*rules[name].T)) for name in NAMES] for _, length, rules in drawn]
    )
    strengths = np.array([strength for strength, _, _ in drawn])
    excess = 1000 * (curves - curves.min(1, keepdims=True)).mean(2)

    figure = Figure(figsize=(10.5, 14.0), layout="constrained")
    grid = figure.subplots(2 + len(SHOWN), len(GROUPS), sharey="row")

    def panels(row: int, title: str, draw: Callable[[Axes, str], None], x: str, y: str) -> None:
        for axes, (group, names) in zip(grid[row], GROUPS.items(), strict=True):
            for name in names:
                draw(axes, name)
            axes.set_xlabel(x)
            axes.set_title(f"{group}: {title}" if row == 0 else title, loc="left")
        grid[row, 0].set_ylabel(y)

    def line(axes: Axes, name: str, x: np.ndarray, y: np.ndarray, marks: object = None) -> None:
        axes.plot(x, y, label=name, markevery=marks, **LOOKS[name])

    def best(row: int, x: np.ndarray, y: np.ndarray) -> None:
        for axes in grid[row]:
            axes.plot(x, y, color="0.8", lw=5, label="best of all", zorder=0)

    def mean(axes: Axes, name: str) -> None:
        line(axes, name, SHARES, curves[:, NAMES.index(name)].mean(0), 3)

    def coupling(axes: Axes, name: str) -> None:
        line(axes, name, np.array(STRENGTHS), [excess[strengths == s, NAMES.index(name)].mean() for s in STRENGTHS])

    best(0, SHARES, curves.min(1).mean(0))
    share = "share of the way, all at once to one at a time"
    panels(0, f"{len(curves)} random joints", mean, share, "KL, nats")
    for axes in grid[0]:
        axes.set(yscale="log", ylim=(2e-4, 1))
        legend_below(figure, axes=axes)
    panels(1, "the same, by coupling", coupling, "strength of the coupling", "KL above the best rule, mnat")
    grid[1, 0].set_ylim(0, 90)
    for row, toy in enumerate(SHOWN, 2):
        most = round(max(found[:, 0].max() for name, found in corners[toy].items() if name != "lookahead-k"))
        wide = np.linspace(1, most, 300)
        best(row, wide, np.min([np.interp(wide, *hull(*found.T)) for found in corners[toy].values()], axis=0))

        def chords(axes: Axes, name: str, found: dict[str, np.ndarray] = corners[toy]) -> None:
            # between two settings one can toss a coin: a straight line, which a root scale shows as a curve
            if name in found:
                x, y = hull(*found[name].T)
                fine = np.unique(np.concatenate([np.linspace(x[0], x[-1], 200), x]))
                line(axes, name, fine, np.interp(fine, x, y), np.searchsorted(fine, x).tolist())

        panels(row, toy, chords, "expected NFE", "KL, nats (root scale)")
        for axes in grid[row]:
            # a root scale: errors near 0 can be told apart, and 0 itself can be shown
            axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
            axes.set(xlim=(0.9, most + 0.1), ylim=(0, None))
    return figure


if __name__ == "__main__":
    main()

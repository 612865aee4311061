"""What parallel steps may cost: the bounds of docs/bounds.md on random joints, and on runs of the embedded models.

    python benchmarks/bounds.py

Prints the tables of docs/bounds.md. Joints and runs come from fixed seeds. About two minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from common import bootstrap, command_line, print_head, print_row, progress

import mdsample
from mdsample.core.arrays import Doubles
from mdsample.core.bounds import parallel_bounds
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import prepare
from mdsample.sampling.row import Row
from mdsample.sampling.sampler import Sampler
from mdsample.tasks.catalog import TASKS

#: from independent to all but settled
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
POLICIES = ("med", "med+early-exit", "eb", "fast-dllm", "med(0.05)", "above-confidence(0.99)")
#: drawn at temperature 1, of which the bounds speak; and some at temperature 0, where commits can be certain
DRAWN = (*(f"{policy}+temperature(1)" for policy in POLICIES), "med", "med+early-exit", "fast-dllm-pp(0)")
TASK_OF = {"tiny-gsm": "tiny-gsm", "tiny-sudoku": "sudoku"}


def random_joint(draw: np.random.Generator, strength: float) -> Doubles:
    """2 to 4 positions of 2 to 4 tokens, weights exp(strength · Gaussian)."""
    shape = (int(draw.integers(2, 5)),) * int(draw.integers(2, 5))
    weight = np.exp(strength * draw.normal(size=shape))
    return weight / weight.sum()


def statistics(joint: Doubles) -> tuple[float, Doubles, Doubles]:
    """Its total variation from the product of its marginals; their entropies, nats, and top probabilities."""
    axes = range(joint.ndim)
    marginals = [joint.sum(tuple(j for j in axes if j != i)) for i in axes]
    product = np.ones(())
    for marginal in marginals:
        product = np.multiply.outer(product, marginal)
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in marginals]
    return float(np.abs(joint - product).sum()) / 2, np.array(entropies), np.array([p.max() for p in marginals])


def terms(entropy: Doubles, c: Doubles) -> Doubles:
    """Bounds on one set, each alone: the three terms of d, the three of the plain version, and two that were tried."""
    group = np.zeros(len(c), np.int32)
    b = parallel_bounds(group, entropy, c, 1)[0][0]
    wrong, least, every = (1 - c).sum(), c.min(), c.prod()
    alone = wrong - (1 - least)
    pinsker = np.sqrt(b / 2)
    given = 1 - every / least * max(0.0, 1 - alone)
    coupled = 1 - every if wrong <= 1 else 1.0
    return np.minimum(1.0, [pinsker, coupled, given, wrong, 2 * alone, refined(b, every), split(entropy, c)])


def refined(b: float, every: float) -> float:
    """Pinsker's inequality for a product that is likely to give one text (Ordentlich and Weinberger 2005)."""
    p = 1 - every
    factor = np.log((1 - p) / p) / (1 - 2 * p) if 0 < p < 0.5 else 2.0
    return float(np.sqrt(b / factor))


def split(entropy: Doubles, c: Doubles) -> float:
    """The k least certain positions by Pinsker, the others given these by coupling; the best k."""
    order = np.argsort(c)
    h, c = entropy[order], c[order]
    costs: list[float] = []
    for k in range(1, len(c) + 1):
        certain = c[k:].prod() * max(0.0, 1 - (1 - c[k:]).sum())
        costs.append(1 - certain + float(np.sqrt((h[:k].sum() - h[:k].max()) / 2)))
    return min(costs)


def joints(number: int) -> None:
    """The largest share of the bound that a joint reaches, and how often the tempting version is broken."""
    draw = np.random.default_rng(0)
    print_head(("coupling", "joints", "largest TV / d", "mean TV / d", "broken, %: d", "tempting version"), text=0)
    for strength in STRENGTHS:
        found: list[tuple[float, float, float]] = []
        for _ in range(-(-number // len(STRENGTHS))):
            tv, entropy, c = statistics(random_joint(draw, strength))
            found.append((tv, terms(entropy, c)[:3].min(), (1 - c).sum() - (1 - c).max()))
        tv, d, tempting = np.array(found).T
        over = (100 * (tv > bound + 1e-12).mean() for bound in (d, tempting))
        ratio = tv[d > 1e-9] / d[d > 1e-9]  # below that all is rounding
        print_row((strength, len(tv), f"{ratio.max():.3f}", f"{ratio.mean():.3f}", *(f"{x:.0f}" for x in over)))


def sampled(model: mdsample.Denoiser, task: str, policy: str, limit: int) -> list[Row]:
    """The task's first problems."""
    template = mdsample.Template.parse(TASKS[task].template)
    prepared = [prepare(model, template, p.id, p.texts, p.given) for p in TASKS[task].read()[:limit]]
    return list(fill(Sampler(policy), model, template.slots, prepared, batch_size=64))


def sets(row: Row) -> Iterator[tuple[Doubles, Doubles]]:
    """Entropies and top probabilities of the sets that were drawn at once."""
    for _, run in groupby((c for c in row.commits if not c.by_rule), lambda c: c.step):
        commits = list(run)
        if len(commits) > 1:
            yield np.array([c.entropy for c in commits]), np.array([c.confidence for c in commits])


def models(limit: int, policies: Sequence[str]) -> None:
    """What each term says on real runs: in how many sets it is the least, and the sum over a row with it alone."""
    names = ("√(b/2)", "1 − Πc", "1 − r(1 − s)", "d", "Σ(1 − c)", "2s", "refined", "split")
    least = [f"least: {name}" for name in names[:3]]
    print_head(("model", "policy", "passes", "certain, %", "sets", *least, *(f"row: {name}" for name in names)), text=2)
    for name, task in TASK_OF.items():
        model = mdsample.load(name, backend="reference")
        for policy in policies:
            if "early-exit" in policy and task != "tiny-gsm":
                continue  # a board has no slot for the answer
            progress(f"{policy} on {name} …")
            rows = sampled(model, task, policy, limit)
            costs = [np.array([terms(*one) for one in sets(row)]).reshape(-1, 7) for row in rows]
            steps = np.concatenate(costs)
            best = np.bincount(steps[:, :3].argmin(1), minlength=3)
            total = np.array([[*cost[:, :3].sum(0), cost[:, :3].min(1).sum(), *cost[:, 3:].sum(0)] for cost in costs])
            assert np.allclose(total[:, 3], [row.tv_bound for row in rows], atol=1e-4)
            facts = (f"{np.mean([row.nfe for row in rows]):.1f}", f"{100 * np.mean([row.certain for row in rows]):.0f}")
            means = [f"{x:.3f}" for x in total.mean(0)]
            d = bootstrap(total[:, 3])
            means[3] += f" [{d.low:.3f}, {d.high:.3f}]"
            cells = (*facts, len(steps), *best, *means)
            print_row((name, f"`{policy}`", *cells))


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--joints", type=int, default=10_000)
    parser.add_argument("--limit", type=int, default=32, help="problems of each task")
    parser.add_argument("--policy", action="append", help="of the models, in place of the table's; may be repeated")
    options = parser.parse_args()
    if options.joints:
        joints(options.joints)
        print()
    models(options.limit, options.policy or DRAWN)


if __name__ == "__main__":
    main()

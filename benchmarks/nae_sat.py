"""Easy tokens first? L&O-NAE-SAT (arXiv 2502.06768, table 1): random order and margin, with models of several kinds.

    python benchmarks/nae_sat.py [--write]

N latents are fair bits; each of P observations says whether three of them are not all equal (`exact.nae_sat`). A model
fills all of a row (*from nothing*, as in the paper), or the latents of a row whose observations are given. What counts
is the share of observations that the row's latents bear out; guessing 1 everywhere is right for 75 %. Draws at
temperature 1, the same number of tokens a step for every order, so passes are equal.

- *exact*: all conditionals are right (`exact.nae_sat`, computed laws), so only filling several at once does harm;
- *forward*: knows what known latents say of an observation, and takes every latent for a fair coin;
- *uniform*: the same, but says one half for each observation until all its three latents are known;
- *one round*: forward, and every latent hears once from each known observation what its other two latents are;
- *trained*: a perceptron with two hidden layers of 512, 800 steps of the masked diffusion loss on fresh rows.

Forward, uniform and one round are formulas, not learned. The paper's model has 19 million parameters. Everything comes
from fixed seeds. Prints the tables of docs/choosing-a-policy.md, and with `--write` writes docs/data/nae_sat.jsonl.
Needs torch. About two minutes on one core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
from common import add_write, command_line, print_head, print_row, torch

from mdsample import LeftToRight, Margin, Order, Random, Sampler, Temperature, Top, Whole
from mdsample.backend.reference.prediction import NumpyPrediction
from mdsample.core.arrays import Bools, Doubles, Ints
from mdsample.core.canvas import Canvas
from mdsample.evaluation.intervals import mean
from mdsample.exact import kl, law, nae_sat, nae_triples, not_all_equal
from mdsample.exact.toy import ToyTokenizer
from mdsample.models.denoiser import About, Denoiser, Query

DATA = Path(__file__).parents[1] / "docs" / "data" / "nae_sat.jsonl"
MASK = 2
#: (N, P) and the paper's accuracies, %: vanilla, margin
PAPER = {
    (25, 275): (78.06, 93.76),
    (30, 270): (75.70, 93.54),
    (40, 260): (74.60, 92.21),
    (50, 250): (67.94, 90.01),
    (100, 200): (62.84, 88.91),
}
#: a fifth of these: small enough to train on in seconds
FIFTHS = [(n // 5, p // 5) for n, p in PAPER]
#: rows, half of them for each of two draws of the triples (all of one draw for a trained model)
ROWS = 128
#: tokens a step where 300 are filled: 50 steps, as in the paper; elsewhere one
TOGETHER = 6
STEPS, BATCH, WIDTH = 800, 512, 512
ORDERS: dict[str, Order] = {
    "random": Random(),
    # equal margins in random order: the place in the row must not help
    "margin": Margin(noise=1e-6),
    "margin, noise 0.5": Margin(noise=0.5),
    "latents first": LeftToRight(),
}
Ones = Callable[[Ints], Doubles]


class Bits(Denoiser):
    """A denoiser over bits: `ones` gives the probability of a 1 at each position, `[B, L]`, from tokens `[B, L]`."""

    def __init__(self, name: str, length: int, ones: Ones) -> None:
        """The tokens are 0, 1 and the mask."""
        super().__init__(About(name, "numpy", ToyTokenizer(2), 3, "", length))
        self.ones = ones

    def predict(self, query: Query) -> NumpyPrediction:
        """Scores are logarithms of these probabilities."""
        one = self.ones(query.tokens)[query.wanted]
        with np.errstate(divide="ignore"):
            scores = np.log(np.stack([1 - one, one, np.zeros_like(one)], 1))
        return NumpyPrediction(
            scores, query.wanted, query.restriction, query.guide, tuning=query.tuning, credits=query.credits
        )


def local(n: int, triples: Ints, rounds: int, blind: bool = False) -> Ones:
    """`forward` (no round), `one round`, and with `blind` `uniform`: see the module's docstring."""
    hears = np.zeros((3, len(triples), n))
    for k in range(3):
        hears[k, np.arange(len(triples)), triples[:, k]] = 1

    def ones(tokens: Ints) -> Doubles:
        latent, observed = tokens[:, :n], tokens[:, n:]
        one: Doubles = np.where(latent == MASK, 0.5, latent)
        if rounds:
            seen, odds = one[:, triples], np.zeros(latent.shape)
            for k in range(3):
                a, b = (seen[:, :, j] for j in range(3) if j != k)
                # what an observation of 1 says of a latent: likely what the other two are not; one of 0: what they are
                both = np.stack([(1 - a) * (1 - b), a * b])
                likely = np.clip(np.where(observed == 1, 1 - both, both), 1e-6, 1)
                odds += np.where(observed == MASK, 0.0, np.log(likely[1] / likely[0])) @ hears[k]
            one = np.where(latent == MASK, 1 / (1 + np.exp(-odds)), latent)
        seen = one[:, triples]
        differ = 1 - seen.prod(2) - (1 - seen).prod(2)
        if blind:
            differ = np.where((latent[:, triples] == MASK).any(2), 0.5, differ)
        return np.concatenate([one, np.clip(differ, 0, 1)], 1)

    return ones


def trained(n: int, triples: Ints) -> Ones:
    """A perceptron, trained on rows of which a share drawn uniformly from 0 to 1 is hidden."""
    torch.set_num_threads(1)
    dice = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    length = n + len(triples)
    layers = (
        torch.nn.Linear(3 * length, WIDTH),
        torch.nn.GELU(),
        torch.nn.Linear(WIDTH, WIDTH),
        torch.nn.GELU(),
        torch.nn.Linear(WIDTH, length),
    )
    net = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS, pct_start=0.1)
    for _ in range(STEPS):
        latent = torch.randint(0, 2, (BATCH, n), generator=dice)
        row = torch.cat([latent, torch.from_numpy(not_all_equal(latent.numpy(), triples))], 1)
        hidden = torch.rand(row.shape, generator=dice) < torch.rand((BATCH, 1), generator=dice)
        logits = net(torch.nn.functional.one_hot(row.masked_fill(hidden, MASK), 3).float().flatten(1))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[hidden], row[hidden].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    def ones(tokens: Ints) -> Doubles:
        with torch.no_grad():
            logits = net(torch.nn.functional.one_hot(torch.from_numpy(tokens).long(), 3).float().flatten(1))
        return logits.double().sigmoid().numpy()

    return ones


def shares(model: Denoiser, triples: Ints, order: Order, k: int, given: bool, rows: int, seed: int) -> Doubles:
    """Share of the observations that each row's latents bear out, `[rows]`."""
    n = model.max_length - len(triples)
    latent = np.random.default_rng(seed).integers(0, 2, (rows, n))
    row = np.concatenate([latent, not_all_equal(latent, triples)], 1)
    blank: Bools = np.ones(row.shape, np.bool_)
    blank[:, n:] = not given
    canvas = Canvas.of_rows(row.tolist(), np.zeros(row.shape, int).tolist(), ("row",), MASK, blank=blank.tolist())
    policy = Whole() + order + Top(k) + Temperature(1.0)
    tokens = Sampler(policy, seed=seed).run(model, canvas).state.tokens
    return (not_all_equal(tokens[:, :n], triples) == tokens[:, n:]).mean(1)


@attrs.define
class Study:
    """What was measured."""

    records: list[dict[str, object]] = attrs.Factory(list[dict[str, object]])

    def cell(self, size: tuple[int, int], models: list[tuple[Denoiser, Ints]], order: str, k: int, given: bool) -> str:
        """Mean share, %, and half its 95 % interval, over rows of all `models` (each with its own triples)."""
        rows = ROWS // len(models)
        parts = [shares(model, t, ORDERS[order], k, given, rows, seed) for seed, (model, t) in enumerate(models)]
        share = np.concatenate(parts)
        found = mean(share.tolist())
        what = {"n": size[0], "p": size[1], "model": models[0][0].name, "order": order, "given": given, "k": k}
        numbers = {"share": found.value, "low": max(found.low, 0.0), "high": min(found.high, 1.0)}
        self.records.append({**what, "rows": len(share), **{name: round(x, 5) for name, x in numbers.items()}})
        return f"{100 * found.value:.1f} ± {100 * (found.high - found.value):.1f}"


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    add_write(parser, "docs/data/nae_sat.jsonl")
    options = parser.parse_args()
    start = time.process_time()
    laws()
    study, orders, blind = Study(), list(ORDERS), list(ORDERS)[:3]
    print(f"From nothing, {TOGETHER} tokens a step; observations borne out, %, {ROWS} rows, 95 %:\n")
    print_head(("(N, P)", "*paper: vanilla, margin*", "model", *orders), text=3)
    for (n, p), paper in PAPER.items():
        for name, rounds, uniform in (("uniform", 0, True), ("forward", 0, False), ("one round", 1, False)):
            models = stated(name, n, p, rounds, uniform)
            cells = [study.cell((n, p), models, order, TOGETHER, False) for order in orders]
            head = (f"({n}, {p})", f"*{paper[0]:.1f}, {paper[1]:.1f}*") if name == "uniform" else ("", "")
            print_row((*head, name, *cells))
    print("\nObservations given, latents filled one at a time, one round:\n")
    print_head(("(N, P)", *blind))
    for n, p in PAPER:
        models = stated("one round", n, p, 1, False)
        cells = [study.cell((n, p), models, order, 1, True) for order in blind]
        print_row((f"({n}, {p})", *cells))
    print("\nA fifth of these sizes, trained, one at a time (exact conditionals: 100 % in every order):\n")
    print_head(("(N, P)", *orders, *(f"given: {order}" for order in blind)))
    for n, p in FIFTHS:
        triples = nae_triples(n, p)
        models: list[tuple[Denoiser, Ints]] = [(Bits("trained", n + p, trained(n, triples)), triples)]
        cells = [study.cell((n, p), models, order, 1, False) for order in orders]
        cells += [study.cell((n, p), models, order, 1, True) for order in blind]
        print_row((f"({n}, {p})", *cells))
    if options.write:
        DATA.write_text("".join(json.dumps(record) + "\n" for record in study.records), encoding="utf-8")
    print(f"\n{time.process_time() - start:.0f} s of one core")


def stated(name: str, n: int, p: int, rounds: int, blind: bool) -> list[tuple[Denoiser, Ints]]:
    """A model given by a formula, for two draws of the triples."""
    drawn = [nae_triples(n, p, seed) for seed in (0, 1)]
    return [(Bits(name, n + p, local(n, triples, rounds, blind)), triples) for triples in drawn]


def laws() -> None:
    """Exact laws, exact conditionals: what random and margin lose where they fill as many at once."""
    print("Exact laws with exact conditionals (5 latents): KL, nats, and observations borne out, %\n")
    print_head(("P", "tokens a step", "passes", "random: KL", "random: %", "margin: KL", "margin: %"), text=0)
    for p in (4, 5):
        toy, triples = nae_sat(5, p, seed=1), nae_triples(5, p, seed=1)
        for k in (1, 2, 3):
            cells: list[str] = []
            for order in (Random(), Margin()):
                found = law(Whole() + order + Top(k) + Temperature(1.0), toy)
                right = (not_all_equal(found.tokens[:, :5], triples) == found.tokens[:, 5:]).mean(1)
                cells += [f"{kl(toy, found):.3f}", f"{100 * found.probability @ right:.1f}"]
            print_row((p, k, f"{found.expected_nfe:g}", *cells))
    print(flush=True)


if __name__ == "__main__":
    main()

"""Scores: the log-probability of whole texts in a slot, in nats.

A masked model has no single way of writing a text, so how its probability is taken is stated: by the chain rule in an
order, as a product of marginals, or as LLaDA's Monte Carlo bound. What is scored is all of the slot: the text's tokens
and the end tokens after them. Other slots stay blank unless they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import final

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Ints, Longs, arange64
from mdsample.core.canvas import Canvas
from mdsample.core.rows import Rows
from mdsample.core.template import Template
from mdsample.core.uniforms import Uniforms, row_key
from mdsample.errors import ScoreError, TemplateError, shown
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.policy.base import Policy
from mdsample.policy.guide import NoGuide
from mdsample.policy.order import LeftToRight, Order
from mdsample.policy.selection import Top
from mdsample.policy.view import View
from mdsample.sampling.arguments import as_batch_size, as_seed
from mdsample.sampling.engine import BATCH_SIZE
from mdsample.sampling.observe import Kept, answered, restrict, with_evidence
from mdsample.sampling.plan import Plan
from mdsample.sampling.sampler import Sampler, rank
from mdsample.sampling.state import Commits, Event, State


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


@attrs.frozen
class Candidate:
    """A text that might stand in the slot."""

    text: str
    #: ids, up to the end of the slot
    tokens: tuple[int, ...]
    #: nats; of `MonteCarloBound`, the estimate of its bound
    log_probability: float
    #: of the estimate; 0 where nothing was drawn. Stratification can only make the true one smaller
    standard_error: float = 0.0
    #: what each sample said; their mean is the estimate
    samples: tuple[float, ...] = attrs.field(default=(), repr=False)


@attrs.frozen(slots=False)
class Scores:
    """The candidates of one row, in the order they were given in."""

    id: int | str
    slot: str
    candidates: tuple[Candidate, ...]
    #: forward passes that they took together
    nfe: int

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Probabilities among the candidates alone; they sum to 1."""
        logs = np.array([candidate.log_probability for candidate in self.candidates])
        weights = np.exp(logs - logs.max()) if np.isfinite(logs.max()) else np.ones(len(logs))
        return tuple((weights / weights.sum()).tolist())

    @cached_property
    def outside(self) -> float:
        """Probability of all but the candidates, 1 − Σ p; with `MonteCarloBound`, whose p are low, at most that."""
        inside = float(np.exp([candidate.log_probability for candidate in self.candidates]).sum())
        return min(max(1 - inside, 0.0), 1.0)

    @property
    def best(self) -> Candidate:
        """The most probable one, the first among equals."""
        return max(self.candidates, key=lambda candidate: candidate.log_probability)


def score(
    denoiser: Denoiser,
    template: Template,
    rows: Sequence[Mapping[str, str]],
    slot: str,
    candidates: Sequence[str] | Sequence[Sequence[str]],
    *,
    method: Method | None = None,
    given: Sequence[Mapping[str, str]] | None = None,
    ids: Sequence[int | str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> tuple[Scores, ...]:
    """Log-probabilities of candidates in a slot, row by row.

    `rows`: texts of the template's fields. `candidates`: texts, the same for every row or a list for each; they stand
    as they are written, a space at the beginning included. `method`: `ChainRule()` by default. `given`: texts of other
    slots, for every row. `batch_size`: texts in one forward pass. Raises `TemplateError` or `ScoreError` before the
    first forward pass.
    """
    if not isinstance(template, Template):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"score takes the model and then a template, as Template.parse reads it; got {shown(template)}")
    if not isinstance(method, Method | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a method is ChainRule(), MarginalProduct() or MonteCarloBound(); got {shown(method)}")
    if not isinstance(slot, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a slot is named by text, such as 'answer'; got {shown(slot)}")
    if not isinstance(rows, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"rows are a list with a mapping of fields to texts for each; got {shown(rows)}")
    batch_size = as_batch_size(batch_size)
    template.check_given({slot: ""})
    if any(slot in brought for brought in given or ()):
        raise TemplateError(f"slot {slot!r} is given and scored; leave one of them out")
    lists = _lists(candidates, len(rows))
    nothing: dict[str, str] = {}
    brought = given or [nothing] * len(rows)
    names = list(range(len(rows))) if ids is None else list(ids)
    blank = template.canvas(denoiser.tokenizer, rows, names, brought)
    if reason := blank.unseen(denoiser.block, denoiser.led):
        raise ScoreError(reason)
    # a candidate's tokens are those that the slot would have if it were given
    pairs = [(row, text) for row, texts in enumerate(lists) for text in texts]
    full = template.canvas(
        denoiser.tokenizer,
        [rows[row] for row, _ in pairs],
        list(range(len(pairs))),
        [{**brought[row], slot: text} for row, text in pairs],
    )
    of = np.array([row for row, _ in pairs], np.int64)
    scorer = _Scorer(denoiser, blank, full, of, template.slots.index(slot), batch_size)
    match method or ChainRule():
        case ChainRule() as chain:
            samples, nfe = scorer.chain(chain)
        case MarginalProduct():
            samples, nfe = scorer.product()
        case MonteCarloBound() as bound:
            samples, nfe = scorer.bound(bound)
    scored: list[list[Candidate]] = [[] for _ in rows]
    for number, (row, text) in enumerate(pairs):
        scored[row].append(_candidate(text, full.tokens[number, scorer.place(number)], samples[number]))
    return tuple(
        Scores(name, slot, tuple(texts), int(nfe[of == row].sum()))
        for row, (name, texts) in enumerate(zip(names, scored, strict=True))
    )


def _lists(candidates: Sequence[str] | Sequence[Sequence[str]], count: int) -> list[tuple[str, ...]]:
    """The candidates of each row."""
    if isinstance(candidates, str):
        raise ScoreError(f"candidates are a list of texts; got one text, {candidates!r:.60}")
    if not isinstance(candidates, Sequence) or not all(isinstance(one, str | Sequence) for one in candidates):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"candidates are a list of texts, or a list of such lists; got {shown(candidates)}")
    shared = tuple(text for text in candidates if isinstance(text, str))
    lists = [shared] * count if shared else [tuple(texts) for texts in candidates]
    if shared and len(shared) < len(candidates):
        raise ScoreError("candidates are a list of texts, or a list of such lists; got a mixture")
    if len(lists) != count:
        raise ScoreError(f"{count} rows need as many lists of candidates; got {len(lists)}")
    for texts in lists:
        check_candidates(texts)
    return lists


def check_candidates(texts: Sequence[str]) -> None:
    """Raises `ScoreError` unless there are some, all different."""
    if not texts or len(set(texts)) < len(texts):
        raise ScoreError(f"a row needs candidates, all different; got {list(texts)!r:.80}")


def _candidate(text: str, tokens: Ints, samples: Doubles) -> Candidate:
    drawn = len(samples) > 1
    error = float(samples.std(ddof=1) / np.sqrt(len(samples))) if drawn and np.isfinite(samples).all() else 0.0
    kept = tuple(samples.tolist()) if drawn else ()
    return Candidate(text, tuple(tokens.tolist()), float(samples.mean()), error, kept)


@attrs.frozen(eq=False)
class _Scorer:
    """P pairs of a row and a candidate on a model."""

    denoiser: Denoiser
    #: the rows with their slot blank
    blank: Canvas
    #: the pairs with the candidate in the slot, `[P, L]`
    full: Canvas
    #: the row of each pair, `[P]`
    of: Longs
    #: the slot's number
    number: int
    batch_size: int

    def place(self, pair: int) -> Longs:
        """The positions of a pair's slot, `[n]`."""
        return np.flatnonzero(self.full.slot[pair] == self.number)

    def chain(self, how: ChainRule) -> tuple[Doubles, Longs]:
        """Log-probabilities `[P, 1]`, forward passes `[P]`."""
        total, passes = np.zeros((len(self.of), 1)), np.zeros(len(self.of), np.int64)
        for first in range(0, len(self.of), self.batch_size):
            pairs = arange64(len(self.of))[first : first + self.batch_size]
            canvas = self.blank.copies(self.of[pairs])
            plan = Sampler(Policy.of(how.order) + Top(1)).plan(self.denoiser, canvas)
            # what an order draws hangs on the row, not on the candidates that it is scored with
            rows_of: list[int] = self.of[pairs].tolist()
            keys = [row_key(how.seed, self.blank.ids[row]) for row in rows_of]
            state = State.begin(canvas)
            slot = canvas.slot == self.number
            kept: dict[int, Kept] = {row: {} for row in range(len(canvas))}
            while (state.blank & slot).any():
                rows = np.flatnonzero((state.blank & slot).any(1)).astype(np.int32)
                batch = state.batch(rows, 1, self.denoiser.tokenizer, self.denoiser.block, self.denoiser.led)
                width = batch.tokens.shape[1]
                eligible = slot[rows, :width] & batch.blank
                wanted = eligible
                for evidence in plan.evidence:
                    wanted = wanted | evidence.wanted(batch)
                prediction = _predicted(self.denoiser, plan, rows, state, wanted, pairs)
                uniforms = Uniforms([keys[row] for row in rows.tolist()], batch.step, width)
                view = View(batch, prediction.marginals, eligible, eligible, uniforms)
                seen = answered(
                    with_evidence(plan, view, prediction, rows, [kept[row] for row in rows.tolist()], batch.tokens),
                    self.denoiser,
                )
                kept.update(zip(rows.tolist(), seen.kept, strict=True))
                position = rank(plan.policy, seen.view)[:, 0]
                token = self.full.tokens[pairs[rows], position]
                line = np.arange(len(rows), dtype=np.int32)
                logged = prediction.log_probabilities(line, position, token)
                total[pairs[rows], 0] += logged
                passes[pairs[rows]] += 1
                state = state.apply(_writing(rows, position, token), self.denoiser.tokenizer.mask_id)
        return total, passes

    def product(self) -> tuple[Doubles, Longs]:
        """Log-probabilities `[P, 1]`, forward passes `[P]`: one a row, counted for its first candidate."""
        total, passes = np.zeros((len(self.of), 1)), np.zeros(len(self.of), np.int64)
        for first in range(0, len(self.blank), self.batch_size):
            rows = arange64(len(self.blank))[first : first + self.batch_size]
            canvas = self.blank.copies(rows)
            hidden = canvas.slot == self.number
            pairs = np.flatnonzero(np.isin(self.of, rows))
            lines = self.of[pairs] - first
            total[pairs, 0] = text_sums(self.denoiser, canvas, hidden, self.full.tokens[pairs], hidden[lines], lines)
            passes[[int(np.argmax(self.of == row)) for row in rows.tolist()]] = 1
        return total, passes

    def bound(self, how: MonteCarloBound) -> tuple[Doubles, Longs]:
        """Samples `[P, samples]`, forward passes `[P]`."""
        samples = np.zeros((len(self.of), how.samples))
        masks = {row: self._masks(row, how) for row in set(self.of.tolist())}
        jobs = np.stack(np.divmod(arange64(samples.size), how.samples), 1)
        for first in range(0, len(jobs), self.batch_size):
            pairs, sample = jobs[first : first + self.batch_size].T
            canvas = self.full.copies(pairs)
            hidden = np.zeros_like(canvas.blank)
            for line, (pair, number) in enumerate(zip(pairs.tolist(), sample.tolist(), strict=True)):
                hidden[line, self.place(pair)[masks[int(self.of[pair])][number]]] = True
            tokens = np.where(hidden, np.int32(self.denoiser.tokenizer.mask_id), canvas.tokens)
            canvas = attrs.evolve(canvas, tokens=tokens, blank=canvas.blank | hidden)
            n = (canvas.slot == self.number).sum(1)
            sums = text_sums(self.denoiser, canvas, hidden, self.full.tokens[pairs], hidden, arange64(len(pairs)))
            samples[pairs, sample] = sums * n / hidden.sum(1)
        return samples, np.full(len(self.of), how.samples, np.int64)

    def _masks(self, row: int, how: MonteCarloBound) -> list[Longs]:
        """Which places of a row's slot are masked in each sample; numbers of places in the slot."""
        n = int((self.blank.slot[row] == self.number).sum())
        rng = np.random.Generator(np.random.Philox(key=row_key(how.seed, self.blank.ids[row])))
        share = (arange64(how.samples) + rng.random(how.samples)) / how.samples
        counts = 1 + np.minimum((n * share).astype(np.int64), n - 1)
        return [np.sort(rng.permutation(n)[:count]) for count in counts.tolist()]


def marginal_scores(
    denoiser: Denoiser, canvas: Canvas, where: Bools, tokens: Ints, batch_size: int = BATCH_SIZE
) -> Doubles:
    """Σ log p(tokens[b, l]) over the blanks `where[b, l]`, nats, `[B]`: product of marginals of rows as they stand.

    Arrays `[B, L]`; one forward pass a row.
    """
    total = np.zeros(len(canvas))
    for first in range(0, len(canvas), batch_size):
        rows = arange64(len(canvas))[first : first + batch_size]
        asked = where[rows]
        total[rows] = text_sums(denoiser, canvas.copies(rows), asked, tokens[rows], asked, arange64(len(rows)))
    return total


def text_sums(denoiser: Denoiser, canvas: Canvas, hidden: Bools, tokens: Ints, where: Bools, lines: Longs) -> Doubles:
    """Σ log p of P texts over their places, nats, `[P]`, from one pass over the rows of a canvas, `[B, L]`.

    `hidden [B, L]`: the places that are predicted. `tokens [P, L]`, `where [P, L]`: the texts and their places, hidden
    ones of their rows, `lines [P]`.
    """
    plan = Sampler(Policy.of(Top(1))).plan(denoiser, canvas)
    every = np.arange(len(canvas), dtype=np.int32)
    prediction = _predicted(denoiser, plan, every, State.begin(canvas), hidden, arange64(len(canvas)))
    which, position = np.nonzero(where)
    logged = prediction.log_probabilities(
        lines[which].astype(np.int32), position.astype(np.int32), tokens[which, position]
    )
    total = np.zeros(len(lines))
    np.add.at(total, which, logged)
    return total


def _predicted(denoiser: Denoiser, plan: Plan, rows: Ints, state: State, wanted: Bools, names: Longs) -> Prediction:
    """One pass over some rows of a canvas; `names` tell all its rows apart for a cache."""
    batch = state.batch(rows, 1, denoiser.tokenizer, denoiser.block, denoiser.led)
    restriction = restrict(plan, rows, batch.tokens, batch.blank)
    row_keys = Rows([(0, int(names[row])) for row in rows.tolist()], batch.step)
    wanted = wanted[:, : batch.tokens.shape[1]]
    fixed = batch.valid & ~batch.initially_blank
    return denoiser.predict(Query(batch.tokens, batch.valid, wanted, fixed, restriction, NoGuide(), row_keys))


def _writing(rows: Ints, position: Ints, token: Ints) -> Event:
    """One token in each of these rows."""
    zeros = np.zeros(len(rows), np.float32)
    return Event.of(rows, np.ones(len(rows), np.int32), Commits(rows, position, token, zeros, zeros, zeros))

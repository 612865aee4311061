"""Scorer: pairs of a row and a text for its slot, scored by a method in as few forward passes as it takes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Doubles, Ints, Longs, arange64
from mdsample.core.canvas import Canvas
from mdsample.core.rows import Rows
from mdsample.core.uniforms import Uniforms, row_key
from mdsample.errors import ScoreError
from mdsample.models.denoiser import Denoiser, Prediction, Query
from mdsample.policy.base import Policy
from mdsample.policy.guide import NoGuide
from mdsample.policy.selection import Top
from mdsample.policy.view import View
from mdsample.sampling.engine import BATCH_SIZE
from mdsample.sampling.observe import Kept, answered, restrict, with_evidence
from mdsample.sampling.plan import Plan
from mdsample.sampling.sampler import Sampler, rank
from mdsample.sampling.state import Commits, Event, State
from mdsample.scoring.methods import ChainRule, MarginalProduct, Method, MonteCarloBound

#: more than a model's rounding makes of one probability where it is asked for twice
_ROUNDING = 1e-5


@attrs.frozen(eq=False)
class Scorer:
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
    #: what each row's random numbers are keyed by, `[B]`; rows of one name see the same masks, as far as they go
    names: Sequence[int | str]

    def place(self, pair: int) -> Longs:
        """The positions of a pair's slot, `[n]`."""
        return np.flatnonzero(self.full.slot[pair] == self.number)

    def by(self, method: Method) -> tuple[Doubles, Longs, Bools | None]:
        """What each sample said, `[P, samples]`, forward passes `[P]`, and what `chain` says of the tokens, `[P]`."""
        match method:
            case ChainRule():
                return self.chain(method)
            case MarginalProduct():
                return *self.product(), None
            case MonteCarloBound():
                return *self.bound(method), None

    def chain(self, how: ChainRule) -> tuple[Doubles, Longs, Bools]:
        """Log-probabilities `[P, 1]`, forward passes `[P]`, and whether each token was the most probable one, `[P]`."""
        total, passes = np.zeros((len(self.of), 1)), np.zeros(len(self.of), np.int64)
        best = np.ones(len(self.of), np.bool_)
        for first in range(0, len(self.of), self.batch_size):
            pairs = arange64(len(self.of))[first : first + self.batch_size]
            canvas = self.blank.copies(self.of[pairs])
            plan = Sampler(Policy.of(how.order) + Top(1)).plan(self.denoiser, canvas)
            # what an order draws hangs on the row, not on the candidates that it is scored with
            rows_of: list[int] = self.of[pairs].tolist()
            keys = [row_key(how.seed, self.names[row]) for row in rows_of]
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
                best[pairs[rows]] &= np.exp(logged) > prediction.marginals.confidence[line, position] - _ROUNDING
                state = state.apply(_writing(rows, position, token), self.denoiser.tokenizer.mask_id)
        return total, passes, best

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
        rng = np.random.Generator(np.random.Philox(key=row_key(how.seed, self.names[row])))
        share = (arange64(how.samples) + rng.random(how.samples)) / how.samples
        counts = 1 + np.minimum((n * share).astype(np.int64), n - 1)
        # place by place, so that a longer text's first places have the numbers of a shorter one's
        ranked = np.argsort(rng.random((n, how.samples)), 0, kind="stable")
        return [np.sort(ranked[:count, sample]) for sample, count in enumerate(counts.tolist())]


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
    if denoiser.noise != "mask":
        raise ScoreError(
            f"{denoiser.name} was trained on random tokens, not on masks: what it says of a blank depends on the noise "
            "that it is shown there, so texts have no log-probability under it; score with a masked model"
        )
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


def standard_error(samples: Doubles) -> float:
    """Of the mean of what was drawn; 0 where nothing was, or where some text is impossible."""
    drawn = len(samples) > 1 and np.isfinite(samples).all()
    return float(samples.std(ddof=1) / np.sqrt(len(samples))) if drawn else 0.0

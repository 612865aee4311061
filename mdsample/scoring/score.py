"""Scores: the log-probability of whole texts in a slot, in nats.

A masked model has no single way of writing a text, so how its probability is taken is stated: by the chain rule in an
order, as a product of marginals, or as LLaDA's Monte Carlo bound (`mdsample.scoring.methods`). What is scored is all of
the slot: the text's tokens and the end tokens after them. Other slots stay blank unless they are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import attrs
import numpy as np

from mdsample.core.arrays import Doubles, Ints
from mdsample.core.template import Template
from mdsample.errors import ScoreError, TemplateError, shown
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.arguments import as_batch_size
from mdsample.sampling.engine import BATCH_SIZE
from mdsample.scoring.methods import ChainRule, Method
from mdsample.scoring.scorer import Scorer, standard_error


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
    scorer = Scorer(denoiser, blank, full, of, template.slots.index(slot), batch_size, names)
    samples, nfe, _ = scorer.by(method or ChainRule())
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
    kept = tuple(samples.tolist()) if len(samples) > 1 else ()
    return Candidate(text, tuple(tokens.tolist()), float(samples.mean()), standard_error(samples), kept)

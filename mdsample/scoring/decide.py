"""Decisions: the probability of every label in every one of several slots, and of what is no label.

All the slots are blank at once. By the product of marginals one forward pass a row answers for all of them, however
many slots and labels there are; by the chain rule each label takes a pass for each token of its slot. Either way a slot
is read with the others blank: what is found is each slot's own law, not that of their combinations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import attrs
import numpy as np

from mdsample.core.arrays import Doubles
from mdsample.core.canvas import Canvas
from mdsample.core.template import Template
from mdsample.errors import ScoreError, TemplateError, shown
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.arguments import as_batch_size
from mdsample.sampling.engine import BATCH_SIZE
from mdsample.scoring.methods import ChainRule, MarginalProduct
from mdsample.scoring.score import Candidate, Scores, score
from mdsample.scoring.scorer import text_sums

#: the labels of each slot
Labels = Mapping[str, Sequence[str]]


@attrs.frozen
class Decisions:
    """What one row says in its slots."""

    id: int | str
    #: a slot's labels in the order they were given in, and the mass outside them; `nfe`: the passes that it was read in
    slots: tuple[Scores, ...]
    #: forward passes of the row; the product of marginals reads all slots in the same one
    nfe: int

    def __getitem__(self, slot: str) -> Scores:
        """The labels of a slot; `KeyError` if it was not decided."""
        for scores in self.slots:
            if scores.slot == slot:
                return scores
        raise KeyError(slot)


def decide(
    denoiser: Denoiser,
    template: Template,
    rows: Sequence[Mapping[str, str]],
    labels: Labels | Sequence[Labels],
    *,
    method: ChainRule | MarginalProduct | None = None,
    given: Sequence[Mapping[str, str]] | None = None,
    ids: Sequence[int | str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> tuple[Decisions, ...]:
    """Log-probabilities, nats, of every label in every slot, row by row.

    `rows`: texts of the template's fields. `labels`: slots to their labels, for all rows or a mapping for each; a label
    is all that stands in its slot: its text as it is written, and end tokens after it. `method`: `ChainRule()` by
    default; `MarginalProduct()` is one pass a row. `given`: texts of other slots, for every row. `batch_size`: texts in
    one forward pass. Raises `TemplateError` or `ScoreError` before the first forward pass.
    """
    if not isinstance(template, Template):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"decide takes the model and then a template, as Template.parse reads it; got {shown(template)}"
        )
    if not isinstance(rows, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"rows are a list with a mapping of fields to texts for each; got {shown(rows)}")
    if not isinstance(method, ChainRule | MarginalProduct | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ScoreError(
            "the mass outside the labels takes probabilities, so a decision is by ChainRule() or MarginalProduct(); "
            f"got {shown(method)}"
        )
    batch_size = as_batch_size(batch_size)
    if not isinstance(labels, Mapping | Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"labels are a mapping of slots to lists of texts, or one for each row; got {shown(labels)}")
    each: list[Labels] = [labels] * len(rows) if isinstance(labels, Mapping) else list(labels)
    if len(each) != len(rows):
        raise ScoreError(f"{len(rows)} rows need as many mappings of slots to labels; got {len(each)}")
    nothing: dict[str, str] = {}
    brought = given or [nothing] * len(rows)
    names = list(range(len(rows))) if ids is None else list(ids)
    blank = template.canvas(denoiser.tokenizer, rows, names, brought)
    for asked, there in zip(each, brought, strict=True):
        check_labels(denoiser, template, asked, there)
    if reason := blank.unseen(denoiser.block, denoiser.led):
        raise ScoreError(reason)
    match method or ChainRule():
        case ChainRule() as chain:
            found = [dict[str, Scores]() for _ in rows]
            for slot in dict.fromkeys(slot for asked in each for slot in asked):
                of = [row for row, asked in enumerate(each) if slot in asked]
                done = score(
                    denoiser,
                    template,
                    [rows[row] for row in of],
                    slot,
                    [list(each[row][slot]) for row in of],
                    method=chain,
                    given=[brought[row] for row in of],
                    ids=[names[row] for row in of],
                    batch_size=batch_size,
                )
                for row, scores in zip(of, done, strict=True):
                    found[row][slot] = scores
        case MarginalProduct():
            found = _product(denoiser, template, blank, each, batch_size)
    return tuple(
        Decisions(name, ordered := tuple(scores[slot] for slot in asked), _passes(ordered, method))
        for name, scores, asked in zip(names, found, each, strict=True)
    )


def check_labels(denoiser: Denoiser, template: Template, labels: Labels, given: Mapping[str, str]) -> None:
    """Raises `ScoreError` or `TemplateError` unless every slot is there and blank, and its labels fit and differ."""
    if not isinstance(labels, Mapping) or not labels:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ScoreError(
            f"a decision takes slots with their labels, as in {{'answer': ['yes', 'no']}}; got {labels!r:.60}"
        )
    for slot, texts in labels.items():
        if slot not in template.slots:
            kind = "is a field" if slot in template.fields else "is not a slot of the template"
            raise TemplateError(f"{slot!r} cannot be decided: it {kind}; slots here: {', '.join(template.slots)}")
        if slot in given:
            raise TemplateError(f"slot {slot!r} is given and decided; leave one of them out")
        if isinstance(texts, str) or not _are_texts(texts):
            raise ScoreError(f"the labels of slot {slot!r} are a list of texts; got {texts!r:.60}")
        if not texts:
            raise ScoreError(f"slot {slot!r} has no labels to decide between; name one or more")
        seen: dict[tuple[int, ...], str] = {}
        for text in texts:
            tokens = tuple(template.content(slot, text, denoiser.tokenizer))
            if tokens in seen:
                what = "stands there twice" if seen[tokens] == text else f"is the same tokens as {seen[tokens]!r:.40}"
                raise ScoreError(f"label {text!r:.40} of slot {slot!r} {what}; keep one")
            seen[tokens] = text


def _are_texts(texts: object) -> bool:
    return isinstance(texts, Sequence) and all(isinstance(text, str) for text in cast("Sequence[object]", texts))


def _product(
    denoiser: Denoiser, template: Template, blank: Canvas, each: Sequence[Labels], batch_size: int
) -> list[dict[str, Scores]]:
    """All slots of a row from one prediction: the probability of a label is the product of its tokens' marginals."""
    found = [dict[str, Scores]() for _ in each]
    for first in range(0, len(blank), batch_size):
        rows = range(first, min(first + batch_size, len(blank)))
        canvas = blank.copies(np.array(rows))
        asked = [
            (line, slot, text) for line, row in enumerate(rows) for slot, texts in each[row].items() for text in texts
        ]
        lines = np.array([line for line, _, _ in asked], np.int64)
        numbers = np.array([template.slots.index(slot) for _, slot, _ in asked])
        where = canvas.slot[lines] == numbers[:, None]
        tokens = canvas.tokens[lines]
        tokens[where] = [token for _, slot, text in asked for token in template.content(slot, text, denoiser.tokenizer)]
        hidden = np.zeros_like(canvas.blank)
        np.logical_or.at(hidden, lines, where)
        sums: Doubles = text_sums(denoiser, canvas, hidden, tokens, where, lines)
        candidates: dict[tuple[int, str], list[Candidate]] = {}
        for number, (line, slot, text) in enumerate(asked):
            ids: list[int] = tokens[number, where[number]].tolist()
            candidates.setdefault((line, slot), []).append(Candidate(text, tuple(ids), float(sums[number])))
        for (line, slot), texts in candidates.items():
            found[first + line][slot] = Scores(blank.ids[first + line], slot, tuple(texts), 1)
    return found


def _passes(scores: Sequence[Scores], method: ChainRule | MarginalProduct | None) -> int:
    """Forward passes of a row: of the product, one for all."""
    return 1 if isinstance(method, MarginalProduct) else sum(slot.nfe for slot in scores)

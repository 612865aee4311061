"""Judge: how much each part of a finished reasoning makes of an answer.

The reasoning of a recorded run is written once more, part by part, with the answer hidden; after each part the model is
asked for log p(answer | what is there so far), by the product of marginals, a forward pass each. Where it falls, the
reasoning leads away from the answer (arXiv 2510.19990, section 4). No other model and no roll-out is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import attrs
import numpy as np

from mdsample.core.canvas import Canvas
from mdsample.core.tokens import Tokenizer, filled_up, until_end
from mdsample.errors import ScoreError
from mdsample.models.denoiser import Denoiser
from mdsample.sampling.engine import BATCH_SIZE
from mdsample.sampling.row import pieces
from mdsample.sampling.state import State
from mdsample.sampling.trace import Trace
from mdsample.scoring.scorer import marginal_scores

By = Literal["sentence", "step", "token"]
#: how a reasoning is parted: at the ends of sentences, lines and slots; as it was written; token by token
WAYS: tuple[By, ...] = ("sentence", "step", "token")


@attrs.frozen
class ReasoningPart:
    """A part of a reasoning."""

    text: str
    #: log p(answer) when it is there, nats, and by how much that is more than before
    log_probability: float
    change: float


@attrs.frozen
class Judged:
    """A row's reasoning, part by part."""

    id: int | str
    #: what is asked for
    answer: str
    #: log p(answer) before anything is written, nats
    before: float
    parts: tuple[ReasoningPart, ...]

    @property
    def worst(self) -> ReasoningPart | None:
        """The part after which the answer is less probable by the most; `None` if there is none."""
        fallen = [part for part in self.parts if part.change < 0]
        return min(fallen, key=lambda part: part.change, default=None)


def judge(
    denoiser: Denoiser,
    trace: Trace,
    slot: str = "answer",
    answers: Mapping[int | str, str] | None = None,
    by: By = "sentence",
    batch_size: int = BATCH_SIZE,
) -> Iterator[Judged]:
    """Judges the rows of a trace, in order; `answers` are texts for `slot` by row, by default what stands there.

    Raises `ScoreError` before any forward pass if the trace is of other tokens, has no such slot or nothing beside it,
    or an answer does not fit.
    """
    tokenizer, last = denoiser.tokenizer, trace.replay()
    if tokenizer.mask_id != trace.mask_id:
        raise ScoreError(f"the trace was made with {trace.model!r}, whose tokens are not those of {denoiser.name}")
    if slot not in trace.canvas.names:
        raise ScoreError(f"the trace has no slot {slot!r}; slots there: {', '.join(trace.canvas.names)}")
    number = trace.canvas.names.index(slot)
    asked = attrs.evolve(trace.canvas, blank=trace.canvas.slot == number)
    if reason := asked.unseen(denoiser.block, denoiser.led):
        raise ScoreError(reason)
    wanted = [_wanted(tokenizer, last, row, number, (answers or {}).get(name)) for row, name in _rows(trace)]
    groups = [_groups(tokenizer, last, row, number, by) for row, _ in _rows(trace)]
    if not any(groups):
        raise ScoreError(f"nothing is written in the trace beside slot {slot!r}, so there is nothing to judge")

    def judged() -> Iterator[Judged]:
        for (row, name), answer, parts in zip(_rows(trace), wanted, groups, strict=True):
            scores = _scores(denoiser, last, row, number, answer, parts, batch_size)
            texts = [_text(tokenizer, last, row, part) for part in parts]
            reasoning = [
                ReasoningPart(text, after, after - before)
                for text, before, after in zip(texts, scores, scores[1:], strict=False)
            ]
            yield Judged(name, tokenizer.decode(until_end(answer, tokenizer)).strip(), scores[0], tuple(reasoning))

    return judged()


def _rows(trace: Trace) -> Iterator[tuple[int, int | str]]:
    return enumerate(trace.canvas.ids)


def _wanted(tokenizer: Tokenizer, last: State, row: int, number: int, text: str | None) -> list[int]:
    """The tokens that are asked for in the slot."""
    places = np.flatnonzero(last.canvas.slot[row] == number)
    if text is None:
        if last.blank[row, places].any():
            raise ScoreError(f"row {last.canvas.ids[row]!r} was left before its answer was written; say which one")
        return last.tokens[row, places].tolist()
    tokens = tokenizer.encode(text)
    slot, valid = last.canvas.slot[row], last.canvas.valid[row]
    # as in `Template.content`: the last slot of a chat ends the turn
    has_turns = np.isin(last.canvas.tokens[row, slot < 0], tokenizer.turn_end[-1:]).any()
    turn = bool(has_turns) and int(slot[valid][-1]) == number
    whole = filled_up(tokens, len(places), tokenizer, turn=turn)
    if len(whole) != len(places):
        raise ScoreError(f"{text!r:.60} is {len(tokens)} tokens; the slot has {len(places)}")
    return whole


def _groups(tokenizer: Tokenizer, last: State, row: int, number: int, by: By) -> list[list[int]]:
    """Positions of the row's own text outside of the slot, part by part."""
    canvas = last.canvas
    positions = np.flatnonzero(canvas.blank[row] & ~last.blank[row] & (canvas.slot[row] != number)).tolist()
    if by == "step":
        steps = last.written[row, positions].tolist()
        return [[p for p, s in zip(positions, steps, strict=True) if s == step] for step in sorted(set(steps))]
    if by == "token":
        return [[position] for position in positions]
    slots = canvas.slot[row].tolist()
    texts = pieces(tokenizer, last.tokens[row, positions].tolist())
    groups: list[list[int]] = []
    for i, position in enumerate(positions):
        begins = i == 0 or slots[positions[i - 1]] != slots[position] or _ends(texts[i - 1], texts[i])
        # end tokens belong to what they end
        if begins and not (groups and last.tokens[row, position] in tokenizer.ends):
            groups.append([])
        groups[-1].append(position)
    return groups


def _ends(text: str, following: str) -> bool:
    """Whether a sentence or a line ends between two tokens."""
    return "\n" in text or (text.rstrip().endswith((".", "!", "?", ";")) and not following[:1].isalnum())


def _text(tokenizer: Tokenizer, last: State, row: int, part: list[int]) -> str:
    return tokenizer.decode([token for token in last.tokens[row, part].tolist() if token not in tokenizer.ends])


def _scores(
    denoiser: Denoiser, last: State, row: int, number: int, answer: list[int], parts: list[list[int]], batch_size: int
) -> list[float]:
    """log p(answer) before and after each part."""
    canvas, mask_id = last.canvas, denoiser.tokenizer.mask_id
    length = int(canvas.valid[row].sum())
    slot = canvas.slot[row, :length]
    asked = slot == number
    hidden = canvas.blank[row, :length] | asked
    tokens, blanks = list[list[int]](), list[list[bool]]()
    for part in ([], *parts):
        hidden = hidden.copy()
        hidden[part] = False
        tokens.append(np.where(hidden, mask_id, last.tokens[row, :length]).tolist())
        blanks.append(hidden.tolist())
    shown = Canvas.of_rows(tokens, [slot.tolist()] * len(tokens), canvas.names, mask_id, blank=blanks)
    right = last.tokens[row, :length].copy()
    right[asked] = answer
    places, answers = np.repeat(asked[None], len(tokens), 0), np.repeat(right[None], len(tokens), 0)
    return marginal_scores(denoiser, shown, places, answers, batch_size).tolist()

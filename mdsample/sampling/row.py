"""Row: what a run gave for one row of a canvas."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import attrs
import numpy as np

from mdsample.core import html
from mdsample.core.arrays import Bools, Ints
from mdsample.core.bounds import certain_sets
from mdsample.core.tokens import Tokenizer
from mdsample.sampling.state import Outcome

#: more than a model's rounding makes of one probability where it draws and where it ranks
_ROUNDING = 1e-4


@attrs.frozen
class Commit:
    """One token written into a blank."""

    step: int
    position: int
    token: int
    #: of the token, under the model's conditional at temperature 1
    probability: float
    #: of the position when it was written, nats
    entropy: float
    #: probability of the position's most probable token, 0 if it is not known
    confidence: float
    #: written by a stop rule, without asking the model
    by_rule: bool = False


@attrs.frozen
class Tried:
    """A length that was tried for a row with slots of unknown length."""

    #: positions of these slots, by name
    lengths: Mapping[str, int]
    #: as `Row.text`
    text: str
    #: log-probability of the text, nats, see `mdsample.sampling.lengths`; `None` if it was the only one
    score: float | None
    #: forward passes, those of its score included
    nfe: int


@attrs.frozen
class Grown:
    """A look at a slot that grows."""

    #: its positions
    length: int
    #: how sure the model was that the text ends there, 0 to 1; from 0.5 on the slot does not grow
    end: float


@attrs.frozen(eq=False, repr=False, slots=False)
class Row:
    """One row of a result."""

    id: int | str
    #: token ids of the row without padding, the mask token where a blank was left, `[L]` int32
    tokens: Ints
    #: number of the slot of each token, in the order of the template, −1 for fixed text, `[L]` int32
    slot: Ints
    #: what the model wrote, from the first slot on, with the fixed text between slots
    text: str
    #: each slot's text up to its end token, without surrounding white space; blanks left blank are skipped
    slots: dict[str, str]
    #: forward passes the row was in, and its steps
    nfe: int
    steps: int
    #: how many of its passes followed one another: fewer than steps where texts were guessed
    rounds: int
    outcome: Outcome
    #: blanks filled, and blanks left blank by a stop rule
    filled: int
    unfilled: int
    #: Σ b over steps, nats, b = ΣH − max H of a step's commits: its mean over the joint's runs bounds KL(joint ‖ law).
    #: inf where nothing is promised: if tokens were masked again or rewritten, if a language weighs several blanks of a
    #: slot (`regex` and its like), and of models whose noise is uniform
    error_bound: float
    #: Σ d over steps, d of a step's commits as in docs/bounds.md. Its mean over rows drawn at temperature 1 says how
    #: many texts may differ from decoding one at a time: at 0.05 at most 5 in 100, in that both can be drawn together
    #: so that the other 95 are the same (a maximal coupling). Of one row it is what the row adds to the mean. From 1 on
    #: it says nothing, but only the mean may be cut off there. inf where `error_bound` is
    tv_bound: float
    commits: tuple[Commit, ...]
    #: what is still blank, `[L]`
    blank: Bools
    #: the model's tokens
    tokenizer: Tokenizer
    #: where the template has slots of unknown length: what was tried, shortest first. `nfe` and `rounds` are of all of
    #: it, everything else is of the best
    tried: tuple[Tried, ...] = ()
    #: where a slot of the template grows: each look at it, the last at its length. `nfe` and `rounds` are with these
    grown: tuple[Grown, ...] = ()

    @property
    def tokens_per_forward(self) -> float:
        """Blanks filled per forward pass."""
        return self.filled / self.nfe if self.nfe else 0.0

    @property
    def guessed_text(self) -> str:
        """How many passes followed one another, where guesses made them fewer than steps; else empty."""
        return f" in {self.rounds} round{'s' * (self.rounds != 1)}" if self.rounds < self.steps else ""

    @property
    def certain(self) -> float:
        """Share of the tokens asked of the model that are provably the best of their step, alone or together.

        No other tokens of such a step are more probable, under any joint with the model's marginals (`certain_sets`):
        at temperature 0 nothing was lost by writing them at once. 1 if nothing was asked.
        """
        asked = [commit for commit in self.commits if not commit.by_rule]
        if not asked:
            return 1.0
        step = np.array([commit.step for commit in asked])
        p, c = (np.array([getattr(commit, name) for commit in asked]) for name in ("probability", "confidence"))
        best = certain_sets(step, c, self.steps)
        np.logical_and.at(best, step, p >= c - _ROUNDING)
        return float(best[step].mean())

    @property
    def written(self) -> dict[int, Commit]:
        """The commit of each position that the run wrote and did not mask again, by position."""
        return {commit.position: commit for commit in self.commits if not self.blank[commit.position]}

    @property
    def text_with_blanks(self) -> str:
        """`text`, with ░ for each blank that a stop rule left."""
        return "".join(piece for _, piece in self.shown()).strip()

    def shown(self) -> Iterator[tuple[int, str]]:
        """Each position from the first slot on, up to its slot's end token, with the text it adds; ░ for a blank."""
        slots, tokens, blank = self.slot.tolist(), self.tokens.tolist(), self.blank.tolist()
        begins = next((place for place, number in enumerate(slots) if number >= 0), len(slots))
        for number, run in groupby(range(begins, len(slots)), slots.__getitem__):
            places = list(run)
            if number >= 0:
                ends = (n for n, p in enumerate(places) if tokens[p] in self.tokenizer.ends and not blank[p])
                places = places[: next(ends, len(places))]
            for empty, stretch in groupby(places, blank.__getitem__):
                positions = list(stretch)
                known = [] if empty else pieces(self.tokenizer, [tokens[place] for place in positions])
                yield from zip(positions, known or [html.BLANK] * len(positions), strict=True)

    def to_dict(self) -> dict[str, Any]:
        """The row as a flat JSON object; an infinite bound is `None`; `text_with_blanks` only if some are left."""
        return {
            "id": self.id,
            "text": self.text,
            **({"text_with_blanks": self.text_with_blanks} if self.unfilled else {}),
            "slots": self.slots,
            "nfe": self.nfe,
            "steps": self.steps,
            "rounds": self.rounds,
            "tokens_per_forward": self.tokens_per_forward,
            "unfilled": self.unfilled,
            "outcome": self.outcome.name,
            "sentence": self.outcome.sentence,
            "error_bound": self.error_bound if math.isfinite(self.error_bound) else None,
            "tv_bound": self.tv_bound if math.isfinite(self.tv_bound) else None,
            "certain": self.certain,
            **({"tried": [attrs.asdict(one) for one in self.tried]} if self.tried else {}),
            **({"grown": [attrs.asdict(one) for one in self.grown]} if self.grown else {}),
        }

    def headline(self) -> str:
        """The slot that matters most, `answer` or else the last, with its text; empty without slots."""
        name = "answer" if "answer" in self.slots else next(reversed(self.slots), "")
        text = self.slots.get(name, "")
        return f"{name}={text if len(text) <= 60 else text[:59] + '…'!r}" if name else ""

    def __repr__(self) -> str:
        """The id, the answer, what it cost and why it ended."""
        return f"Row({', '.join(filter(None, (repr(self.id), self.headline(), f'nfe={self.nfe}', self.outcome.name)))})"

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        """As rich shows it: also the texts of all slots."""
        yield "id", self.id
        yield "slots", self.slots
        yield "nfe", self.nfe
        yield "outcome", self.outcome.name

    def _repr_html_(self) -> str:
        return html.picture(self.facts_html() + html.cells(self.cells()) + html.key("step 1", f"{self.steps}"))

    def facts_html(self) -> str:
        """One line of HTML: what it says and what it cost."""
        passes = f"{self.nfe} forward pass{'es' * (self.nfe != 1)}" + self.guessed_text
        bound = f"error bound {self.error_bound:.2g} nats" if math.isfinite(self.error_bound) else "no error bound"
        rate = f"{self.tokens_per_forward:.1f} tokens each"
        tried = (f"best of {len(self.tried)} lengths",) if len(self.tried) > 1 else ()
        return html.facts(self.headline() or f"row {self.id}", passes, rate, self.outcome.name, bound, *tried)

    def canvas_text(self, latest: int | None = None) -> str:
        """The whole row, prompt included, blanks as ░; what step `latest` wrote is between ‹ and ›."""
        written = self.written
        new = [place in written and written[place].step == latest for place in range(len(self.tokens))]
        text = ""
        for mark, run in groupby(zip(self.cells(), new, strict=True), lambda pair: pair[1]):
            piece = "".join(cell.text for cell, _ in run)
            text += f"‹{piece}›" if mark else piece
        return text

    def cells(self) -> Iterator[html.Cell]:
        """The whole row, prompt included, token by token."""
        tokens, written = self.tokens.tolist(), self.written
        for blank, run in groupby(range(len(tokens)), self.blank.tolist().__getitem__):
            places = list(run)
            if blank:
                yield from (html.Cell(html.BLANK, f"position {place}: blank", "b") for place in places)
                continue
            for place, piece in zip(places, pieces(self.tokenizer, [tokens[place] for place in places]), strict=True):
                commit = written.get(place)
                if commit is None:
                    # what is given fills its slot with end tokens, which have no text
                    yield html.Cell(piece)
                    continue
                how = "by rule" if commit.by_rule else f"p {commit.probability:.3f}, entropy {commit.entropy:.3f} nats"
                ended = tokens[place] in self.tokenizer.ends
                look = f"s{html.colour(commit.step, self.steps)}{' e' * ended}"
                yield html.Cell(html.END if ended else piece, f"step {commit.step + 1} of {self.steps}, {how}", look)


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text that each token adds to those before it; together they are `tokenizer.decode(tokens)`.

    A character that is spread over several tokens comes with the last of them.
    """
    texts: list[str] = []
    length = 0
    for count in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:count])
        # what ends in a replacement character may still become another one
        whole = text if count == len(tokens) else text.rstrip("\ufffd")
        texts.append(whole[length:])
        length = max(length, len(whole))
    return texts

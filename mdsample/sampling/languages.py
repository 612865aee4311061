"""What constraints come to on a canvas: sets folded together, languages of one slot intersected, dead ends refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs
import numpy as np

from mdsample.constraints.program import possible
from mdsample.constraints.query import intersect, text_lengths
from mdsample.core.arrays import Bools, Ints, any_in_row
from mdsample.core.canvas import Canvas
from mdsample.core.language import Automaton, Span
from mdsample.core.restriction import Restriction
from mdsample.errors import NoTextError
from mdsample.policy.view import Batch


def both(left: Restriction, right: Restriction) -> Restriction:
    """Two restrictions at once, whose spans are whole slots."""
    spans = {(span.row, int(span.positions[0])): span for span in left.spans}
    met: dict[tuple[int, int], Automaton] = {}
    for span in right.spans:
        key = span.row, int(span.positions[0])
        if (other := spans.get(key)) is not None:
            pair = id(other.language), id(span.language)
            if pair not in met:
                met[pair] = intersect(other.language, span.language)
            span = attrs.evolve(span, language=met[pair], weighed=span.weighed or other.weighed)
        spans[key] = span
    folded = left.within(right)
    return Restriction(folded.sets, folded.index, tuple(spans.values()))


def require_texts(restriction: Restriction, canvas: Canvas, ends: Collection[int]) -> None:
    """`ValueError`, with what to do, where no token or no text of a slot's language may stand; `ends` end a text.

    It is a `NoTextError` where it hangs on the slot's length.
    """
    empty = ~any_in_row(restriction.sets)
    bad = np.argwhere(canvas.blank & empty[restriction.index])
    if len(bad):
        row, position = bad[0].tolist()
        raise ValueError(
            f"the constraints leave no token for position {position} of row {canvas.ids[row]!r}; loosen one of them"
        )
    available = Available(restriction)
    seen: set[tuple[object, ...]] = set()
    for span in restriction.spans:
        key = id(span.language), span.tokens.tobytes(), restriction.index[span.row, span.positions].tobytes()
        if key not in seen:
            seen.add(key)
            _require_text(span, available, canvas, ends)


def _require_text(span: Span, available: Available, canvas: Canvas, ends: Collection[int]) -> None:
    if available.classes(span).any(1).all():
        return
    slot = canvas.names[int(canvas.slot[span.row, span.positions[0]])]
    where, count = f"slot {slot!r} of row {canvas.ids[span.row]!r}", len(span.positions)
    everything = np.ones((1, count, span.language.symbols), np.bool_)
    everything[:, :, 0] = False
    blank = np.full((1, count), -1, np.int32)
    if not possible(span.language, blank, everything).any():
        raise NoTextError(
            f"no text of the language of {where} fills its {count} tokens: {_lengths(span.language, ends)}; "
            "change the length of the slot, or the language"
        )
    if not possible(span.language, span.language.classes_of(span.tokens)[None], everything).any(2).all():
        raise ValueError(
            f"what stands in {where} already agrees with none of the texts of its language, or leaves no room for one; "
            "change one of them"
        )
    raise NoTextError(f"the other constraints forbid every text of the language of {where}; loosen one of them")


def _lengths(language: Automaton, ends: Collection[int]) -> str:
    """How long texts are, for a person."""
    shortest, longest = text_lengths(language, ends)
    if longest is None:
        return f"its shortest text has {shortest}"
    return f"its texts have {shortest}" + (f" to {longest}" if longest > shortest else "")


class Available:
    """Which token classes of each span may stand where, whatever the model says."""

    def __init__(self, restriction: Restriction) -> None:
        """`restriction`: whose sets count."""
        self._restriction = restriction
        self._kept: dict[tuple[int, int], tuple[Bools, Ints, Ints]] = {}

    def under(self, restriction: Restriction) -> Available:
        """The same under a restriction of the same sets and languages; what is known of them is shared."""
        other = Available(restriction)
        other._kept = self._kept
        return other

    def classes(self, span: Span) -> Bools:
        """Classes that may stand at each position, given what is written in the span, `[n, C]`."""
        index = self._restriction.index[span.row, span.positions]
        some = np.stack([self.members(span.language, int(which))[0] for which in index])
        return possible(span.language, span.language.classes_of(span.tokens)[None], some[None])[0]

    def members(self, language: Automaton, which: int) -> tuple[Bools, Ints, Ints]:
        """Of a set of the restriction: which classes have a token in it, the first such token, and how many, `[C]`."""
        key = id(language), which
        if key not in self._kept:
            tokens = np.flatnonzero(self._restriction.sets[which] & (language.classes > 0))
            count = np.bincount(language.classes[tokens], minlength=language.symbols).astype(np.int32)
            first = np.zeros(language.symbols, np.int32)
            first[language.classes[tokens[::-1]]] = tokens[::-1]
            self._kept[key] = count > 0, first, count
        return self._kept[key]

    def possible(self, tokens: Ints, blank: Bools) -> Bools:
        """Which texts leave each of their languages a text, `[B]`; `tokens`, `blank` `[B, L]` of all rows."""
        out = np.ones(len(tokens), np.bool_)
        for span in now(self._restriction.spans, np.arange(len(tokens), dtype=np.int32), tokens, blank):
            out[span.row] &= self.classes(span).any(1).all()
        return out

    def fill(self, batch: Batch, rows: Ints) -> Ints:
        """The tokens of blanks where nothing else may stand, `[B, L]` with −1 elsewhere; `rows [B]` of the canvas."""
        out = np.full(batch.tokens.shape, -1, np.int32)
        for span in now(self._restriction.spans, rows, batch.tokens, batch.blank):
            if (span.tokens < 0).any():
                position, token = self.settled(attrs.evolve(span, row=int(rows[span.row])))
                out[span.row, position] = token
        return out

    def settled(self, span: Span) -> tuple[Ints, Ints]:
        """Blanks of a span where one token alone may stand: positions and tokens, `[k]`."""
        index = self._restriction.index[span.row, span.positions]
        classes = self.classes(span)
        place = np.flatnonzero((classes.sum(1) == 1) & (span.tokens < 0))
        position: list[int] = []
        token: list[int] = []
        for n, symbol in zip(place.tolist(), classes[place].argmax(1).tolist(), strict=True):
            _, first, count = self.members(span.language, int(index[n]))
            if count[symbol] == 1:
                position.append(int(span.positions[n]))
                token.append(int(first[symbol]))
        return np.array(position, np.int32), np.array(token, np.int32)


def now(spans: Sequence[Span], rows: Ints, tokens: Ints, blank: Bools) -> tuple[Span, ...]:
    """The spans of some rows of a canvas as they stand; `rows [R]`, `tokens`, `blank` `[R, L]`."""
    lines: dict[int, list[int]] = {}
    for line, row in enumerate(rows.tolist()):
        lines.setdefault(row, []).append(line)
    return tuple(
        Span(
            line,
            span.positions,
            np.where(blank[line, span.positions], np.int32(-1), tokens[line, span.positions]),
            span.language,
            span.weighed,
        )
        for span in spans
        for line in lines.get(span.row, ())
    )


def with_spans(wanted: Bools, spans: Sequence[Span], blank: Bools) -> Bools:
    """What is wanted, and every blank of a span that has something wanted: its law depends on all of them; `[B, L]`."""
    if not spans:
        return wanted
    wanted = wanted.copy()
    for span in spans:
        if wanted[span.row, span.positions].any():
            wanted[span.row, span.positions] |= blank[span.row, span.positions]
    return wanted

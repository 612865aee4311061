"""Reading: the text of a row that may be told while the row is still being filled.

What is told only grows: it is the text before the first position that is not final, without a letter that is not all
there yet, and without white space at its end that the whole text would not have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import attrs
import numpy as np

from mdsample.core.arrays import Bools, Ints
from mdsample.core.template import Template
from mdsample.core.tokens import Tokenizer
from mdsample.sampling.structured import Structured


@attrs.frozen(eq=False)
class Stretch:
    """A part of the text: the positions of a slot or of fixed text, or a text that stands there in any case."""

    positions: Ints
    #: it is a slot: its text goes up to its end token
    slot: bool
    #: what stands there, whatever the tokens are
    text: str | None = None
    #: without white space around it
    stripped: bool = False


@attrs.frozen
class Told:
    """What may be told of a row."""

    text: str
    #: all of it is there
    whole: bool
    #: its last slot came to an end token
    ended: bool


@attrs.frozen
class Share:
    """The tokens of a slot that stand in a text, if only in part."""

    positions: list[int]
    #: characters of the text before the first of them
    offset: int


@attrs.frozen(eq=False)
class Reader:
    """Which positions of a row are its text, and how they are read."""

    tokenizer: Tokenizer
    stretches: tuple[Stretch, ...]
    #: the whole is without white space around it
    stripped: bool

    @staticmethod
    def between_slots(tokenizer: Tokenizer, slot: Sequence[int], *, stripped: bool) -> Reader:
        """From the first slot of a row to its last one, with the fixed text between them; `slot` as in `Prepared`."""
        numbers = np.asarray(slot)
        inside = np.flatnonzero(numbers >= 0)
        if not len(inside):
            return Reader(tokenizer, (), stripped)
        first, last = int(inside[0]), int(inside[-1]) + 1
        cuts = [first, *(np.flatnonzero(np.diff(numbers[first:last])) + first + 1).tolist(), last]
        stretches = [
            Stretch(np.arange(start, end, dtype=np.int32), bool(numbers[start] >= 0)) for start, end in pairwise(cuts)
        ]
        return Reader(tokenizer, tuple(stretches), stripped)

    @staticmethod
    def of_json(tokenizer: Tokenizer, slot: Sequence[int], structured: Structured, template: Template) -> Reader:
        """The JSON of a schema that stands in the row, and nothing around it."""
        numbers, nothing = np.asarray(slot), np.zeros(0, np.int32)
        stretches: list[Stretch] = []
        for piece in structured.pinned.pieces:
            if isinstance(piece, str):
                stretches.append(Stretch(nothing, False, piece))
            else:
                where = np.flatnonzero(numbers == template.slots.index(piece.name)).astype(np.int32)
                stretches.append(Stretch(where, True, stripped=True))
        return Reader(tokenizer, tuple(stretches), stripped=True)

    def told(self, tokens: Ints, final: Bools, *, whole: bool = False) -> Told:
        """What may be told of a row's `tokens [L]`, of which those in `final [L]` never change again.

        `whole`: the row is done; blanks that were left are skipped.
        """
        text, ended, reached = "", False, True
        for stretch in self.stretches:
            piece, ended, reached = self._read(stretch, tokens, final, whole)
            text += piece
            if not reached:
                break
        if self.stripped:
            text = text.strip()
        return Told(text, reached, ended)

    def shares(self, tokens: Ints, blank: Bools, length: int) -> list[Share]:
        """Of each slot of a row that is done, what stands in the first `length` characters of its text.

        Without white space around the text, if that is cut off, and without what follows a stop.
        """
        read = [self._read(stretch, tokens, ~blank, True)[0] for stretch in self.stretches]
        whole = "".join(read)
        # a place in the whole is one in the text and what is cut off before it
        cut = len(whole) - len(whole.lstrip()) if self.stripped else 0
        at, found = 0, list[Share]()
        for stretch, piece in zip(self.stretches, read, strict=True):
            if stretch.slot:
                run = self._written(stretch, tokens, blank)
                raw = self.tokenizer.decode(tokens[run].tolist())
                inner = len(raw) - len(raw.lstrip()) if stretch.stripped else 0
                begin, end = max(0, cut - at), min(len(piece), cut + length - at)
                first, last, before = self._between(tokens[run].tolist(), inner + begin, inner + end)
                found.append(Share(run[first:last], at - cut + before - inner))
            at += len(piece)
        return found

    def _between(self, run: list[int], begin: int, end: int) -> tuple[int, int, int]:
        """The first token of a run that has some of its text from `begin` to `end`, the one after the last, and the
        characters before the first."""
        if begin >= end:
            return 0, 0, 0

        def reach(count: int) -> int:
            """How far so many tokens get; a letter that is not all there does not count, unless all ends in it."""
            text = self.tokenizer.decode(run[:count])
            return len(text if count == len(run) else text.rstrip("\ufffd"))

        counts = range(len(run) + 1)
        first = bisect_left(counts, begin, key=reach)
        if reach(first) > begin:  # the one before it goes on in the text
            first -= 1
        return first, bisect_left(counts, end, key=reach), reach(first)

    def _written(self, stretch: Stretch, tokens: Ints, blank: Bools) -> list[int]:
        """The positions of a slot that hold its text."""
        found: list[int] = []
        for position in stretch.positions.tolist():
            if blank[position]:
                continue
            if int(tokens[position]) in self.tokenizer.ends:
                break
            found.append(position)
        return found

    def _read(self, stretch: Stretch, tokens: Ints, final: Bools, whole: bool) -> tuple[str, bool, bool]:
        """The text, whether an end token was met, and whether all of it is there."""
        if stretch.text is not None:
            return stretch.text, False, True
        if not stretch.slot:
            return self.tokenizer.decode(tokens[stretch.positions].tolist()), False, True
        run: list[int] = []
        ended, reached = False, True
        for position in stretch.positions.tolist():
            if not final[position]:
                if whole:
                    continue
                reached = False
                break
            token = int(tokens[position])
            if token in self.tokenizer.ends:
                ended = True
                break
            run.append(token)
        text = self.tokenizer.decode(run)
        if not reached:
            text = text.rstrip("\ufffd")
        if stretch.stripped:
            text = text.strip()
        return text, ended, reached


@attrs.frozen
class Stops:
    """Texts at which a row's text ends: before the one that is complete first."""

    texts: tuple[str, ...] = ()

    def cut(self, text: str) -> tuple[str, bool]:
        """The text before it, and whether there is one."""
        found = [(place + len(stop), place) for stop in self.texts if (place := text.find(stop)) >= 0]
        return (text[: min(found)[1]], True) if found else (text, False)

    def sure(self, text: str) -> str:
        """What of the beginning of a text will be told, however it goes on."""
        before, stopped = self.cut(text)
        if stopped:
            return before
        kept = len(text)
        for stop in self.texts:
            # the longest end of the text with which the stop may begin
            begun = next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
            kept = min(kept, len(text) - begun)
        return text[:kept]

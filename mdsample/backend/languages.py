"""The slots of a prediction that hold a language: what is asked of the device, and the weights that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs
import numpy as np

from mdsample.backend.sums import Sums
from mdsample.constraints.program import weights
from mdsample.core.arrays import Doubles, Indices, Ints, Longs
from mdsample.core.language import Automaton, Span
from mdsample.errors import ModelError


@attrs.frozen(eq=False)
class Weights:
    """Log-weights of the token classes at places that are numbered from 0 to N − 1."""

    #: the language at each place, −1 where there is none, `[N]`
    language: Longs
    #: and which line of that language's table is the place's, `[N]`
    line: Longs
    #: each language with its table `[M, C]`, −inf for what may not stand there; the greatest of a line is 0
    tables: tuple[tuple[Automaton, Doubles], ...]

    def of(self, number: int) -> Doubles:
        """Those at a place that has a language, `[C]`."""
        return self.tables[int(self.language[number])][1][int(self.line[number])]

    def at(self, numbers: Indices) -> Iterator[tuple[Automaton, Longs, Doubles]]:
        """For each language among some places: which of these it is at, `[k]`, and its weights there, `[k, C]`."""
        language = self.language[numbers]
        for index, (automaton, table) in enumerate(self.tables):
            where = np.flatnonzero(language == index)
            if len(where):
                yield automaton, where, table[self.line[numbers[where]]]

    def only(self, numbers: Indices, classes: Ints) -> Weights:
        """These, but at the places `numbers [k]` nothing is left but one class each, `classes [k]`."""
        line, tables = self.line.copy(), list[tuple[Automaton, Doubles]]()
        for index, (automaton, table) in enumerate(self.tables):
            here = np.flatnonzero(self.language[numbers] == index)
            alone = np.full((len(here), automaton.symbols), -np.inf)
            alone[np.arange(len(here)), classes[here]] = 0
            line[numbers[here]] = len(table) + np.arange(len(here))
            tables.append((automaton, np.concatenate([table, alone])))
        return Weights(self.language, line, tuple(tables))


class Languages:
    """The spans of one query, some of whose N wanted places they hold."""

    def __init__(self, spans: Sequence[Span], number: Longs) -> None:
        """`number [B, L]`: the number of each place, −1 where nothing is wanted.

        Spans without a wanted place are left out. Raises `ValueError` if a blank of another span is not wanted: its law
        depends on all of them.
        """
        self.spans = [span for span in spans if (number[span.row, span.positions] >= 0).any()]
        self.numbers = [number[span.row, span.positions] for span in self.spans]
        for span, numbers in zip(self.spans, self.numbers, strict=True):
            if (numbers[span.tokens < 0] < 0).any():
                raise ValueError(f"row {span.row}: every blank of a slot that holds a language must be predicted")
        self.written = [span.language.classes_of(span.tokens) for span in self.spans]
        count = int(number.max(initial=-1)) + 1
        #: of each place: its span, −1 without, and where in it
        self.span, self.column = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        #: its language, −1 without, and which of that language's places it is
        self.language, self.line = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        known: dict[int, int] = {}
        for index, (span, numbers) in enumerate(zip(self.spans, self.numbers, strict=True)):
            seen = numbers >= 0
            self.span[numbers[seen]], self.column[numbers[seen]] = index, np.flatnonzero(seen)
            self.language[numbers[seen]] = known.setdefault(id(span.language), len(known))
        #: each language, and its places, ascending
        self.asked: list[tuple[Automaton, Longs]] = []
        for index, of in enumerate({id(span.language): span.language for span in self.spans}.values()):
            numbers = np.flatnonzero(self.language == index)
            self.line[numbers] = np.arange(len(numbers))
            self.asked.append((of, numbers))
        #: of each language that is asked for, at its places
        self.sums: Sequence[Sums] = ()
        self._mass: list[Doubles] = []

    def told(self, sums: Sequence[Sums]) -> Weights:
        """Takes what was asked for; the weights of all places."""
        self.sums = sums
        masses = [of.masses for of in sums]
        for span, numbers in zip(self.spans, self.numbers, strict=True):
            seen = numbers >= 0
            mass = np.full((len(seen), span.language.symbols), -np.inf)
            mass[seen] = masses[int(self.language[numbers[seen][0]])][self.line[numbers[seen]]]
            self._mass.append(mass)
        return self.weights(self.written)

    def at(self, number: int) -> tuple[int, int]:
        """The span that holds a place, and where in it."""
        return int(self.span[number]), int(self.column[number])

    def mass(self, number: int) -> Doubles:
        """Log-masses of the classes at a place, `[C]`, up to a constant."""
        span, column = self.at(number)
        return self._mass[span][column]

    def tops(self, number: int) -> tuple[Ints, Doubles]:
        """The best token of each class at a place and its score, `[C]`, up to the same constant."""
        sums, line = self.sums[int(self.language[number])], int(self.line[number])
        return sums.token[line], sums.top[line]

    def found(self, written: Sequence[Ints], which: Iterable[int]) -> dict[int, Doubles]:
        """Log-weights `[n, C]` of some spans, by their numbers, with these classes `[n]` written in each span."""
        alike: dict[tuple[int, int], list[int]] = {}
        for index in which:
            alike.setdefault((id(self.spans[index].language), len(written[index])), []).append(index)
        out: dict[int, Doubles] = {}
        for group in alike.values():
            language = self.spans[group[0]].language
            mass = np.stack([self._mass[index] for index in group])
            out.update(zip(group, weights(language, np.stack([written[index] for index in group]), mass), strict=True))
        for index, table in out.items():
            peak: Doubles = table.max(1, keepdims=True)
            if (peak == -np.inf).any():
                span = self.spans[index]
                raise ModelError(
                    f"row {span.row}: what is written in the slot from position {span.positions[0]} on, or what the "
                    "model gives probability zero, leaves no text of the slot's language; loosen the constraints"
                )
            table -= peak
            if not self.spans[index].weighed:
                table[table > -np.inf] = 0
        return out

    def weights(self, written: Sequence[Ints]) -> Weights:
        """The weights of all places, with these classes written in each span."""
        found = self.found(written, range(len(self.spans)))
        language, line = np.full(len(self.span), -1, np.int64), np.zeros(len(self.span), np.int64)
        tables: dict[int, tuple[int, Automaton, list[Doubles]]] = {}
        begin: dict[int, int] = {}
        for index, span in enumerate(self.spans):
            key = id(span.language)
            number, _, table = tables.setdefault(key, (len(tables), span.language, []))
            places = np.flatnonzero(self.span == index)
            language[places], line[places] = number, begin.get(key, 0) + self.column[places]
            begin[key] = begin.get(key, 0) + len(span.positions)
            table.append(found[index])
        return Weights(language, line, tuple((of, np.concatenate(parts)) for _, of, parts in tables.values()))

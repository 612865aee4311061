"""Canvas: a batch of token rows on their way from blanks to text."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import SupportsIndex, cast

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.core import html
from mdsample.core.arrays import Bools, Indices, Ints, arange64
from mdsample.errors import shown


def identities(ids: Sequence[object]) -> tuple[int | str, ...]:
    """Row ids as texts and Python's own numbers; `ValueError` for text that is not valid unicode."""
    # randomness hangs on the type too, so a NumPy integer must become the number that it is
    if isinstance(ids, str):
        raise TypeError(f"row ids are a list of texts and whole numbers; got the text {ids!r:.80}")
    if not hasattr(ids, "__iter__"):
        raise TypeError(f"row ids are a list of texts and whole numbers; got {shown(ids)}")
    for name in ids:
        if not isinstance(name, str) and not hasattr(name, "__index__"):
            raise TypeError(f"a row id is text or a whole number; got {shown(name)}")
    out = tuple(str(name) if isinstance(name, str) else operator.index(cast("SupportsIndex", name)) for name in ids)
    for name in out:
        if isinstance(name, str) and any("\ud800" <= character <= "\udfff" for character in name):
            raise ValueError(f"the row id {name!r} holds half of a surrogate pair, which is not valid unicode")
    return out


def _array(kind: type[np.generic], words: str) -> Callable[[object, attrs.Attribute[np.ndarray], object], None]:
    """A validator: an array of this kind of values."""

    def check(_: object, attribute: attrs.Attribute[np.ndarray], value: object) -> None:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{attribute.name} of a canvas must be a NumPy array of {words}; got {value!r:.60}")
        array = cast("NDArray[np.generic]", value)
        if not np.issubdtype(array.dtype, kind):
            raise TypeError(f"{attribute.name} of a canvas must be an array of {words}; it holds {array.dtype}")

    return check


def _names(_: object, attribute: attrs.Attribute[tuple[str, ...]], value: object) -> None:
    members = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (None,)
    if not all(isinstance(name, str) for name in members):
        raise TypeError(f"{attribute.name} of a canvas must be a tuple of slot names; got {value!r:.60}")


_WHOLE = _array(np.integer, "whole numbers")
_TRUTH = _array(np.bool_, "bools")
#: rows that a notebook shows
_SHOWN = 10


@attrs.frozen(eq=False, repr=False)
class Canvas:
    """Rows to fill; arrays `[B, L]`. What is blank is marked by position, never by the value of a token.

    So a mask token in fixed text is text like any other, and a mask id of 0 is as good as any.
    Shorter rows are padded at the end (`valid` false).
    """

    #: int32; the mask token in blanks
    tokens: Ints = attrs.field(validator=_WHOLE)
    #: positions to fill
    blank: Bools = attrs.field(validator=_TRUTH)
    #: number of the slot a position belongs to (pre-filled positions of a slot too), −1 for fixed text
    slot: Ints = attrs.field(validator=_WHOLE)
    #: belongs to the row; false in padding
    valid: Bools = attrs.field(validator=_TRUTH)
    #: slot names; `slot` indexes them
    names: tuple[str, ...] = attrs.field(validator=_names)
    #: one identity per row: randomness and resuming are keyed by it
    ids: tuple[int | str, ...] = attrs.field(converter=identities)
    #: slots that need not see the text after them, see `unseen`
    blind: tuple[str, ...] = attrs.field(default=(), validator=_names)

    def __attrs_post_init__(self) -> None:
        """Checks shapes and identities."""
        shapes = {a.shape for a in (self.tokens, self.blank, self.slot, self.valid)}
        if len(shapes) != 1 or self.tokens.ndim != 2:
            raise ValueError(f"a canvas needs four arrays of one shape [rows, positions]; got {sorted(shapes)}")
        if len(self.ids) != len(self.tokens):
            raise ValueError(f"a canvas of {len(self.tokens)} rows needs as many ids; got {len(self.ids)}")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("row ids must differ: randomness is keyed by them")
        if (self.blank & ~self.valid).any():
            raise ValueError("padding cannot be blank")
        if (self.valid[:, 1:] & ~self.valid[:, :-1]).any():
            raise ValueError("padding must stand at the end of a row")
        if (self.blank & (self.slot < 0)).any():
            raise ValueError("a blank must belong to a slot")
        if (self.slot >= len(self.names)).any():
            raise ValueError(f"slot numbers must lie below {len(self.names)}, the number of slot names")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    def __repr__(self) -> str:
        """How many rows there are, how long they are, and their slots."""
        rows = f"{len(self)} row{'s' * (len(self) != 1)} of up to {int(self.valid.sum(1).max(initial=0))} tokens"
        return f"Canvas({rows}, slots: {', '.join(self.names) or 'none'})"

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        """As rich shows it."""
        yield "rows", len(self)
        yield "tokens", int(self.valid.sum(1).max(initial=0))
        yield "slots", self.names

    def _repr_html_(self) -> str:
        rows = [f"<div>{html.chips((('row', str(name)), *self._runs(i)))}</div>" for i, name in enumerate(self.ids)]
        more = f"<div>… and {len(self) - _SHOWN} more rows</div>" if len(self) > _SHOWN else ""
        return html.picture("".join(rows[:_SHOWN]) + more)

    def _runs(self, row: int) -> Iterator[tuple[str, str]]:
        """What a row consists of, from left to right: the slot or `text`, and how many tokens or blanks."""
        valid = self.valid[row]
        slots: list[int] = self.slot[row, valid].tolist()
        places = zip(slots, self.blank[row, valid].tolist(), strict=True)
        for (number, blank), run in groupby(places):
            count = sum(1 for _ in run)
            label = self.names[number] if number >= 0 else "text"
            yield label, f"{html.BLANK} × {count}" if blank else f"{count} token{'s' * (count != 1)}"

    def slot_length(self, name: str) -> int:
        """Positions of a slot, the fewest over rows; 0 without rows."""
        if name not in self.names:
            raise ValueError(f"there is no slot {shown(name)}; slots here: {', '.join(self.names) or 'none'}")
        return min((self.slot == self.names.index(name)).sum(1).tolist(), default=0)

    def take(self, rows: Sequence[int]) -> Canvas:
        """Some of the rows, without padding that none of them needs."""
        if not hasattr(rows, "__iter__") or not all(hasattr(row, "__index__") for row in rows):
            raise TypeError(f"take needs a list of numbers of rows, as in canvas.take([0]); got {shown(rows)}")
        if strange := [row for row in rows if not -len(self) <= row < len(self)]:
            raise ValueError(f"there is no row {strange[0]}; the canvas has {len(self)}, counted from 0")
        index = np.array(rows, dtype=np.int64)
        width = int(self.valid[index].sum(1).max(initial=1))
        return Canvas(
            self.tokens[index, :width],
            self.blank[index, :width],
            self.slot[index, :width],
            self.valid[index, :width],
            self.names,
            tuple(self.ids[row] for row in rows),
            self.blind,
        )

    def unseen(self, block: int | None, led: bool = False) -> str:
        """Text of a row that a slot before it cannot see, and the remedy; empty if there is no such thing.

        A model that sees a row in blocks of `block` positions sees nothing of later blocks. Slots in `blind` need not.
        Blocks are counted from the beginning of a row, `led` ones from its first open position.
        """
        if block is None or not self.blank.any():
            return ""
        seeing = self.blank & ~np.isin(self.slot, [self.names.index(name) for name in self.blind])
        places = arange64(self.blank.shape[1])[None]
        group = (places - self.blank.argmax(1)[:, None] if led else places) // block
        first = np.where(seeing, group, np.iinfo(np.int64).max).min(1, keepdims=True)
        hidden = np.argwhere(self.valid & ~self.blank & (group > first))
        if not len(hidden):
            return ""
        row, place = hidden[0].tolist()
        name, inside = self.names[int(self.slot[row, np.argmax(seeing[row])])], int(self.slot[row, place])
        what = "the text" if inside < 0 else f"what stands in slot {self.names[inside]!r}"
        return (
            f"row {self.ids[row]!r}: slot {name!r} cannot see {what} after it, from position {place} on, "
            f"because this model sees only blocks of {block} positions, each with all before it; put it before the "
            f"slot, or say in the template that the slot need not see it: {{{name}:{self.slot_length(name)}:blind}}"
        )

    def copies(self, rows: Indices) -> Canvas:
        """Rows of the canvas, some of them several times; their ids are numbers from 0."""
        tokens, blank, slot, valid = self.tokens[rows], self.blank[rows], self.slot[rows], self.valid[rows]
        return Canvas(tokens, blank, slot, valid, self.names, tuple(range(len(rows))), self.blind)

    @staticmethod
    def of_rows(
        rows: Sequence[Sequence[int]],
        slots: Sequence[Sequence[int]],
        names: tuple[str, ...],
        mask_id: int,
        ids: Sequence[int | str] | None = None,
        blank: Sequence[Sequence[bool]] | None = None,
        blind: tuple[str, ...] = (),
    ) -> Canvas:
        """Rows of unequal length, padded at the end. Unless `blank` says otherwise, slot positions are blank."""
        if not all(isinstance(many, Sequence | np.ndarray) for many in (rows, slots)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"rows and slots of a canvas are lists of lists of numbers; got {shown((rows, slots))}")
        length = max((len(row) for row in rows), default=0)
        shape = (len(rows), length)
        tokens = np.full(shape, mask_id, np.int32)
        slot = np.full(shape, -1, np.int32)
        valid = np.zeros(shape, np.bool_)
        empty = np.zeros(shape, np.bool_)
        for i, (row, where) in enumerate(zip(rows, slots, strict=True)):
            try:
                tokens[i, : len(row)] = row
                slot[i, : len(row)] = where
                valid[i, : len(row)] = True
                empty[i, : len(row)] = np.asarray(where) >= 0 if blank is None else blank[i]
            except (ValueError, OverflowError) as fault:
                raise ValueError(
                    f"row {i} of a canvas needs token ids, and for each the number of its slot; got {shown(row)} with "
                    f"{shown(where)}"
                ) from fault
        tokens[empty] = mask_id
        return Canvas(tokens, empty, slot, valid, names, range(len(rows)) if ids is None else ids, blind)

"""Turns: which rows are in the next forward pass, when there are more than places."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

#: forward passes after which a row gives up its place, if another one waits
TURN = 16


class Turns:
    """Rows and their places.

    A request holds no two places more than one that waits, so a request of many rows does not keep others out. A row
    keeps its place for a turn of `TURN` passes: short ones are then done, and long ones go on at the end of the line.
    """

    def __init__(self, places: int, turn: int = TURN) -> None:
        """`places`: rows in one forward pass."""
        self._places, self._turn = places, turn
        self._line: deque[int] = deque()
        #: passes of each row that has a place, since it took it
        self._seated: dict[int, int] = {}
        self._owner: dict[int, object] = {}

    def enter(self, rows: Sequence[int], owner: object) -> None:
        """Rows of one request come in."""
        self._owner.update(dict.fromkeys(rows, owner))
        self._line.extend(rows)

    def leave(self, row: int) -> None:
        """A row is done, or no longer wanted."""
        self._owner.pop(row, None)
        if self._seated.pop(row, None) is None and row in self._line:
            self._line.remove(row)

    def __len__(self) -> int:
        """Rows that are here."""
        return len(self._owner)

    @property
    def waiting(self) -> int:
        """Rows without a place."""
        return len(self._line)

    def next(self) -> list[int]:
        """The rows of the next pass; each that is seated has one pass more behind it."""
        for row in [row for row, passes in self._seated.items() if passes >= self._turn]:
            # with nobody in the line it is seated again below
            self._stand(row)
        held = Counter({owner: 0 for owner in self._owner.values()})
        held.update(self._owner[row] for row in self._seated)
        while self._line:
            row = min(self._line, key=lambda row: held[self._owner[row]])  # the first of equals
            owner = self._owner[row]
            if len(self._seated) >= self._places:
                richest, most = held.most_common(1)[0]
                if most < held[owner] + 2:
                    break
                yields = max((r for r in self._seated if self._owner[r] == richest), key=self._seated.__getitem__)
                self._stand(yields)
                held[richest] -= 1
            self._line.remove(row)
            self._seated[row] = 0
            held[owner] += 1
        for row in self._seated:
            self._seated[row] += 1
        return list(self._seated)

    def _stand(self, row: int) -> None:
        """To the end of the line."""
        del self._seated[row]
        self._line.append(row)

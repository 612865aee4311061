"""Turns: nobody is kept out, no place stands idle, and a row that waits moves on."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_serve.turns import Turns

#: of each request, the passes that each of its rows takes
REQUESTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=60)
@given(REQUESTS, st.integers(1, 5), st.integers(1, 4), st.data())
def test_all_are_served_and_none_holds_two_places_more_than_one_that_waits(
    requests: list[list[int]], places: int, turn: int, data: st.DataObject
) -> None:
    turns = Turns(places, turn)
    left: dict[int, int] = {}
    owner: dict[int, int] = {}
    since: dict[int, int] = {}
    waiting = list(enumerate(requests))
    total = sum(map(sum, requests))
    for _ in range(total + len(requests)):
        while waiting and (not left or data.draw(st.booleans())):
            number, rows = waiting.pop()
            numbers = [len(owner) + n for n in range(len(rows))]
            owner.update(dict.fromkeys(numbers, number))
            left.update(zip(numbers, rows, strict=True))
            turns.enter(numbers, number)
        chosen = turns.next()
        assert len(set(chosen)) == len(chosen) == min(places, len(left))
        held = Counter({owner[row]: 0 for row in left}) + Counter()
        held.update(owner[row] for row in chosen)
        for row in left.keys() - set(chosen):
            since[row] = since.get(row, 0) + 1
            assert max(held.values()) < held[owner[row]] + 2
            # everyone before it in the line has a turn at most, before and after it
            assert since[row] <= (len(owner) + places) * (turn + 1)
        for row in chosen:
            since[row] = 0
            left[row] -= 1
            if not left[row] or data.draw(st.integers(0, 20)) == 0:
                del left[row]
                turns.leave(row)
        assert len(turns) == len(left)
        if not left and not waiting:
            return
    raise AssertionError("not all were served")


def test_short_rows_pass_a_long_one() -> None:
    turns = Turns(1, turn=4)
    turns.enter([0], "long")
    assert [turns.next() for _ in range(6)] == [[0]] * 6
    turns.enter([1], "short")
    seen = [turns.next()[0] for _ in range(8)]
    assert seen.index(1) <= 4 and seen.count(1) == 4
    turns.leave(7)  # of a row that is not there nothing comes


def test_a_request_of_one_row_gets_a_place_at_once() -> None:
    turns = Turns(4, turn=100)
    turns.enter(range(10), "many")
    assert turns.next() == [0, 1, 2, 3]
    turns.enter([10], "one")
    assert 10 in turns.next()
    assert turns.waiting == 7

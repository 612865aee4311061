"""Lists: how many items a list of a JSON schema has and of which schema, and lists of different items written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from mdsample.constraints.expression import LONGEST
from mdsample.constraints.nodes import OF_TYPE, At, Node, check, count, listed
from mdsample.errors import shown

#: items of a list of which each is a slot
SLOTS = 64
#: lists of different items that are written out
_WRITTEN = 2_000


@attrs.frozen
class Items:
    """What a list holds."""

    least: int
    #: `None`: no limit
    most: int | None
    #: schemas of the first items
    prefix: Sequence[object]
    #: schema of those after them
    rest: object
    #: no two are equal
    different: bool

    @property
    def apart(self) -> bool:
        """Whether each item may be a slot of its own.

        Slots are empty independently of one another, so an item may come to stand where one before it is missing. That
        does no harm where all that may be missing have one schema.
        """
        if self.most is None or self.most > SLOTS or self.different:
            return False
        return self.least >= len(self.prefix) or self.most - self.least <= 1

    def schema(self, number: int, at: At) -> tuple[object, At]:
        """The schema of an item, and its place."""
        if number < len(self.prefix):
            return self.prefix[number], at.down("prefixItems", number)
        return self.rest, at.down("items")


def items_of(node: Node, at: At) -> Items:
    """The items of a list; refused where no list has so many."""
    check(node, at, OF_TYPE["array"])
    prefix = listed(node["prefixItems"], at.down("prefixItems")) if "prefixItems" in node else []
    rest = node.get("items", not prefix)
    different = node.get("uniqueItems", False)
    if not isinstance(different, bool):
        raise at.refuse(f"has uniqueItems {shown(different)}; it must be true or false")
    most = count(node, "maxItems", at, len(prefix) if prefix and rest is False else None)
    least = count(node, "minItems", at, 0) or 0
    if most is not None and least > most:
        raise at.refuse(f"needs at least {least} items and allows at most {most}; no list has both")
    if most is not None and most > len(prefix) and rest is False:
        raise at.refuse(f"allows {most} items and describes {len(prefix)}; lower maxItems, or describe items")
    return Items(least, most, prefix[:most], rest, different and most not in (0, 1))


def different_lists(values: Sequence[Mapping[str, str]], least: int, at: At) -> tuple[str, list[str]]:
    """Lists of at least `least` items that all differ, without brackets, as an expression, and one of the longest.

    `values`: for each place what may stand there, the expression of a value by what it is equal to.
    """
    if len(values) > SLOTS:
        raise at.refuse(f"has up to {len(values):,} different items, and {SLOTS} are the most; lower maxItems")
    longest: list[str] = []
    written = characters = 0

    def after(used: tuple[str, ...]) -> str | None:
        """What may follow these; `None` if they cannot become a whole list."""
        nonlocal longest, written, characters
        written += 1
        characters += len(values[len(used) - 1][used[-1]]) if used else 0
        if written > _WRITTEN or characters > LONGEST:
            raise at.refuse(
                f"has more than {_WRITTEN:,} lists of different items, or {LONGEST:,} characters of them; lower "
                "maxItems, or list fewer values"
            )
        if len(used) > len(longest):
            longest = [*used]
        place = len(used)
        comma = ", " if place else ""
        open_: Mapping[str, str] = values[place] if place < len(values) else {}
        ways = [(text, after((*used, key))) for key, text in open_.items() if key not in used]
        whole = [f"{comma}{text}{rest}" for text, rest in ways if rest is not None]
        if not whole:
            return None if place < least else ""
        return f"(?:{'|'.join(whole)}){'?' if place >= least else ''}"

    pattern = after(())
    if pattern is None:
        raise at.refuse(f"needs {least} different items and describes fewer values; no list has both")
    return pattern, [values[place][key] for place, key in enumerate(longest)]

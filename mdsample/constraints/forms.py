"""Forms: the values of a JSON schema as one regular expression, each written in one way (`{"a": 1, "b": [2]}`)."""

from __future__ import annotations

import math
import re
from decimal import MAX_PREC, Context, Decimal
from typing import final

import attrs

from mdsample.constraints.compile import characters_of
from mdsample.constraints.expression import LONGEST
from mdsample.constraints.expression import check as check_expression
from mdsample.constraints.formats import FORMATS, string
from mdsample.constraints.lists import SLOTS, Items, different_lists, items_of
from mdsample.constraints.multiples import multiples
from mdsample.constraints.nodes import (
    OF_TYPE,
    At,
    Node,
    Nodes,
    check,
    count,
    listed,
    properties_of,
    types_of,
)
from mdsample.constraints.patterns import DIGITS, number
from mdsample.constraints.values import as_json
from mdsample.errors import PolicyError, shown

#: digits after the point of a number, where its limits have no more
_DECIMALS = 2
#: control characters, quotes and backslashes
_WRITTEN_OTHERWISE = {*range(32), *b'"\\'}


@attrs.frozen
class Form:
    """The language of a value."""

    pattern: str
    #: one of its longest texts, without what free strings hold
    example: str
    #: the most characters of every free string in that; `None`: no limit
    strings: tuple[int | None, ...] = ()

    @property
    def size(self) -> tuple[float, int]:
        """To compare with others."""
        return sum(math.inf if most is None else most for most in self.strings), len(self.example)


@final
class Forms:
    """The languages of the places of one schema."""

    def __init__(self, nodes: Nodes) -> None:
        """Those of the schema in which `nodes` finds its way."""
        self._nodes = nodes

    def form(self, schema: object, at: At) -> Form:
        """As one language."""
        node, at = self._nodes.resolved(schema, at)
        form = self._form(node, at)
        _refuse_long(len(form.pattern), at)
        self._nodes.spend(0, len(form.pattern) + len(form.example), at)
        return form

    def _form(self, node: Node, at: At) -> Form:
        known = self._nodes.constants(node, at)
        if known is not None:
            return _either([Form(re.escape(text), text) for text in map(as_json, known.values())])
        for choice in ("anyOf", "oneOf"):
            if choice in node:
                check(node, at, {choice})
                if "type" in node:
                    self._nodes.refuse_other_types(node, choice, self._nodes.kinds(node, at), at)
                ways = listed(node[choice], at.down(choice))
                if choice == "oneOf":
                    self._nodes.refuse_overlap(ways, at)
                return _either([self.form(way, at.down(choice, n)) for n, way in enumerate(ways)])
        kinds = types_of(node, at)
        if not kinds:
            raise at.refuse("names no type, so that any value would do; give it a type, or an enum")
        check(node, at, {word for kind in kinds for word in OF_TYPE[kind]})
        return _either([self._of_type(kind, node, at) for kind in kinds])

    def _of_type(self, kind: str, node: Node, at: At) -> Form:
        match kind:
            case "object":
                return self._whole_object(node, at)
            case "array":
                return self._whole_array(node, at)
            case "string":
                return _string(node, at)
            case "integer" | "number":
                return _number(kind, node, at)
            case "boolean":
                return Form("(?:true|false)", "false")
            case _:
                return Form("null", "null")

    def _whole_object(self, node: Node, at: At) -> Form:
        first, rest = (
            [_pair(key, self.form(schema, at.down("properties", key))) for key, schema in properties.items()]
            for properties in properties_of(node, at)
        )
        _refuse_long(sum(len(part.pattern) for part in (*first, *rest)), at)
        inner = ", ".join(part.pattern for part in first)
        if first:
            inner += "".join(f"(?:, {part.pattern})?" for part in rest)
        elif rest:
            inner = f"(?:{_some([part.pattern for part in rest])})?"
        return _joined(rf"\{{{inner}\}}", [*first, *rest], at)

    def _whole_array(self, node: Node, at: At) -> Form:
        items = items_of(node, at)
        if items.different:
            return self._different(items, at)
        if items.most == 0:
            return Form(r"\[\]", "[]")
        first = [self.form(*items.schema(n, at)) for n in range(len(items.prefix))]
        more = items.most is None or items.most > len(first)
        rest = self.form(*items.schema(len(first), at)) if more else None
        _refuse_long(sum(len(part.pattern) for part in first), at)
        inner = ""
        if rest is not None:
            # those after the first ones, each with the comma before it
            least = max(items.least - len(first), 0)
            most = "" if items.most is None else items.most - len(first)
            inner = f"(?:, {rest.pattern}){{{least},{most}}}"
            if not first:
                most = "" if items.most is None else items.most - 1
                inner = f"{rest.pattern}(?:, {rest.pattern}){{{max(least - 1, 0)},{most}}}"
                inner = inner if least else f"(?:{inner})?"
        for n in reversed(range(len(first))):
            inner = f"{', ' if n else ''}{first[n].pattern}{inner}"
            inner = inner if n < items.least else f"(?:{inner})?"
        if items.most is not None and items.most <= SLOTS:
            return _joined(rf"\[{inner}\]", [*first, *([rest] * (items.most - len(first)) if rest else [])], at)
        # what there is room for
        form = _joined(rf"\[{inner}\]", [*first, *([rest] * max(items.least - len(first), 1) if rest else [])], at)
        return attrs.evolve(form, strings=(*form.strings, None))

    def _different(self, items: Items, at: At) -> Form:
        """A list without equal items, of values that are listed."""
        places: list[dict[str, str]] = []
        seen: set[str] = set()
        for n in range(len(items.prefix) + (items.most is None or items.most > len(items.prefix))):
            schema, where = items.schema(n, at)
            self.form(schema, where)  # all that it says is looked at
            known = self._nodes.values(schema, where)
            if known is None:
                raise at.refuse(
                    "has uniqueItems, and items whose values are not listed; give them an enum, or leave it out"
                )
            places.append({key: re.escape(as_json(value)) for key, value in known.items()})
            seen |= known.keys()
        most = len(seen) if items.most is None else min(items.most, len(seen))
        places += [places[-1]] * (most - len(places))
        inner, longest = different_lists(places[:most], items.least, at)
        return Form(rf"\[{inner}\]", f"[{', '.join(longest)}]")


def _string(node: Node, at: At) -> Form:
    least = count(node, "minLength", at, 0) or 0
    most = count(node, "maxLength", at, None)
    if most is not None and least > most:
        raise at.refuse(f"needs at least {least} characters and allows at most {most}; no string has both")
    shaped = [word for word in ("pattern", "format") if word in node]
    if shaped and (len(shaped) > 1 or "minLength" in node or "maxLength" in node):
        raise at.refuse(f"has {shaped[0]} and another limit of its strings; say both in one pattern")
    if "format" in node:
        if not isinstance(node["format"], str) or node["format"] not in FORMATS:
            raise at.refuse(f"has the format {shown(node['format'])}; known are {', '.join(FORMATS)}")
        pattern, example = FORMATS[node["format"]]
        return Form(f'"{pattern}"', f'"{example}"')
    if "pattern" in node:
        return _patterned(node["pattern"], at)
    return Form(string(least, most), '""', (most,))


def _patterned(pattern: object, at: At) -> Form:
    body = pattern[1:-1] if isinstance(pattern, str) else ""
    escaped = (len(body) - len(body.rstrip("\\"))) % 2
    if not isinstance(pattern, str) or f"^{body}$" != pattern or escaped:
        raise at.refuse(
            f"has the pattern {shown(pattern)}, which is sought anywhere in a string; write ^…$, of the whole string"
        )
    inner = f"(?:{body})"
    try:
        check_expression(body)  # by itself: a)|(b is one only in brackets
        found, most = characters_of(inner)
    except PolicyError as error:
        raise at.refuse(f"has a pattern that cannot be had: {error}") from error
    if found & _WRITTEN_OTHERWISE:
        raise at.refuse(
            f"has the pattern {pattern!r:.60}, which allows quotes, backslashes or control characters; JSON writes "
            r'them otherwise, so leave them out ([^"\\\x00-\x1f] instead of .)'
        )
    return Form(f'"{inner}"', '""', (most,))


def _number(kind: str, node: Node, at: At) -> Form:
    words = sorted((OF_TYPE["number"] - {"multipleOf"}) & {*node})
    limits = {word: _limit(node[word], word, at) for word in words}
    places = 0
    if kind == "number":
        exponents = [value.normalize().as_tuple().exponent for value in limits.values()]
        places = max(_DECIMALS, *(-int(exponent) for exponent in exponents), 0)
    low = [limits[word] for word in ("minimum",) if word in limits]
    low += [_beyond(limits[word], places, 1) for word in ("exclusiveMinimum",) if word in limits]
    high = [limits[word] for word in ("maximum",) if word in limits]
    high += [_beyond(limits[word], places, -1) for word in ("exclusiveMaximum",) if word in limits]
    least, most = max(low, default=None), min(high, default=None)
    step = _step(node["multipleOf"], at) if "multipleOf" in node else None
    try:
        if step is not None:
            first, last = None if least is None else math.ceil(least), None if most is None else math.floor(most)
            pattern, places = multiples(step, first, last), 0
        else:
            pattern = number(least, most, places)
    except PolicyError as error:
        raise at.refuse(f"has limits that no {kind} keeps: {error}") from error
    usual = [Decimal(10) ** 9 - 1] if least is None or most is None else []
    ends = [f"{limit:.{places}f}" for limit in (least, most, *usual) if limit is not None]
    return Form(pattern, max(ends, key=len))


def _limit(value: object, word: str, at: At) -> Decimal:
    """A number that a schema names."""
    known = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not -(10**DIGITS) < known < 10**DIGITS:  # nor is NaN
        raise at.refuse(f"has {word} {shown(value)}; it must be a number of at most {DIGITS} digits")
    return Decimal(known if isinstance(known, int) else str(known))


def _step(value: object, at: At) -> int:
    """What divides a number."""
    step = _limit(value, "multipleOf", at)
    if step <= 0 or step != int(step):
        raise at.refuse(
            f"has multipleOf {shown(value)}; only whole numbers above 0 are read, as readers of JSON do not agree on "
            "multiples of fractions"
        )
    return int(step)


def _beyond(limit: Decimal, places: int, sign: int) -> Decimal:
    """The next number with so many places above the limit, or, with `sign` −1, below."""
    above, below = limit.as_integer_ratio()
    return Decimal(sign * (sign * above * 10**places // below + 1)).scaleb(-places, Context(prec=MAX_PREC))


def _either(forms: list[Form]) -> Form:
    """One of several, as long as the longest."""
    largest = max(forms, key=lambda form: form.size)
    patterns = [*dict.fromkeys(form.pattern for form in forms)]
    return attrs.evolve(largest, pattern=patterns[0] if len(patterns) == 1 else f"(?:{'|'.join(patterns)})")


def _pair(key: str, form: Form) -> Form:
    before = f"{as_json(key)}: "
    return attrs.evolve(form, pattern=re.escape(before) + form.pattern, example=before + form.example)


def _some(parts: list[str]) -> str:
    """At least one of these, in their order: one of the first half, then any of the second; or of the second alone."""
    if len(parts) == 1:
        return parts[0]
    first, second = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    return f"(?:{_some(first)}{''.join(f'(?:, {part})?' for part in second)}|{_some(second)})"


def _refuse_long(characters: int, at: At) -> None:
    """Before what has so many is put together."""
    if characters > LONGEST:
        raise at.refuse(f"has an expression of more than {LONGEST:,} characters; make it smaller")


def _joined(pattern: str, parts: list[Form], at: At) -> Form:
    """Of parts, in brackets and with commas between them."""
    if sum(len(part.example) + 2 for part in parts) > LONGEST:
        raise at.refuse(f"has texts of more than {LONGEST:,} characters; count fewer items, or make them smaller")
    example = ", ".join(part.example for part in parts)
    return Form(pattern, f"[{example}]", tuple(most for part in parts for most in part.strings))

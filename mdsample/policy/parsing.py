r"""Policies as text, and back.

    policy  := [ term ( '+' term )* ]
    term    := name [ '(' [ arg ( ',' arg )* ] ')' ]
    arg     := value | setting '=' value
    value   := scalar | '[' scalar ( ',' scalar )* ']'
    scalar  := number | text | 'true' | 'false' | 'none'
    text    := "'" … "'" | '"' … '"'        with \\ \' \" \n \t \r \xHH \uHHHH \UHHHHHHHH inside

A name is that of a part (`catalog.PARTS`) or of a preset (`presets.PRESETS`), which stands for the parts it returns, or
of a part or preset that is given or installed (`mdsample.policy.installed`); a setting is named as in Python. Only the
first argument may go without a name, where it may in Python. So text mirrors Python:
`med(0.2)+blocks(32)+early-exit(0.1,slot='answer')` is `med(0.2) + Blocks(32) + EarlyExit(0.1, slot="answer")`. A number
with a point or an exponent is a float, any other an integer. Space between words is free, and the empty text is
`Policy()`. Lists do not nest, so neither does the parser.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Protocol

from mdsample.errors import SpecError, shown
from mdsample.policy.base import Part, Policy, clash
from mdsample.policy.catalog import PARTS
from mdsample.policy.installed import Maker, Parts, by_name, installed, loaded
from mdsample.policy.presets import PRESETS


class Fail(Protocol):
    """Makes the error for a message, placed at one setting of the part at hand or at the part itself."""

    def __call__(self, message: str, setting: str | None = None) -> SpecError:
        """The error; `setting` is where it stands."""
        ...


#: how messages of parts name the setting they complain about
_CULPRIT = re.compile(r"\((\w+)=…\)")


def find(name: str, own: Mapping[str, Maker], fail: Fail) -> Maker:
    """The part's class or the preset of that name: built in, given (`own`) or installed."""
    makers: dict[str, Maker] = {**PARTS, **PRESETS, **own}
    if name in makers:
        return makers[name]
    try:
        others = installed()
        if name in others:
            return loaded(others[name])
    except SpecError as error:
        raise fail(error.message) from error
    names = [*makers, *others]
    near = get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
    raise fail(f"unknown policy {name!r}; {hint}")


def _settings(maker: Maker) -> Mapping[str, inspect.Parameter]:
    """The settings by name; at most the first may be given without it."""
    return inspect.signature(maker).parameters


def _menu(settings: Mapping[str, object]) -> str:
    return ", ".join(settings) or "none"


def make(name: str, maker: Maker, given: Mapping[str, object], fail: Fail) -> Part | Policy:
    """The part or preset with the given settings."""
    settings = _settings(maker)
    for setting in given:
        if setting not in settings:
            raise fail(f"{name} has no setting {setting!r}; it has: {_menu(settings)}", setting)
    for setting, parameter in settings.items():
        if parameter.default is parameter.empty and setting not in given:
            raise fail(f"{name} needs its setting {setting!r}")
    try:
        return maker(**given)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        named = _CULPRIT.search(str(error))
        # a preset's message names the setting of the part; with one setting given, that is the one
        culprit = named[1] if named and named[1] in given else next(iter(given)) if len(given) == 1 else None
        raise fail(str(error), culprit) from None


def _lexeme(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"({pattern})\s*", re.DOTALL)


_WORD = _lexeme(r"[^\W\d][\w-]*")
_NUMBER = _lexeme(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_TEXT = _lexeme(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_SIGNS = {sign: _lexeme(re.escape(sign)) for sign in "+(),=[]"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t", "r": "\r"}
_WORDS = {"true": True, "false": False, "none": None}


class _Scanner:
    """The text and how far it has been read; always at the start of a lexeme."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = len(text) - len(text.lstrip())

    def accept(self, lexeme: re.Pattern[str]) -> str | None:
        """Reads the lexeme and the space after it, if it is what comes next."""
        match = lexeme.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match[1]

    def sign(self, sign: str) -> bool:
        """Reads the sign, if it is what comes next."""
        return self.accept(_SIGNS[sign]) is not None

    @property
    def over(self) -> bool:
        """Whether all has been read."""
        return self.at == len(self.text)

    def error(self, message: str, column: int | None = None) -> SpecError:
        """The error at a column, or here."""
        return SpecError(message, self.text, self.at if column is None else column)


def parse(text: str, *, parts: Parts = ()) -> Policy:
    """The policy that a text describes; raises `SpecError`, and nothing else, if it describes none.

    `parts`: parts of your own that the text may name, as `[Half]` or `{"half": Half}`; the mapping may hold presets,
    functions that return a `Policy`, too. Those of installed packages are known without (`mdsample.policy.installed`).
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"parse reads the text of a policy, such as 'med'; got {shown(text)}")
    own = by_name(parts)
    scan = _Scanner(text)
    policy = Policy()
    if scan.over:
        return policy
    while True:
        column = scan.at
        term = _term(scan, own)
        added = term.parts if isinstance(term, Policy) else (term,)
        for fault in (clash(part, other) for part in policy.parts for other in added):
            if fault:
                raise scan.error(f"{fault}; keep one, or swap them: {policy.replace(*added)}", column)
        policy = policy + term
        if scan.over:
            return policy
        if not scan.sign("+"):
            raise scan.error("expected '+' or the end")


def _term(scan: _Scanner, own: Mapping[str, Maker]) -> Part | Policy:
    start = scan.at
    columns: dict[str, int] = {}

    def fail(message: str, setting: str | None = None) -> SpecError:
        return scan.error(message, columns.get(setting or "", start))

    name = scan.accept(_WORD)
    if name is None:
        raise scan.error("expected the name of a part or preset")
    maker = find(name, own, fail)
    settings = _settings(maker)
    principal = next((s.name for s in settings.values() if s.kind is not s.KEYWORD_ONLY), None)
    given: dict[str, object] = {}
    if scan.sign("(") and not scan.sign(")"):
        while True:
            column = scan.at
            setting = _setting(scan)
            value = _value(scan)
            if setting is None:
                if given:
                    raise scan.error("only the first setting may go without a name", column)
                if principal is None:
                    raise scan.error(f"{name} has no setting without a name; it has: {_menu(settings)}", column)
                setting = principal
            if setting in given:
                raise scan.error(f"{name} has the setting {setting!r} twice", column)
            given[setting], columns[setting] = value, column
            if scan.sign(")"):
                break
            if not scan.sign(","):
                raise scan.error("expected ',' or ')'")
    return make(name, maker, given, fail)


def _setting(scan: _Scanner) -> str | None:
    """Reads `setting =`, if that is what comes next."""
    start = scan.at
    word = scan.accept(_WORD)
    if word is not None and scan.sign("="):
        return word
    scan.at = start
    return None


def _value(scan: _Scanner) -> object:
    if not scan.sign("["):
        return _scalar(scan)
    members = [_scalar(scan)]
    while not scan.sign("]"):
        if not scan.sign(","):
            raise scan.error("expected ',' or ']'")
        members.append(_scalar(scan))
    return members


def _scalar(scan: _Scanner) -> object:
    start = scan.at
    if (number := scan.accept(_NUMBER)) is not None:
        return _number(number, scan, start)
    if (quoted := scan.accept(_TEXT)) is not None:
        return _unquoted(quoted, scan, start)
    if (word := scan.accept(_WORD)) is not None:
        if word in _WORDS:
            return _WORDS[word]
        raise scan.error(f"{word!r} is not a value; a text goes in quotes", start)
    if scan.text[start : start + 1] in ("'", '"'):
        raise scan.error("this text has no closing quote", start)
    raise scan.error("expected a number, a text in quotes, true, false, none or a list of these")


def _number(digits: str, scan: _Scanner, start: int) -> int | float:
    try:
        value = int(digits) if digits.lstrip("-").isdigit() else float(digits)
    except ValueError:  # Python refuses integers of more than 4300 digits
        raise scan.error("this number has too many digits", start) from None
    if abs(value) == math.inf:
        raise scan.error("this number is too large", start)
    return value


def _unquoted(quoted: str, scan: _Scanner, start: int) -> str:
    def character(escape: re.Match[str]) -> str:
        code = escape[1]
        try:
            return _ESCAPES[code] if len(code) == 1 else chr(int(code[1:], 16))
        except (KeyError, ValueError, OverflowError):
            known = r"\\ \' \" \n \t \r \xHH \uHHHH \UHHHHHHHH"
            raise scan.error(f"unknown escape; there are: {known}", start + 1 + escape.start()) from None

    return _ESCAPE.sub(character, quoted[1:-1])

"""Expression: a regular expression as an automaton over bytes, built where it can do no harm.

Any expression may come from a stranger, and short ones can take hours and all memory. So the automaton is built in a
process of its own (`building`), which may use little time and memory and is ended if it uses more. One such process
serves all expressions of this one.

An expression must mean the whole text, and the same to Python's `re` and to the library that builds the automaton: what
only one of them reads is refused, and `\\d`, `\\w`, `\\s` are the digits, letters and white space of ASCII.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast, final

import numpy as np

from mdsample.constraints.table import Table
from mdsample.errors import PolicyError, shown

#: the part of `re` that reads; it comes without types
_python: Any = importlib.import_module("re._parser")

#: of an automaton over bytes, and of one that is not yet made small
STATES, BUILT = 5_000, 12_000
#: of the processor; most expressions take some milliseconds
SECONDS = 2.0
#: of memory, beside what Python and the library take
MEGABYTES = 512
#: characters of an expression
LONGEST = 20_000

_PATIENCE = 30  # seconds by the clock, for a machine that is busy with other things
_BYTES = 256
_SMALLER = (
    "make it smaller: let what stands before a delimiter not contain the delimiter's first character "
    r"([^\\]*\\boxed instead of .*\\boxed), and count fewer repetitions"
)
_WHOLE = "an expression means the whole text of a slot, so leave it out"
_PIECE = re.compile(
    r"\\(?P<escape>N\{[^}]*\}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<group>\(\?(?:<[=!]|[=!>]|P=|\())|(?P<end>[\^$])"
    r"|(?P<spaced>\(\?[a-zA-Z]*x[a-zA-Z]*[-:)])|(?P<brace>\{(?![0-9]*,?[0-9]*\}))"
    r"|(?P<keeps>(?:[*+?]|\{\d*,?\d*\})\+)",
    re.S,
)
_CLASS = re.compile(r"\\(?P<escape>.)|\[(?P<no>\^?)(?P<inner>\]?(?:\\.|[^\]\\])*)\]", re.S)
#: classes that Python and the library know from different years of Unicode: few enough letters for both, and, where a
#: class is negated, enough
_FEW = {"d": "0-9", "w": "0-9A-Za-z_", "s": r" \t\n\r\f\v", "D": r"\D", "W": r"[^\w\p{N}]", "S": r"[^\s\x1c-\x1f]"}
_MANY = {"d": r"\d", "w": r"\w\p{N}", "s": r"\s\x1c-\x1f", "D": "[^0-9]", "W": "[^0-9A-Za-z_]", "S": r"[^ \t\n\r\f\v]"}
#: in a class: what is escaped, and signs; a "-" that does not come first is a range, or comes last
_IN_CLASS = re.compile(r"\\(?P<escape>.)|^-|[^0-9A-Za-z\\-]", re.S)
#: the letters that Python takes for one another where case does not count, and the library does not; all others are
#: the same to both
_I = "iIıİ"
_IGNORES, _PART_IGNORES = re.compile(r"\(\?[a-z]*i[a-z]*\)"), re.compile(r"\(\?(?:[a-z]*i[a-z]*:|[a-z]*-[a-z]*i)")


def byte_table(pattern: str) -> Table:
    """The smallest automaton over bytes (256 columns) of an expression's texts in UTF-8; none has the character NUL.

    Raises `PolicyError` for what is no expression, for what an automaton cannot do (anchors, look-around, references
    back), for what allows no text, and for what takes more than `STATES`, `SECONDS` or `MEGABYTES`.
    """
    check(pattern)
    global _child
    with _lock:
        if _child is None or not _child.usable:
            _child = _Child()
        try:
            answer, data = _child.ask(json.dumps(_CLASS.sub(_agreed, pattern)))
        except BaseException:  # an interrupt too: its answer must not be taken for the next one's
            _child.end()
            _child = None
            raise
    if "states" not in answer:
        raise _refusal(pattern, str(answer.get("error", "")))
    states = int(answer["states"])
    after = np.frombuffer(data, np.int16, offset=states).reshape(states, _BYTES).astype(np.int32)
    accepting = np.frombuffer(data, np.bool_, states)
    table = Table(np.where(after < 0, states, after).astype(np.int32), accepting).trimmed()
    if not table.size:
        raise PolicyError(f"the expression {_short(pattern)} allows no text; loosen it")
    table = table.minimal()
    if table.size > STATES:
        raise _refusal(pattern, f"it has {table.size:,} states")
    return table


def check(pattern: str) -> None:
    """Refuses what needs no automaton to be refused."""
    if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"an expression is text, such as '-?[0-9]+'; got {shown(pattern)}")
    if len(pattern) > LONGEST:
        raise PolicyError(f"an expression of {len(pattern):,} characters; {LONGEST:,} are the most")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # to compile it may take a minute: under (?i) Python goes through all letters of every class
            _python.parse(pattern)
    except re.error as error:
        where = "" if error.pos is None else f" at character {error.pos}"
        raise PolicyError(f"{_short(pattern)} is not a regular expression: {error.msg}{where}") from error
    except Warning as error:
        raise PolicyError(
            f"the expression {_short(pattern)} may be read in two ways ({error}); write a backslash before what stands "
            "for itself"
        ) from error
    except (RecursionError, OverflowError, MemoryError) as error:
        raise PolicyError(f"the expression {_short(pattern)} is nested too deeply or counts too far") from error
    if _PART_IGNORES.search(pattern) and any(_excludes_i(piece) for piece in _CLASS.finditer(pattern)):
        raise PolicyError(
            f"the expression {_short(pattern)} leaves out an i by [^…] and ignores case in a part of it, where Python "
            "takes ı and İ for i and the library does not; write (?i) before the whole"
        )
    for piece in _PIECE.finditer(pattern):
        escape, group = piece["escape"], piece["group"]
        if piece["end"] or (escape and escape in "AZzbB<>"):
            raise PolicyError(f"the expression {_short(pattern)} has the anchor {piece[0]!r}; {_WHOLE}")
        if piece["spaced"]:
            raise PolicyError(
                f"the expression {_short(pattern)} has the flag x, under which Python and the library pass over other "
                "spaces; leave it out, and the spaces that do not count"
            )
        if piece["brace"]:
            raise PolicyError(
                f"the expression {_short(pattern)} has '{{' without a plain count, which stands for itself in Python "
                r"alone; write \{ for the sign, or {1,2} without spaces to count"
            )
        if group == "(?P=" or (escape and escape in "123456789"):
            raise PolicyError(
                f"the expression {_short(pattern)} refers back to a group ({piece[0]!r}), and an automaton remembers "
                "no text; write the alternatives out"
            )
        if group in ("(?>", "(?(") or piece["keeps"]:
            raise PolicyError(
                f"the expression {_short(pattern)} has {piece[0]!r}, which depends on the way that a match is sought, "
                "and an automaton seeks none; write a plain group or repetition"
            )
        if group:
            raise PolicyError(
                f"the expression {_short(pattern)} looks around ({group!r}), and an automaton cannot; say what may "
                "stand there, such as [^;]* instead of .*(?=;)"
            )


def _agreed(piece: re.Match[str]) -> str:
    r"""A class without the letters on which Python and the library disagree: `\d` is 0 to 9, `\w` an ASCII letter."""
    if piece["escape"]:
        return f"[{_FEW[piece['escape']]}]" if piece["escape"] in _FEW else piece[0]
    named = {*re.findall(r"\\(.)", piece["inner"], re.S)}
    if any({letter, letter.upper()} <= named for letter in "dsw"):
        return rf"[{piece['no']}\s\S]"  # anything
    known = _MANY if piece["no"] else _FEW
    dotted = _I if _IGNORES.match(piece.string) and _excludes_i(piece) else ""
    inner = _IN_CLASS.sub(lambda part: _letter(part, known), piece["inner"])
    return f"[{piece['no']}{dotted}{inner}]"


def _excludes_i(piece: re.Match[str]) -> bool:
    """Whether a piece is a class of all but some letters, an i among them."""
    return bool(piece["no"]) and not all(re.fullmatch(f"[^{piece['inner']}]", letter) for letter in _I)


def _letter(part: re.Match[str], known: Mapping[str, str]) -> str:
    """A part of a class: signs by number, as the library has operators (&&, --, ~~) and classes within classes."""
    return known.get(part["escape"], part[0]) if part["escape"] else f"\\x{{{ord(part[0]):x}}}"


def _refusal(pattern: str, reason: str) -> PolicyError:
    if "no transitions" in reason:
        return PolicyError(f"the expression {_short(pattern)} allows no text; loosen it")
    if "anchored" in reason or "word boundar" in reason:
        return PolicyError(f"the expression {_short(pattern)} has an anchor; {_WHOLE}")
    if "building NFA" in reason:
        return PolicyError(
            f"the expression {_short(pattern)} is valid in Python, but no automaton can be built of it ({{,n}}, "
            "names of characters, octal numbers, rare flags); write it more simply"
        )
    most = f", and {STATES:,} are the most" if "states" in reason else ""
    return PolicyError(f"the expression {_short(pattern)} cannot be compiled: {reason}{most}; {_SMALLER}")


def _short(pattern: str) -> str:
    return repr(pattern) if len(pattern) <= 60 else f"{pattern[:57]!r}…"


@final
class _Child:
    """The process that builds."""

    def __init__(self) -> None:
        limits = {"states": BUILT, "seconds": SECONDS, "megabytes": MEGABYTES}
        script = str(Path(__file__).with_name("building.py"))
        self._parent = os.getpid()
        try:
            # isolated: nothing of its environment is imported, this folder included
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", script, json.dumps(sys.path), json.dumps(limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise PolicyError(f"there is no Python to compile an expression with ({error})") from error
        atexit.register(self.end)

    @property
    def usable(self) -> bool:
        """Whether this process started it, and not one that it was forked from, and it has not come to an end."""
        return self._parent == os.getpid() and self._process.poll() is None

    def ask(self, request: str) -> tuple[dict[str, str | int], bytes]:
        """Its answer and the bytes after it; an error, too, if it came to an end over it."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        watch = threading.Timer(_PATIENCE, process.kill)
        watch.start()
        line = data = b""
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if line.endswith(b"\n"):
                answer = cast("dict[str, str | int]", json.loads(line))
                length = int(answer.get("states", 0)) * (1 + 2 * _BYTES)
                data = process.stdout.read(length)
                if len(data) == length:
                    return answer, data
        except OSError:
            pass
        finally:
            late = watch.finished.is_set()
            watch.cancel()
        self.end()
        code = process.wait()
        if late or (sys.platform != "win32" and code == -signal.SIGPROF):
            return {"error": f"it takes more than {SECONDS:g} s"}, b""
        if code == 1 and not line:
            return {"error": "outlines_core is not installed, or cannot be imported"}, b""
        return {"error": f"it takes more than {MEGABYTES} MB of memory, or ended with exit code {code}"}, b""

    def end(self) -> None:
        """It is gone after this, if this process started it."""
        atexit.unregister(self.end)
        if self._parent == os.getpid():
            with suppress(OSError), self._process as process:  # what it no longer reads is left unsaid
                process.kill()


_lock = threading.Lock()
_child: _Child | None = None

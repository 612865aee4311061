"""What the child process of `expression` runs: an expression a line, and for each its automaton over bytes.

It is run as a file, with the parent's import path as its argument, and imports nothing of this package. An answer is a
line of JSON; where it names a number of states, the states that accept follow, a byte each, then the table: for every
state the state after each of the 256 bytes, two bytes each, −1 where there is none.

The library drops ways that lead from a state that accepts to one that does not (of `a|abc` it keeps `a`), and prefers
one alternative to another, as a search does. So the expression gets an end of its own, the byte 0, which no text has:
then only what follows the end accepts, and nothing is dropped. A state accepts if that byte leads to such a state.
"""

from __future__ import annotations

import json
import signal
import sys
from array import array
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])

import outlines_core  # pyright: ignore[reportMissingTypeStubs]

_BYTES = 256
#: it comes without types
_library: Any = outlines_core


def serve(states: int, seconds: float, megabytes: int) -> None:
    """Answers until the parent is gone.

    `states`: the most that an automaton may have; `megabytes`: what building one may take; `seconds` of the processor:
    what ends it and this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's
    _limit_memory(megabytes)
    letters = _library.Vocabulary(_BYTES, {bytes([byte]): [byte] for byte in range(_BYTES)})
    out = sys.stdout.buffer
    for line in sys.stdin:
        _limit_time(seconds)
        try:
            answer, data = _built(json.loads(line), letters, states)
        except MemoryError:
            answer, data = {"error": f"it takes more than {megabytes} MB of memory"}, b""
        except Exception as error:  # the library raises ValueError for all it does not like
            answer, data = {"error": " ".join(str(error).split())[:200]}, b""
        _limit_time(0)
        out.write(json.dumps(answer).encode() + b"\n" + data)
        out.flush()


def _built(pattern: str, letters: object, states: int) -> tuple[dict[str, int | str], bytes]:
    index = _library.Index(rf"(?:{pattern})\x00", letters)
    transitions: dict[int, dict[int, int]] = index.get_transitions()
    over: set[int] = index.get_final_states()
    if len(transitions) > states:
        return {"error": f"it has {len(transitions):,} states"}, b""
    start: int = index.get_initial_state()
    number = {state: n for n, state in enumerate([start, *(transitions.keys() - {start} - over)])}
    table = array("h", [-1]) * (len(number) * _BYTES)
    for state, place in number.items():
        for byte, target in transitions[state].items():
            if 0 < byte < _BYTES:
                table[place * _BYTES + byte] = number[target]
    return {"states": len(number)}, bytes(transitions[state].get(0) in over for state in number) + table.tobytes()


def _limit_time(seconds: float) -> None:
    if sys.platform != "win32":  # there the parent's patience alone is the limit
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(megabytes: int) -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, ValueError, OSError):
        pass  # the system does not limit it; time is


if __name__ == "__main__":
    serve(**json.loads(sys.argv[2]))

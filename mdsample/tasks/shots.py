"""Few-shot prompts: solved problems of a file before the problem that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from mdsample.errors import RecordError


@attrs.frozen
class Shots:
    """Solved problems, as they are written before every other."""

    #: the problems alone, and written out with their solutions
    shots: tuple[tuple[str, str], ...]

    @staticmethod
    def of(path: Path, count: int, found: Sequence[tuple[str, str]]) -> Shots:
        """The first `count` of those a file holds."""
        if len(found) < count:
            raise RecordError(f"{path} holds {len(found)} problems, too few for {count} shots")
        return Shots(tuple(found[:count]))

    def before(self, problem: str) -> str:
        """What stands before a problem; `RecordError` if it is among the examples."""
        if any(problem == shown for shown, _ in self.shots):
            raise RecordError(f"the problem {problem!r:.60} is among its own examples; take them from another file")
        return "".join(f"{written}\n\n" for _, written in self.shots)

    def named(self, task: str) -> str:
        """The task's name with how many there are."""
        return named(task, len(self.shots))


def named(task: str, shots: int) -> str:
    """A task's name with how many examples its prompt has: answers to other prompts are other answers."""
    return f"{task} ({shots} shot{'s' * (shots != 1)})"

"""Every error that mdsample raises on purpose.

    MdsampleError(ValueError)
    ├── SpecError           a text that is not a policy; points at the place
    ├── PolicyError         parts that do not go together, or do not fit a model or a canvas
    │   └── NoTextError     a slot in which its constraints leave no text of its length
    ├── TemplateError       a text that is not a template, or a row that does not fit one
    ├── ModelError          a model that cannot be found, read, run or trained
    │   ├── CacheError      a cache that does not exist, or does not suit the model
    │   ├── RenderError     a chat template that cannot be rendered
    │   └── FinetuneError   training that cannot begin
    ├── WriteError          a file that cannot be written, or that another process writes
    ├── RecordError         input, records or answers that cannot be read
    ├── TraceError          a file that is not a whole trace
    ├── ScoreError          candidates that cannot be scored
    ├── WatchError          a slot that cannot be watched
    ├── TracesError         an invalid request for posterior traces
    ├── BenchError          an invalid request for a comparison of policies
    ├── CrewError           several devices or machines that cannot do a job
    └── LawTooLarge         an exact law with more branches than the limit

Each message says what was wrong, what was found and what to do. Something that cannot be meant at all (a float where an
array of bools belongs) is a `TypeError`; a setting or an argument out of its range is a plain `ValueError`.
"""

from __future__ import annotations


def pointed(message: str, line: str, column: int) -> str:
    """A message, and under it the line that it is about, with a caret at a column."""
    # one column per character, so that the caret stands where it should
    seen = "".join(c if c.isprintable() else " " for c in line)
    return f"{message}\n  {seen}\n  {' ' * column}^"


def shown(value: object, most: int = 80) -> str:
    """How a value looks, for a message; some cannot be looked at, or are nested too deeply."""
    try:
        return f"{value!r:.{most}}"
    except Exception:
        return f"a value of type {type(value).__name__}"


class MdsampleError(ValueError):
    """The base of all errors that mdsample raises on purpose."""


class SpecError(MdsampleError):
    """Text that is not a policy.

    `message` says what is wrong, `text` is what was read and `column` the offset in it (from 0), or `None` where there
    is no single place; `str()` is the message and, if there is a place, the text with a caret under it.
    """

    def __init__(self, message: str, text: str = "", column: int | None = None) -> None:
        """Without `column` the error has no caret."""
        super().__init__(message, text, column)
        self.message = message
        self.text = text
        self.column = column

    def __str__(self) -> str:
        """The message, the text, the caret."""
        return self.message if self.column is None else pointed(self.message, self.text, self.column)


class PolicyError(MdsampleError):
    """Parts that do not go together, or do not fit the model or the canvas they are used on."""


class NoTextError(PolicyError):
    """A slot in which its constraints leave no text of its length."""


class TemplateError(MdsampleError):
    """A template that cannot be read, or a row that does not fit it."""


class ModelError(MdsampleError):
    """A model cannot be found, read, run or trained; the message says what was wrong, what was found and what to do."""


class CacheError(ModelError):
    """A cache that does not exist, or that does not suit a model."""


class RenderError(ModelError):
    """A chat template that cannot be rendered."""


class FinetuneError(ModelError):
    """Training that cannot begin."""


class WriteError(MdsampleError):
    """A file that cannot be written, or that another process is writing."""


class RecordError(MdsampleError):
    """Input, records or answers that cannot be read."""


class TraceError(MdsampleError):
    """A file that is not a whole trace."""


class ScoreError(MdsampleError):
    """Candidates that cannot be scored."""


class WatchError(MdsampleError):
    """A slot that cannot be watched."""


class TracesError(MdsampleError):
    """An invalid request for posterior traces."""


class BenchError(MdsampleError):
    """An invalid request for a comparison of policies."""


class CrewError(MdsampleError):
    """Several devices or machines that cannot do a job, or of which none is left."""


class LawTooLarge(MdsampleError):
    """An exact law with more branches than the limit."""

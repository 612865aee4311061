"""Trace: the record of a run. A canvas and a list of events; replaying applies the events to the canvas.

On disk it is JSON lines: a header, one line per row, one line per event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from mdsample.canvas import Canvas
from mdsample.result import Result
from mdsample.state import Event, Outcome, State

FORMAT = 1


class TraceError(ValueError):
    """A file that is not a whole trace."""


def versions() -> dict[str, str]:
    """What makes a record: the versions of mdsample and NumPy."""
    import mdsample  # the package imports this module

    return {"mdsample": mdsample.__version__, "numpy": np.__version__}


@attrs.frozen(eq=False)
class Trace:
    """A run, whole or cut off: enough to replay it, to look at it, and to go on with it on any backend."""

    #: the policy's text with every setting written out
    policy: str
    seed: int
    model: str
    backend: str
    mask_id: int
    canvas: Canvas
    events: tuple[Event, ...]
    versions: dict[str, str] = attrs.field(factory=versions)

    @staticmethod
    def of(result: Result) -> Trace:
        """The record of a finished run."""
        return Trace(
            result.policy.in_full(),
            result.seed,
            result.model,
            result.backend,
            result.tokenizer.mask_id,
            result.state.canvas,
            result.state.events,
        )

    def states(self) -> Iterator[State]:
        """The state at the beginning and after every event."""
        state = State.begin(self.canvas)
        yield state
        for event in self.events:
            state = state.apply(event, self.mask_id)
            yield state

    def replay(self) -> State:
        """The last state. `Sampler.step` goes on from it, on this or another backend."""
        *_, last = self.states()
        return last

    def save(self, path: Path) -> None:
        """Writes the trace; the file appears whole or not at all."""
        header = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("policy", "seed", "model", "backend", "mask_id", "versions")},
            "slots": self.canvas.names,
            "events": len(self.events),
            "rows": len(self.canvas),
        }
        lines = [header, *_rows(self.canvas), *(_event(event) for event in self.events)]
        part = path.with_name(path.name + ".part")
        part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        part.replace(path)

    @staticmethod
    def load(path: Path) -> Trace:
        """Reads a trace; `TraceError` if the file is not one, is cut off, or comes from a newer format."""
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            header = lines[0]
            if header["format"] != FORMAT:
                raise TraceError(f"{path} has trace format {header['format']}; this version reads {FORMAT}")
            count = header["rows"]
            if len(lines) != 1 + count + header["events"]:
                raise TraceError(f"{path} is cut off: {len(lines)} of {1 + count + header['events']} lines")
            rows = lines[1 : 1 + count]
            canvas = Canvas.of_rows(
                [row["tokens"] for row in rows],
                [row["slot"] for row in rows],
                tuple(header["slots"]),
                header["mask_id"],
                [row["id"] for row in rows],
                [row["blank"] for row in rows],
            )
            events = tuple(_read_event(line) for line in lines[1 + count :])
            trace = Trace(
                header["policy"],
                header["seed"],
                header["model"],
                header["backend"],
                header["mask_id"],
                canvas,
                events,
                header["versions"],
            )
            # places outside the canvas and steps of rows that are not there come to light here
            if (trace.replay().tokens < 0).any():
                raise TraceError(f"{path} has token ids below 0")
            return trace
        except TraceError:
            raise
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as fault:
            raise TraceError(f"{path} is not a trace ({type(fault).__name__}: {fault})") from fault


def _rows(canvas: Canvas) -> Iterator[dict[str, Any]]:
    for i, name in enumerate(canvas.ids):
        length = int(canvas.valid[i].sum())
        yield {
            "id": name,
            "tokens": canvas.tokens[i, :length].tolist(),
            "slot": canvas.slot[i, :length].tolist(),
            "blank": canvas.blank[i, :length].tolist(),
        }


_ARRAYS = {
    "rows": np.int32,
    "row": np.int32,
    "position": np.int32,
    "token": np.int32,
    "probability": np.float32,
    "entropy": np.float32,
    "ruled": np.bool_,
    "remasked_row": np.int32,
    "remasked_position": np.int32,
    "left": np.int32,
}


def _event(event: Event) -> dict[str, Any]:
    line: dict[str, Any] = {name: getattr(event, name).tolist() for name in _ARRAYS}
    return {**line, "price": event.price, "outcomes": [[o.name, o.sentence] for o in event.outcomes]}


def _read_event(line: dict[str, Any]) -> Event:
    arrays: dict[str, Any] = {name: np.array(line[name], dtype) for name, dtype in _ARRAYS.items()}
    for name, array in arrays.items():
        if array.ndim != 1 or (array.dtype == np.int32 and (array < 0).any()):
            raise ValueError(f"{name} must be a list of numbers from 0")
    return Event(price=line["price"], outcomes=tuple(Outcome(*pair) for pair in line["outcomes"]), **arrays)

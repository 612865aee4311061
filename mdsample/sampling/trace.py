"""Trace: the record of a run. A canvas and a list of events; replaying applies the events to the canvas.

On disk it is JSON lines: a header, one line per row, one line per event.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import attrs
import numpy as np

from mdsample._version import versions
from mdsample.core.canvas import Canvas
from mdsample.core.files import read_whole, write_whole
from mdsample.errors import TraceError, shown
from mdsample.models.denoiser import Noise
from mdsample.policy.complete import as_run
from mdsample.sampling.result import Result
from mdsample.sampling.state import Event, Outcome, State

FORMAT = 1


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
    #: as `Result.cache`
    cache: str = "none"
    versions: dict[str, str] = attrs.field(factory=versions)
    #: as `Denoiser.noise`
    noise: Noise = "mask"

    @staticmethod
    def of(result: Result) -> Trace:
        """The record of a finished run."""
        if not isinstance(result, Result):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a trace is made of what Sampler.run gives; got {shown(result)}")
        return Trace(
            as_run(result.policy, result.block),
            result.seed,
            result.model,
            result.backend,
            result.tokenizer.mask_id,
            result.state.canvas,
            result.state.events,
            result.cache,
            noise=result.noise,
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

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of the file, as JSON objects: the header, one of each row, one of each event."""
        yield {
            "format": FORMAT,
            **{
                name: getattr(self, name)
                for name in ("policy", "seed", "model", "backend", "cache", "mask_id", "versions")
            },
            "slots": self.canvas.names,
            **({"blind": self.canvas.blind} if self.canvas.blind else {}),
            **({"noise": self.noise} if self.noise != "mask" else {}),
            "events": len(self.events),
            "rows": len(self.canvas),
        }
        yield from _rows(self.canvas)
        yield from map(event_line, self.events)

    def save(self, path: str | Path) -> None:
        """Writes the trace; the file appears whole or not at all. Raises `WriteError`."""
        write_whole(_path(path), "".join(json.dumps(line) + "\n" for line in self.lines()).encode())

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Reads a trace; `TraceError` if the file is not one, is cut off, was edited, or comes from a newer format.

        Also if it cannot be read.
        """
        path = _path(path)
        try:
            lines: list[Any] = [json.loads(line) for line in read_whole(path).decode().splitlines()]
            header = _header(lines, path)
            count = header["rows"]
            if len(lines) != 1 + count + header["events"]:
                wanted = 1 + count + header["events"]
                fault = "is cut off" if len(lines) < wanted else "is more than one trace"
                raise TraceError(f"{path} {fault}: it has {len(lines)} lines, and {wanted} make it whole")
            rows = lines[1 : 1 + count]
            canvas = Canvas.of_rows(
                [row["tokens"] for row in rows],
                [row["slot"] for row in rows],
                tuple(header["slots"]),
                header["mask_id"],
                [row["id"] for row in rows],
                [row["blank"] for row in rows],
                tuple(header.get("blind", ())),
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
                header["cache"],
                header["versions"],
                header.get("noise", "mask"),
            )
            for number, (state, event) in enumerate(zip(trace.states(), events, strict=False)):
                if fault := _impossible(state, event):
                    raise TraceError(f"{path} was damaged or edited: in its event {number}, {fault}")
            return trace
        except TraceError:
            raise
        except OSError as fault:
            raise TraceError(f"cannot read {path}: {fault.strerror or fault}") from fault
        except json.JSONDecodeError as fault:
            raise TraceError(f"{path} is not a trace: it is not JSON lines ({fault})") from fault
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as fault:
            raise TraceError(f"{path} is not a whole trace ({type(fault).__name__}: {fault})") from fault


def _path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"the file of a trace is named by text or a path; got {shown(path)}")
    return Path(cast("str | os.PathLike[str]", path))


_HEADER: dict[str, type] = {
    "policy": str,
    "seed": int,
    "model": str,
    "backend": str,
    "cache": str,
    "mask_id": int,
    "versions": dict,
    "slots": list,
    "events": int,
    "rows": int,
}


def _header(lines: list[Any], path: Path) -> dict[str, Any]:
    if not lines:
        raise TraceError(f"{path} is empty, so it is not a trace")
    header: dict[str, Any] = cast("dict[str, Any]", lines[0]) if isinstance(lines[0], dict) else {}
    if "format" not in header:
        raise TraceError(f"{path} is not a trace: its first line is not the header that `mdsample run --trace` writes")
    if header["format"] != FORMAT:
        raise TraceError(f"{path} has trace format {header['format']!r}; this version reads {FORMAT}")
    if (noise := header.get("noise", "mask")) not in get_args(Noise):
        raise TraceError(f"{path} is not a whole trace: noise is {noise!r} in its header")
    for name, kind in _HEADER.items():
        if type(header.get(name)) is not kind:
            raise TraceError(f"{path} is not a whole trace: {name} is {header.get(name)!r} in its header")
    return header


def _impossible(state: State, event: Event) -> str:
    """Why this cannot be the event after the state; empty if it can."""
    if not ((event.probability >= 0) & (event.probability <= 1)).all():
        return "a probability lies outside 0 to 1"
    if not ((event.confidence >= 0) & (event.confidence <= 1)).all():
        return "a confidence lies outside 0 to 1"
    if not (np.isfinite(event.entropy) & (event.entropy >= 0)).all():
        return "an entropy is not a number of nats from 0"
    if not state.active[np.concatenate([event.rows, event.row, event.left, event.remasked_row, event.settled])].all():
        return "a row goes on that had left"
    # a place that was masked again in this event may be written once more, by a stop rule; one that is held, by a look
    blank = state.blank | state.held
    for which in (~event.by_rule, event.by_rule):
        places = list(zip(event.row[which].tolist(), event.position[which].tolist(), strict=True))
        if len(set(places)) < len(places) or not blank[event.row[which], event.position[which]].all():
            return "a place is written that was not blank"
        blank[event.row[which], event.position[which]] = False
        again = (event.remasked_row, event.remasked_position)
        if not state.canvas.blank[again].all():
            return "fixed text is masked"
        blank[again] = True
    return ""


def _rows(canvas: Canvas) -> Iterator[dict[str, Any]]:
    for i, name in enumerate(canvas.ids):
        length = int(canvas.valid[i].sum())
        yield {
            "id": name,
            "tokens": canvas.tokens[i, :length].tolist(),
            "slot": canvas.slot[i, :length].tolist(),
            "blank": canvas.blank[i, :length].tolist(),
        }


#: arrays of an event by their key in the file: the field's name and its type
_ARRAYS: dict[str, tuple[str, type]] = {
    "rows": ("rows", np.int32),
    "row": ("row", np.int32),
    "position": ("position", np.int32),
    "token": ("token", np.int32),
    "probability": ("probability", np.float32),
    "entropy": ("entropy", np.float32),
    "confidence": ("confidence", np.float32),
    "ruled": ("by_rule", np.bool_),
    "held": ("held", np.bool_),
    "remasked_row": ("remasked_row", np.int32),
    "remasked_position": ("remasked_position", np.int32),
    "settled": ("settled", np.int32),
    "left": ("left", np.int32),
}
#: arrays that are in the file only if a revision held something
_SPARSE = {"held", "settled"}


def event_line(event: Event) -> dict[str, Any]:
    """An event as a line of the file."""
    sparse = {"held": event.held.any(), "settled": len(event.settled) > 0}
    line: dict[str, Any] = {
        key: getattr(event, name).tolist() for key, (name, _) in _ARRAYS.items() if sparse.get(key, True)
    }
    return {**line, "price": _price(event), "outcomes": [[o.name, o.sentence] for o in event.outcomes]}


def _price(event: Event) -> int | list[int]:
    """What a forward pass cost: one number where all rows paid the same."""
    paid = event.passes.tolist()
    return (paid[0] if paid else 0) if len(set(paid)) <= 1 else paid


def _read_event(line: dict[str, Any]) -> Event:
    # confidences were not kept at first
    kept = _ARRAYS.keys() - ({"confidence", *_SPARSE} - line.keys())
    arrays: dict[str, Any] = {name: np.array(line[key], dtype) for key, (name, dtype) in _ARRAYS.items() if key in kept}
    for name, array in arrays.items():
        if array.ndim != 1 or (array.dtype == np.int32 and (array < 0).any()):
            raise ValueError(f"{name} must be a list of numbers from 0")
    arrays.setdefault("confidence", np.zeros_like(arrays["probability"]))
    arrays.setdefault("held", np.zeros_like(arrays["by_rule"]))
    arrays.setdefault("settled", np.zeros(0, np.int32))
    price: Any = line["price"]
    paid = cast("list[object]", price if isinstance(price, list) else [price])
    if not all(type(number) is int and number >= 0 for number in paid):
        raise ValueError(f"the price {price!r} is not a number of forward passes")
    passes = np.broadcast_to(np.array(price, np.int32), arrays["rows"].shape)
    return Event(passes=passes, outcomes=tuple(Outcome(*pair) for pair in line["outcomes"]), **arrays)

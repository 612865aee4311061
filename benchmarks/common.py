"""What benchmarks share: the command line, sides timed in turns, bootstrap intervals, rows as a table or JSON lines.

An interval is always the 95 % percentile bootstrap, from a fixed seed; resample numbers `[draws, count]` once and use
them on every column, and the comparison is paired.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from mdsample.core.arrays import Doubles
from mdsample.evaluation.intervals import Interval, resamples


class Later:
    """A module that is imported when it is first used, so that `--help` does not wait for it."""

    def __init__(self, name: str) -> None:
        """Its full name."""
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """What the module has by this name."""
        return getattr(import_module(self._name), name)


torch: Any = Later("torch")


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the benchmark's docstring, as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_torch_options(parser: argparse.ArgumentParser, device: str, dtype: str) -> None:
    """Where and in what a benchmark of torch runs, and how it prints; `device` and `dtype` are the defaults."""
    parser.add_argument("--device", default=device)
    parser.add_argument("--dtype", default=dtype, choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true")


def add_write(parser: argparse.ArgumentParser, what: str) -> None:
    """The option without which a benchmark writes none of the repository's own files."""
    parser.add_argument("--write", action="store_true", help=f"write {what} as well; without it everything is printed")


def progress(text: str) -> None:
    """How far a long benchmark has come, on stderr, where it is no part of the result."""
    print(text, file=sys.stderr, flush=True)


def seconds(
    work: Callable[[], object],
    wait: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds that work takes; `wait` returns when the device has done all it was given."""
    wait()
    began = clock()
    work()
    wait()
    return clock() - began


def timed(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    wait: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Doubles]:
    """Seconds `[repeats]` of each side: a round that does not count, then rounds in which the sides take turns."""
    rounds = [{name: seconds(work, wait, clock) for name, work in sides.items()} for _ in range(repeats + 1)][1:]
    return {name: np.array([spent[name] for spent in rounds]) for name in sides}


def waiter(device: Any) -> Callable[[], object]:
    """What `timed` waits with on a torch device."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else lambda: None


def device_name(device: Any) -> str:
    """The GPU's own name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def interval(value: float, drawn: Sequence[float] | Doubles) -> Interval:
    """A number with the middle 95 % of what resamples gave."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def bootstrap(values: Doubles, statistic: Callable[..., Any] = np.mean, draws: int = 2000) -> Interval:
    """A statistic of `values [n]` over its items; it must take `axis`."""
    return interval(statistic(values), statistic(values[resamples(len(values), draws)], axis=1))


def print_head(columns: Sequence[str], text: int = 1) -> None:
    """The first two lines of a Markdown table, whose first `text` columns are text and the others numbers."""
    print_row(columns)
    print_row(["---" if i < text else "---:" for i in range(len(columns))])


def print_row(cells: Sequence[object]) -> None:
    """A line of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def emit(record: Mapping[str, object], cells: Sequence[object] | str, as_json: bool) -> None:
    """A result: a JSON line, or the cells of a table, or a line of text."""
    if as_json:
        print(json.dumps(record), flush=True)
    elif isinstance(cells, str):
        print(cells, flush=True)
    else:
        print_row(cells)

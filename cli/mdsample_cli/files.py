"""Files that a command line names: reading them, and refusing at once what cannot be written later."""

from __future__ import annotations

import io
import json
import os
import select
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mdsample_cli.errors import UsageError, note

if TYPE_CHECKING:
    from mdsample.core.sources import Source

#: seconds that a silent pipe is given
_PATIENCE = 1.0
#: what a picture begins with
_PICTURES = (b"\x89PNG", b"<?xml", b"<svg", b"%PDF")
#: what options call standard input
_STDIN = frozenset(("-", "@-", "/dev/stdin", "@/dev/stdin"))


def read_bytes(path: str) -> bytes:
    """A file's bytes, or standard input's for `-`."""
    if not path:
        raise UsageError("the name of a file is empty; give one, or - for standard input")
    if path == "-" and sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise UsageError("there is no standard input to read; give the name of a file")
    from mdsample.core.files import read_whole

    try:
        return sys.stdin.buffer.read() if path == "-" else read_whole(path)
    except OSError as error:
        raise cannot_read(path, error) from error


def read_source(path: str) -> Source:
    """The rows of a file or of a saved data set, one by one; what is no file that can be read twice is read whole."""
    from mdsample.core.sources import is_saved, open_source, source_of

    if os.path.isfile(path) or is_saved(path):
        try:
            return open_source(path)
        except OSError as error:
            raise cannot_read(path, error) from error
    return source_of(read_bytes(path), path)


def is_piped(*others: str | None) -> bool:
    """Whether there is something on a standard input that is a pipe or a file.

    A pipe that is silent is given a second: many programs are started with one that is never written to.
    `others`: values of options that read a file; if one of them is standard input, there is nothing left on it.
    """
    if _STDIN.intersection(others):
        return False
    try:
        fd = sys.stdin.fileno()
        kind = os.fstat(fd).st_mode
    except (AttributeError, OSError, ValueError):  # there is none
        return False
    bytes_in = sys.stdin.buffer
    carries = stat.S_ISFIFO(kind) or stat.S_ISREG(kind) or stat.S_ISSOCK(kind)
    if not carries or not isinstance(bytes_in, io.BufferedReader):
        return False
    try:
        speaks = bool(select.select([fd], [], [], _PATIENCE)[0])
    except OSError:  # Windows asks sockets only
        speaks = True
    if not speaks:
        note("nothing came on standard input, so it is not read; --input - waits for it")
    return speaks and bool(bytes_in.peek(1))


def read_text(path: str) -> str:
    """A file's text."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start})") from error


def read_schema(path: str) -> dict[str, Any]:
    """The JSON schema in a file."""
    try:
        schema: object = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise UsageError(f'{path} holds {json.dumps(schema):.40}, and a schema is a JSON object, as in {{"type": …}}')
    return cast("dict[str, Any]", schema)


def text_or_file(text: str) -> str:
    """The text, or that of the file in `@FILE`, without its last line break."""
    return read_text(text[1:]).removesuffix("\n") if text.startswith("@") else text


def cannot_read(path: str | Path, error: OSError) -> UsageError:
    """The error for a file that cannot be read."""
    return UsageError(f"cannot read {path}: {error.strerror or error}")


def require_writable(path: Path, option: str) -> None:
    """Refuses a file that cannot be written, before there is anything to write."""
    if not path.name:
        raise UsageError(f"{option} needs the name of a file; got {str(path)!r}")
    from mdsample.core import files
    from mdsample.errors import WriteError

    try:
        files.require_writable(path)
    except WriteError as error:
        raise UsageError(f"{option}: {error}") from error


def require_replaceable(path: Path, option: str, kind: str, beginnings: tuple[bytes, ...]) -> None:
    """Refuses a file that cannot be written, or holds something that does not begin as its kind does."""
    require_writable(path, option)
    from mdsample.core.files import mode

    if stat.S_ISREG(mode(path)) and path.stat().st_size:
        with path.open("rb") as file:
            if not file.read(max(map(len, beginnings))).startswith(beginnings):
                raise UsageError(f"{option}: {path} is there and is not {kind}; give another name, or remove it")


def require_plot(path: Path | None, endings: tuple[str, ...], rule: str) -> None:
    """Refuses a picture that cannot be drawn or written, before anything is computed; `rule` says what may be given."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise UsageError(f"--plot {rule}; got {path}")
    require_replaceable(path, "--plot", "a picture", _PICTURES)
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'mdsample[plot]'")


def require_distinct(**files: str | Path | None) -> None:
    """Refuses one file for two purposes; the keywords are the options' names."""
    options: dict[str, str] = {}
    for option, file in files.items():
        if file is None or str(file) == "-":
            continue
        path = os.path.realpath(file)
        if path in options:
            raise UsageError(f"--{options[path]} and --{option} are the same file, {file}; one would destroy the other")
        options[path] = option

"""A model's files, wherever they are: their names, their sizes, and bytes of them on demand."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast, final

import attrs

from mdsample.errors import ModelError

#: bytes of a file that says what a model is; the longest published ones have one or two million
MOST = 1 << 22
#: levels of lists and objects in one; published ones have five
_DEEPEST = 50


class Files(Protocol):
    """What is read of a model before its weights are."""

    @property
    def folder(self) -> Path:
        """Where the JSON files are; the weights are there too, or would be once they are fetched."""
        ...

    def names(self) -> Sequence[str]:
        """The files beside one another, sorted."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file; `None` if there is none of this name."""
        ...

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`, or up to its end."""
        ...


@final
@attrs.frozen
class FolderFiles:
    """The files of a folder here."""

    folder: Path

    def names(self) -> Sequence[str]:
        """What the folder holds, sorted."""
        return sorted(path.name for path in self.folder.glob("*"))

    def size(self, name: str) -> int | None:
        """Bytes of a file; `None` if there is none of this name, or a folder."""
        try:
            about = (self.folder / name).stat()
        except OSError:  # also for a name that is too long, or a circle of links
            return None
        return about.st_size if stat.S_ISREG(about.st_mode) else None

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`, or up to its end."""
        try:
            with (self.folder / name).open("rb") as opened:
                opened.seek(start)
                return opened.read(stop - start)
        except OSError as error:
            raise ModelError(f"{self.folder / name} cannot be read: {error.strerror}") from error


#: the file in which a model folder may say something of itself
CARD = "mdsample.toml"


def read_bytes(path: Path, most: int = MOST) -> bytes | None:
    """All of a file that comes from a stranger, `None` if there is none.

    `ModelError` if it is a folder, a pipe or a device, which might never end, has more than `most` bytes, is something
    that a failed download leaves, or cannot be read. Every file of a model but its weights is read here.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path} must be an ordinary file, but is {_kind(path)}; put the model's file there")
        with path.open("rb") as opened:
            data = opened.read(most + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # a circle of links, a name that is too long, no permission
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise ModelError(f"{path} has more than {most:,} bytes, so it is not what its name says; fetch it again")
    if instead := left_instead(data[:PEEK]):
        raise ModelError(f"{path} {instead}")
    return data


#: bytes of a file that tell what it is
PEEK = 256


def left_instead(beginning: bytes) -> str:
    """What a download leaves in the place of a file, and what to do; empty if a file does not begin so."""
    if beginning.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, not the file itself: run 'git lfs pull' there, or fetch it with 'hf download'"
    if re.match(rb"\s*<(!doctype\s+html|html\b)", beginning, re.IGNORECASE):
        return "is a web page, such as a hub shows to who is not logged in: fetch it again with 'hf download'"
    return ""


def read_text(path: Path, most: int = MOST) -> str | None:
    """The text of a file as `read_bytes` reads it; `ModelError` if it is not UTF-8."""
    data = read_bytes(path, most)
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 (byte {error.start})") from error


def read_json(path: Path, most: int = MOST, once: bool = False) -> object:
    """What a file of JSON says, `None` if there is none; `ModelError` if it is not JSON, or nested without sense.

    `once`: as for `parse_json`.
    """
    data = read_bytes(path, most)
    if data is None:
        return None
    if not data.strip():
        raise ModelError(f"{path} is empty; fetch it again")
    try:
        return parse_json(data, once)
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}; correct it, or fetch it again") from error


def parse_json(text: bytes, once: bool = False) -> object:
    """What JSON says; `ValueError` if it is none, is nested too deeply, or, with `once`, if a key is there twice."""
    try:
        value: object = json.loads(text.decode("utf-8"), object_pairs_hook=_once if once else None)
        _require_shallow(value, _DEEPEST)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def held_elsewhere(folder: Path) -> str:
    """What a folder without `config.json` holds instead, and what to give; empty if it is nothing that is known."""
    inside = sorted(path.parent for path in (*folder.glob("*/config.json"), *folder.glob("snapshots/*/config.json")))
    if inside:
        more = f" (and {len(inside) - 1} more)" if len(inside) > 1 else ""
        return f": a model is in the folder {inside[0]}{more}; give that"
    if packed := sorted(path.name for path in folder.glob("*.gguf")):
        return f": {packed[0]:.80} is GGUF, which is not read; give the model that it was made from, in safetensors"
    return "; give the folder that config.json and the weights are in"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return entries


def _require_shallow(value: object, levels: int) -> None:
    """What is nested deeper cannot be shown in an error, for one thing."""
    if isinstance(value, dict):
        value = list(cast("dict[str, object]", value).values())
    if isinstance(value, list):
        if not levels:
            raise RecursionError
        for inner in cast("list[object]", value):
            if isinstance(inner, dict | list):
                _require_shallow(cast("object", inner), levels - 1)


def _kind(path: Path) -> str:
    kinds = {"a folder": path.is_dir, "a pipe": path.is_fifo, "a socket": path.is_socket}
    return next((kind for kind, holds in kinds.items() if holds()), "a device")

"""A model's files, wherever they are: their names, their sizes, and bytes of them on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, final

import attrs


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
        path = self.folder / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`, or up to its end."""
        with (self.folder / name).open("rb") as opened:
            opened.seek(start)
            return opened.read(stop - start)


#: the file in which a model folder may say something of itself
CARD = "mdsample.toml"

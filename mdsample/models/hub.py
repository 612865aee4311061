"""The Hugging Face hub: files fetched into its cache, and files read there in ranges without being fetched."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import huggingface_hub
from huggingface_hub import constants, errors, utils

from mdsample.errors import ModelError
from mdsample.models.files import CARD, Files, FolderFiles

#: what says what a model is
FACTS = ("*.json", "merges.txt", CARD, "chat_template.jinja")

_HEAD = 1 << 17  # bytes fetched at first; most headers are shorter
_PATIENCE = 30  # seconds without an answer


def download(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder in the hub's cache that holds the files of these patterns; raises `ModelError`."""
    with _asked(name, revision):
        return Path(
            huggingface_hub.snapshot_download(  # pyright: ignore[reportUnknownMemberType]
                name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
            )
        )


def hub_files(name: str, revision: str | None) -> Files:
    """The files of a model on the hub, of which JSON is fetched and the rest left there; offline, its cache."""
    folder = download(name, revision, FACTS)
    return FolderFiles(folder) if constants.HF_HUB_OFFLINE else HubFiles(name, folder)


@final
class HubFiles:
    """A model's files on the hub; those that are in its cache are read there."""

    def __init__(self, name: str, folder: Path) -> None:
        """`folder`: of one commit in the hub's cache; the commit is its name. Asks for a list of the files."""
        self.folder = folder
        self._name, self._commit, self._cached = name, folder.name, FolderFiles(folder)
        self._heads: dict[str, bytes] = {}
        with _asked(name, self._commit):
            entries = list(huggingface_hub.HfApi().list_repo_tree(name, revision=self._commit))
        self._sizes = {entry.path: entry.size for entry in entries if isinstance(entry, huggingface_hub.RepoFile)}

    def names(self) -> Sequence[str]:
        """The files at the top of the repository, sorted."""
        return sorted(self._sizes)

    def size(self, name: str) -> int | None:
        """Bytes of a file; `None` if there is none of this name."""
        return self._sizes.get(name)

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes of a file from `start` up to `stop`, or up to its end; raises `ModelError`."""
        if self._cached.size(name) is not None:
            return self._cached.read(name, start, stop)
        if name not in self._heads:
            self._heads[name] = self._fetch(name, 0, _HEAD)
        head = self._heads[name]
        return head[start:stop] if stop <= _HEAD else head[start:] + self._fetch(name, max(start, _HEAD), stop)

    def _fetch(self, name: str, start: int, stop: int) -> bytes:
        stop = min(stop, self._sizes[name])
        if start >= stop:
            return b""
        url = huggingface_hub.hf_hub_url(self._name, name, revision=self._commit)
        wanted = {"range": f"bytes={start}-{stop - 1}"}
        headers = utils.build_hf_headers(headers=wanted)  # pyright: ignore[reportUnknownMemberType]
        with (
            _asked(self._name, self._commit),
            huggingface_hub.get_session().stream("GET", url, headers=headers, timeout=_PATIENCE) as response,
        ):
            huggingface_hub.hf_raise_for_status(response)
            # any other answer is the whole file, which may be many gigabytes
            if response.status_code != 206:
                raise OSError(f"no part of {name} can be had, only all of it")
            return response.read()


@contextmanager
def _asked(name: str, revision: str | None) -> Generator[None]:
    """Whatever goes wrong between here and the hub (name, permission, network, disk), a person gets one sentence."""
    try:
        yield
    except Exception as error:
        offline = constants.HF_HUB_OFFLINE
        lost = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        known: dict[type[Exception], str] = {
            errors.GatedRepoError: "it is gated: accept its terms on the hub, then log in with 'hf auth login'",
            errors.RepositoryNotFoundError: "there is no such model, or it is private: log in with 'hf auth login'",
            errors.RevisionNotFoundError: "the model is there, but not this revision",
            errors.LocalEntryNotFoundError: f"{lost}, and the model is not in the cache",
        }
        fallback = " ".join(str(error).split()) or type(error).__name__
        reason = next((sentence for kind, sentence in known.items() if isinstance(error, kind)), fallback)
        which = name if revision is None else f"{name} at revision {revision}"
        raise ModelError(
            f"{which} is not a folder here and could not be fetched from the Hugging Face hub: {reason}"
        ) from error

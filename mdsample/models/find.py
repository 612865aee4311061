"""From a model's name to a denoiser: embedded models, local folders, the Hugging Face hub; backends by entry point."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mdsample.errors import ModelError, shown

_EMBEDDED = Path(__file__).parent / "embedded"
# exactly one slash and no part that begins with a dot
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def name_text(name: str | Path) -> str:
    """What a model is called; `TypeError` for what is neither text nor a path."""
    if not isinstance(name, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a model is named by text or a path, such as 'tiny-gsm'; got {shown(name)}")
    return os.fspath(name)


def find(name: str | Path, revision: str | None) -> Path | str:
    """The folder of an embedded or local model, or else the id of a model on the hub; nothing is fetched.

    Raises `ModelError` for a name that is none of these, and for a revision of a folder.
    """
    text = name_text(name)
    folder = embedded_folder(text) if text in embedded_models() else Path(os.path.expanduser(text))
    if text and os.path.isdir(folder):  # False too for a name that is too long, or none that a file may have
        if revision is not None:
            raise ModelError(
                f"revision={revision!r} is for models on the hub, but {text!r} is a folder here; leave it out"
            )
        return folder
    if isinstance(name, str) and _HUB_ID.fullmatch(text):
        return text
    if os.path.isfile(folder):
        raise ModelError(f"{text!r} is a file; a model is a folder: give the one that its config.json is in")
    embedded = ", ".join(embedded_models()) or "none"
    raise ModelError(
        f"there is no model {text!r}: it is not an embedded model (there: {embedded}), not a folder, "
        "and not a hub id of the form organisation/model"
    )


def find_adapter(name: str | Path) -> tuple[Path | str, str | None]:
    """The folder of an adapter, or else its id on the hub and the revision that stands after `@`; nothing is fetched.

    `ModelError` for any other name.
    """
    text = name_text(name)
    folder = Path(os.path.expanduser(text))
    if text and os.path.isdir(folder):
        return folder, None
    hub_id, at, revision = text.partition("@")
    if isinstance(name, str) and _HUB_ID.fullmatch(hub_id) and bool(revision) == bool(at):
        return hub_id, revision or None
    raise ModelError(
        f"there is no adapter {text!r}: it is not a folder, and not a hub id of the form organisation/adapter or "
        "organisation/adapter@revision"
    )


def facts_folder(name: str | Path, revision: str | None) -> Path:
    """Where the files are that say what a model is; from the hub these alone are fetched. Raises `ModelError`."""
    source = find(name, revision)
    if isinstance(source, Path):
        return source
    from mdsample.models.hub import FACTS, download

    return download(source, revision, FACTS)


def embedded_models() -> list[str]:
    """Names of the models that come with the package, sorted."""
    if not _EMBEDDED.is_dir():
        return []
    return sorted(folder.name for folder in _EMBEDDED.iterdir() if (folder / "config.json").is_file())


def embedded_folder(name: str) -> Path:
    """Where an embedded model's files are."""
    return _EMBEDDED / name

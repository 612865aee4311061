"""Fetch: a model's folder with all its files; of a model on the hub only once nothing speaks against it.

Configuration, tokenizer, chat template and the headers of the weights cost kilobytes, the weights gigabytes. So what
`load` refuses is refused before the first weight is asked for, and all that is fetched is of one commit.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from mdsample.errors import ModelError
from mdsample.models.card import model_name
from mdsample.models.families import ADAPTER, family_of, read_fields
from mdsample.models.files import Files, FolderFiles
from mdsample.models.find import find
from mdsample.models.inspect import Facts, facts_of
from mdsample.models.weights.adapter import OTHERS, WEIGHTS
from mdsample.models.weights.checkpoint import size_text


def fetch(
    name: str | Path,
    revision: str | None = None,
    check: Callable[[Facts], None] | None = None,
    check_other: Callable[[Files], None] | None = None,
    adapter: Files | None = None,
) -> Path:
    """The folder of a model by a name as `load` takes it; what is not here is fetched into the hub's cache.

    `check` raises for facts of a model that is not to be fetched. `check_other` is given the files of a model that is
    of none of our families, and raises if it cannot be opened; without it no such model can. `adapter`: the files of
    one that is to be merged; a model that it does not fit is not fetched. Raises `ModelError`, also if the disk has no
    room.
    """
    source = find(name, revision)
    if isinstance(source, Path):
        return source
    # imported here: it takes longer to import than an embedded model takes to load
    from mdsample.models.hub import FACTS, download, hub_files

    files = hub_files(source, revision)
    if check_other is not None and family_of(read_fields(files.folder)) is None:
        if adapter is not None:
            raise ModelError(OTHERS)
        check_other(files)
        weights = tuple(file for file in files.names() if file.endswith(".safetensors"))
    else:
        facts = facts_of(files, adapter)
        if check is not None:
            check(facts)
        weights = tuple(file.name for file in facts.files)
    _require_room(files, weights)
    return download(source, files.folder.name, (*FACTS, *weights))


def fetch_adapter(files: Files) -> Path:
    """The folder of an adapter with its weights, by files as `adapter_files` finds them; raises `ModelError`."""
    if isinstance(files, FolderFiles):
        return files.folder
    from mdsample.models.hub import download

    _require_room(files, (WEIGHTS,))
    return download(model_name(files.folder), files.folder.name, (ADAPTER, WEIGHTS))


def _require_room(files: Files, weights: tuple[str, ...]) -> None:
    """`ModelError` if what is still to be fetched does not fit on the disk."""
    left = sum(files.size(name) or 0 for name in weights if not (files.folder / name).is_file())
    free = shutil.disk_usage(files.folder).free
    if left > free:
        raise ModelError(
            f"{files.folder} would take {size_text(left)} more, but {size_text(free)} are free there; free some, or "
            "set HF_HOME to a folder on a larger disk"
        )

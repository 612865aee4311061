"""Describe: everything in a model folder but the weights, read and checked, as every backend needs it to open one."""

from __future__ import annotations

from pathlib import Path

import attrs

from mdsample.errors import ModelError
from mdsample.models.cache import Cache, check_compatible
from mdsample.models.card import Card, read_card
from mdsample.models.decoding import published_policy
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Trunk
from mdsample.models.find import facts_folder
from mdsample.models.text.tokenizer import FileTokenizer
from mdsample.models.weights.adapter import identity, open_adapter
from mdsample.models.weights.checkpoint import Checkpoint, open_checkpoint
from mdsample.models.weights.merging import merged

#: dtypes that weights are computed in, and what safetensors files call them
STORED_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@attrs.frozen(eq=False)
class Described:
    """A model folder, before its weights are read."""

    trunk: Trunk
    card: Card
    tokenizer: FileTokenizer
    checkpoint: Checkpoint

    @property
    def policy(self) -> str:
        """Text of the policy that it is published with; empty: none is known."""
        return published_policy(self.trunk, self.card)

    @property
    def stored(self) -> str:
        """The type that the embedding is stored in (its scales, if it is quantised): F32, F16 or BF16."""
        return self.checkpoint.pieces["embed"][0].dtype


def describe(folder: Path, cache: Cache | None = None, adapter: Path | None = None) -> Described:
    """Reads `config.json`, `mdsample.toml`, the tokenizer and the headers of the weights, in this order.

    `adapter`: the folder of one that is merged into the weights when they are read. It is in the model's name, so that
    records with and without it are told apart. Tokenizer and chat template are the model's own.
    Raises `ModelError` where they are missing, malformed or do not fit together, `CacheError` if the cache does not
    suit the model.
    """
    trunk = read_config(folder)
    check_compatible(cache, trunk.block, trunk.conditioned)
    card, tokenizer = read_card(folder), FileTokenizer.read(folder, trunk)
    checkpoint = open_checkpoint(folder, trunk)
    if adapter is not None:
        opened = open_adapter(adapter)
        checkpoint = merged(checkpoint, opened)
        card = attrs.evolve(card, name=f"{card.name}+{opened.name}@{identity(adapter)}")
    return Described(checkpoint.trunk, card, tokenizer, checkpoint)


def dtype_name(name: str | None, stored: str, on_cpu: bool) -> str:
    """The dtype of this name; `None`: float32 on a CPU, elsewhere the `stored` one, float32 if that is another.

    Raises `ModelError` for an unknown name.
    """
    if name is None:
        names = {stored: name for name, stored in STORED_NAMES.items()}
        return "float32" if on_cpu else names.get(stored, "float32")
    if name not in STORED_NAMES:
        raise ModelError(f"there is no dtype {name!r} here; there are: {', '.join(STORED_NAMES)}")
    return name


def tokenizer_of(name: str | Path, revision: str | None = None) -> FileTokenizer:
    """A model's tokenizer; no weight is read or fetched. Raises `ModelError` where it cannot be read."""
    folder = facts_folder(name, revision)
    return FileTokenizer.read(folder, read_config(folder))

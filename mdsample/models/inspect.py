"""What a checkpoint is, told without reading its weights: from its JSON files and the headers of its weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import attrs

from mdsample.errors import ModelError
from mdsample.models.card import read_card
from mdsample.models.decoding import published_policy
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Trunk
from mdsample.models.files import Files, FolderFiles
from mdsample.models.find import find, find_adapter
from mdsample.models.text.chat_template import chat_file
from mdsample.models.weights.adapter import AdapterFacts, adapter_facts, read_adapter
from mdsample.models.weights.checkpoint import open_checkpoint, read_stored, size_text
from mdsample.models.weights.headers import Stored
from mdsample.models.weights.merging import merged

#: bytes of one weight in memory, by the names that `load` takes
SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


@attrs.frozen
class Token:
    """A special token."""

    id: int
    text: str


@attrs.frozen
class File:
    """A file of weights."""

    name: str
    bytes: int


@attrs.frozen(kw_only=True)
class Facts:
    """A checkpoint that can be loaded, as far as its headers tell."""

    #: the folder's name, or the hub id
    name: str
    #: one sentence for people; empty if the checkpoint has none
    description: str
    #: text of the template that suits it
    template: str
    #: text of the policy that it is published with; empty if none is known
    policy: str
    #: the file that its chat template is in; empty if it has none
    chat: str
    #: sizes, attention, experts
    trunk: Trunk
    #: number of weights
    parameters: int
    #: number of weights that one token meets; fewer than `parameters` if there are experts
    active_parameters: int
    mask: Token
    #: ends and pads a text
    end: Token | None
    #: all tokens that end a text, `end` and that of a chat's turn among them, by id
    ends: tuple[Token, ...]
    #: stands before every text
    start: Token | None
    #: the type that the embedding is stored in (its scales, if it is quantised): F32, F16 or BF16
    dtype: str
    #: number of weights by how they are stored: a type, or bits and group size
    stored: Mapping[str, int]
    #: the files of weights, sorted
    files: tuple[File, ...]
    #: bytes of these files
    bytes: int
    #: what of its tensors is not read, a sentence each (the part that sees images)
    passed_over: tuple[str, ...]
    #: bytes of memory that the weights alone take, by dtype; a forward pass takes more, the more rows and tokens it has
    memory: Mapping[str, int]
    #: the same on a backend that keeps quantised matrices packed
    memory_packed: Mapping[str, int]
    #: the adapter that is to be merged into it, if there is one
    adapter: AdapterFacts | None = None


def inspect(name: str | Path, *, revision: str | None = None, adapter: str | Path | None = None) -> Facts:
    """The facts of a model, by a name as `load` takes it; no weight is read, and from the hub none is fetched.

    `adapter`: one that is to be merged into it, as `load` takes it; that it fits is checked.

    Of a model on the hub the JSON files are fetched into its cache, and the headers of the weights are read where they
    are; with `HF_HUB_OFFLINE=1` the cache alone is used. Raises `ModelError` as `load` does, but for weights that are
    not finite and for too little memory.
    """
    return facts_of(_files(name, revision), None if adapter is None else adapter_files(adapter))


def inspect_adapter(name: str | Path, *, revision: str | None = None) -> AdapterFacts:
    """The facts of an adapter, by a name as `load` takes it; no weight is read, and from the hub none is fetched.

    Raises `ModelError` as `load` does of what is known of an adapter without its model.
    """
    return adapter_facts(read_adapter(adapter_files(name, revision)))


def facts_of(files: Files, adapter: Files | None = None) -> Facts:
    """The facts of a model by its files, and with an adapter by the adapter's."""
    trunk, card = read_config(files.folder), read_card(files.folder)
    # imported here: it takes longer to import than all the rest of the library
    from mdsample.models.text.tokenizer import FileTokenizer

    tokenizer = FileTokenizer.read(files.folder, trunk)
    checkpoint = open_checkpoint(files, trunk)
    trunk = checkpoint.trunk
    texts = {tokenizer.special_id(text): text for text in tokenizer.special}
    pieces = [piece for group in checkpoint.pieces.values() for piece in group]
    stored = Counter[str]()
    for piece in pieces:
        stored[piece.kind] += math.prod(piece.shape)
    shard_names = sorted({part.file.name for piece in pieces for part in piece.stored})
    shards = tuple(File(shard, files.size(shard) or 0) for shard in shard_names)
    opened = None if adapter is None else read_adapter(adapter)
    if opened is not None:
        checkpoint = merged(checkpoint, opened)
        trunk = checkpoint.trunk
    return Facts(
        name=card.name,
        description=card.description,
        template=card.template,
        policy=published_policy(trunk, card),
        chat=chat_file(files.folder),
        trunk=trunk,
        parameters=trunk.parameters,
        active_parameters=trunk.active_parameters,
        mask=Token(trunk.mask_id, texts[trunk.mask_id]),
        end=None if trunk.end_id is None else Token(trunk.end_id, texts[trunk.end_id]),
        ends=tuple(Token(token, texts[token]) for token in sorted(tokenizer.ends)),
        start=None if trunk.start_id is None else Token(trunk.start_id, texts[trunk.start_id]),
        dtype=checkpoint.pieces["embed"][0].dtype,
        stored=dict(stored.most_common()),
        files=shards,
        bytes=sum(shard.bytes for shard in shards),
        passed_over=_passed_over(read_stored(files) if trunk.passed_over else {}, trunk.passed_over),
        memory={dtype: checkpoint.memory(size) for dtype, size in SIZES.items()},
        memory_packed={dtype: checkpoint.memory(size, packed=True) for dtype, size in SIZES.items()},
        adapter=None if opened is None else adapter_facts(opened),
    )


def _passed_over(stored: Mapping[str, Stored], beginnings: Mapping[str, str]) -> tuple[str, ...]:
    """What tensors that begin so are, how many there are, and how much of the files they are."""
    told: list[str] = []
    for what in dict.fromkeys(beginnings.values()):
        starts = tuple(start for start, part in beginnings.items() if part == what)
        sizes = [tensor.bytes for name, tensor in stored.items() if name.startswith(starts)]
        if sizes:
            told.append(
                f"{what} is not read: {len(sizes):,} tensors, {size_text(sum(sizes))}; the model takes text only"
            )
    return tuple(told)


def adapter_files(name: str | Path, revision: str | None = None) -> Files:
    """The files of an adapter by a name as `load` takes it; from the hub what says what it is is fetched.

    `ModelError` also for a revision beside one in the name.
    """
    source, own = find_adapter(name)
    if own is not None and revision not in (None, own):
        raise ModelError(f"the adapter {name} names a revision, and revision={revision!r} another; leave one out")
    return _opened(source, own or revision)


def _files(name: str | Path, revision: str | None) -> Files:
    return _opened(find(name, revision), revision)


def _opened(source: Path | str, revision: str | None) -> Files:
    if isinstance(source, Path):
        return FolderFiles(source)
    from mdsample.models.hub import hub_files

    return hub_files(source, revision)

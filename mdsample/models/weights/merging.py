"""Merging: which tensors of a model an adapter changes, found by their published names; no weight is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from mdsample.errors import ModelError
from mdsample.models.families.trunk import Single, Slice, Source, Stack, Trunk
from mdsample.models.weights.adapter import REMEDY, Adapter
from mdsample.models.weights.checkpoint import Checkpoint, complain, expected_shapes
from mdsample.models.weights.headers import Stored
from mdsample.models.weights.piece import AnyPiece, Change, LowRank, Merged, Packed, Piece, Shift

#: the parts of a pair by the names that peft gives them, of a linear layer and of an embedding
_LINEAR, _EMBEDDING = ("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")
_MAGNITUDE, _SHIFT = "lora_magnitude_vector", "lora_B.bias"
#: what peft writes between the name of a module and of its tensor where a copy is trained in its place
_COPY = re.compile(r"\.(base_layer|modules_to_save)(?=\.(weight|bias)$)")


@attrs.frozen
class _Place:
    """Where a published tensor goes: our name, the number of the expert that it is of, and its rows of ours."""

    ours: str
    expert: int | None = None
    rows: tuple[int, int] | None = None


def merged(checkpoint: Checkpoint, adapter: Adapter) -> Checkpoint:
    """The checkpoint with what the adapter changes, tensor by tensor, merged when each is read.

    Raises one `ModelError` that names the tensors that are the adapter's alone, of another shape, or not whole; or says
    that the model is quantised, or shares between embedding and head what the adapter changes in one of them.
    """
    return _Merging(checkpoint, adapter).checkpoint()


class _Merging:
    """One adapter put on one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter) -> None:
        self._base, self._adapter, self._trunk = checkpoint, adapter, checkpoint.trunk
        self._faults: list[str] = []
        self._pairs, self._whole = _grouped(adapter.stored, self._faults)
        names = {f"{module}.weight" for module in self._pairs} | self._whole.keys()
        layout = max(self._trunk.layouts, key=lambda layout: len(names & expected_shapes(layout, self._trunk).keys()))
        self._places = _places(layout, self._trunk)
        self._shapes = expected_shapes(layout, self._trunk) | dict(self._trunk.optional_tensors)
        self._changes: dict[tuple[str, int | None], list[Change]] = {}

    def checkpoint(self) -> Checkpoint:
        for name, tensor in self._whole.items():
            self._replace(name, tensor)
        for module, parts in self._pairs.items():
            self._change(module, dict(parts))
        complain(
            f"the adapter {self._adapter.name} does not fit {self._trunk.family} models",
            self._faults,
            "; give the model that it was made for",
        )
        self._refuse_shared()
        return self._applied()

    def _replace(self, name: str, tensor: Stored) -> None:
        if self._fits(name, name, tensor, self._shapes.get(name)):
            self._add(name, lambda rows: Piece.of(name, tensor, rows))

    def _change(self, module: str, parts: dict[str, Stored]) -> None:
        """One pair of thin matrices, and what belongs to it."""
        shape = self._shapes.get(f"{module}.weight")
        embedding = _EMBEDDING[0] in parts or _EMBEDDING[1] in parts
        names = _EMBEDDING if embedding else _LINEAR
        a, b, magnitude, shift = (parts.pop(name, None) for name in (*names, _MAGNITUDE, _SHIFT))
        lost = [name for name, part in zip(names, (a, b), strict=True) if part is None]
        lost += [_MAGNITUDE] * (self._adapter.dora and magnitude is None)
        self._faults += [f"{module}.{name} is missing" for name in lost]
        self._faults += [f"{module}.{name} is not known" for name in parts]
        if magnitude is not None and not self._adapter.dora:
            self._faults.append(f"{module}.{_MAGNITUDE} is there, but use_dora is false")
        if a is None or b is None or lost:
            return
        if shape is None or len(shape) != 2 or embedding != (self._places[f"{module}.weight"][0].ours == "embed"):
            what = "a matrix" if shape is None or len(shape) != 2 else "an embedding" if embedding else "a linear layer"
            self._faults.append(f"{module} is not {what} of them")
            return
        rank = self._adapter.rank_of(module)
        out, into = reversed(shape) if embedding else shape
        wanted = {names[0]: (a, (rank, into)), names[1]: (b, (out, rank))}
        wanted |= {} if magnitude is None else {_MAGNITUDE: (magnitude, (out,))}
        if not all([self._fits(f"{module}.{name}", "", *pair) for name, pair in wanted.items()]):
            return
        scale = self._adapter.scale_of(module)

        def low_rank(rows: tuple[int, int] | None) -> LowRank:
            return LowRank(
                a=Piece.of(f"{module}.{names[0]}", a),
                b=Piece.of(f"{module}.{names[1]}", b, rows),
                scale=scale,
                magnitude=None if magnitude is None else Piece.of(f"{module}.{_MAGNITUDE}", magnitude, rows),
                transposed=embedding,
            )

        self._add(f"{module}.weight", low_rank)
        bias = f"{module}.bias"
        if shift is not None and self._fits(f"{module}.{_SHIFT}", bias, shift, self._shapes.get(bias)):
            self._add(bias, lambda rows: Shift(Piece.of(f"{module}.{_SHIFT}", shift, rows), scale))

    def _fits(self, name: str, published: str, tensor: Stored, shape: tuple[int, ...] | None) -> bool:
        """Whether a tensor has this shape; if not, or if the model has none that is `published` so, it is a fault."""
        if shape is None:
            self._faults.append(f"{name} is for {published}, which they do not have")
        elif tensor.shape != shape:
            self._faults.append(f"{name} should be {list(shape)}; found {list(tensor.shape)}")
        return tensor.shape == shape

    def _add(self, published: str, change: Callable[[tuple[int, int] | None], Change]) -> None:
        """Takes down a change of a published tensor; `change` is given the rows of it that one of ours has."""
        for place in self._places[published]:
            self._changes.setdefault((place.ours, place.expert), []).append(change(place.rows))

    def _refuse_shared(self) -> None:
        """Of tied weights, who changes the embedding changes the head, or does not, as peft's version has it."""
        changed = {ours: any(isinstance(c, LowRank) for c in self._of(ours)) for ours in ("embed", "head")}
        lone = bool(self._of("embed")) and not self._of("head")
        if self._trunk.tied and (any(changed.values()) or lone):
            raise ModelError(
                f"the adapter {self._adapter.name} changes the embedding or the head alone, which are one matrix in "
                f"{self._base.folder.name}, and what becomes of the other depends on peft's version: {REMEDY}"
            )

    def _of(self, ours: str) -> list[Change]:
        return self._changes.get((ours, None), [])

    def _applied(self) -> Checkpoint:
        trunk, pieces = self._trunk, dict[str, tuple[AnyPiece, ...]](self._base.pieces)
        own_head: tuple[Piece, ...] = ()
        if trunk.tied and self._of("head"):
            # a head of its own, in the embedding's type
            name = next(iter(trunk.optional_tensors))
            trunk = trunk.with_head(name)
            own_head = tuple(attrs.evolve(piece, name=name) for piece in self._plain("embed"))
        for ours in {ours for ours, _ in self._changes}:
            before = own_head if ours == "head" and own_head else self._plain(ours)
            pieces[ours] = tuple(self._merged(ours, number, piece) for number, piece in enumerate(before))
        return Checkpoint(self._base.folder, trunk, pieces)

    def _plain(self, ours: str) -> tuple[Piece, ...]:
        """The pieces of a tensor that is not packed."""
        pieces = self._base.pieces[ours]
        if any(isinstance(piece, Packed) for piece in pieces):
            raise ModelError(
                f"{self._base.folder.name} is quantised, and an adapter is merged into the model that it was made for: "
                f"take that, and quantise what comes of it (mdsample convert MODEL OUT --adapter {self._adapter.name} "
                "--bits 4)"
            )
        return tuple(piece for piece in pieces if isinstance(piece, Piece))

    def _merged(self, ours: str, number: int, piece: Piece) -> AnyPiece:
        """One piece: all of our tensor, or the share of the expert of this number."""
        share = piece.shape != self._trunk.shapes.get(ours, piece.shape)
        changes: list[tuple[int | None, Change]] = []
        for (name, expert), of_it in self._changes.items():
            if name != ours or (share and expert not in (None, number)):
                continue
            if share and expert is None:
                raise ModelError(
                    f"the adapter {self._adapter.name} replaces the experts of a layer at once, which "
                    f"{self._base.folder.name} stores one by one ({piece.name}); {REMEDY}"
                )
            changes += [(None if share else expert, change) for change in of_it]
        return Merged(piece, tuple(changes)) if changes else piece


def _grouped(stored: Mapping[str, Stored], faults: list[str]) -> tuple[dict[str, dict[str, Stored]], dict[str, Stored]]:
    """The parts of each pair by the module's name, and the tensors that stand in the place of the model's."""
    pairs, whole = dict[str, dict[str, Stored]](), dict[str, Stored]()
    for name, tensor in stored.items():
        if found := re.fullmatch(r"(.+?)\.(lora_.+)", name):
            part = found[2].replace(f"{_MAGNITUDE}.weight", _MAGNITUDE)
            pairs.setdefault(found[1], {})[part] = tensor
            continue
        plain = _COPY.sub("", name)
        if plain in whole:
            faults.append(f"{plain} is there twice")
        whole[plain] = tensor
    return pairs, whole


def _places(layout: Mapping[str, Source], trunk: Trunk) -> dict[str, list[_Place]]:
    """Where every published tensor of a layout goes, a head beside tied weights included."""
    places: dict[str, list[_Place]] = {name: [_Place("head")] for name in trunk.optional_tensors}
    for ours, source in layout.items():
        match source:
            case Single(name):
                places.setdefault(name, []).append(_Place(ours))
            case Slice(name, start, stop):
                places.setdefault(name, []).append(_Place(ours, rows=(start, stop)))
            case Stack(names):
                for expert, name in enumerate(names):
                    places.setdefault(name, []).append(_Place(ours, expert))
    return places

"""The models for people: embedded ones, and the families that can be read."""

from __future__ import annotations

import re
import sys

import attrs

from mdsample.models.card import read_card
from mdsample.models.families import FAMILIES, published
from mdsample.models.find import embedded_folder, embedded_models


@attrs.frozen
class ModelEntry:
    """A model that comes with the package."""

    name: str
    #: one sentence for people
    description: str
    #: text of the template that suits it
    template: str
    #: size on disk
    bytes: int


def models_menu() -> tuple[ModelEntry, ...]:
    """Every embedded model."""
    entries: list[ModelEntry] = []
    for name in embedded_models():
        folder = embedded_folder(name)
        card = read_card(folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        entries.append(ModelEntry(name, card.description, card.template, size))
    return tuple(entries)


@attrs.frozen
class PublishedEntry:
    """A well-known checkpoint on the hub."""

    #: hub id
    name: str
    parameters: int
    #: weights that one token meets
    active_parameters: int
    #: bytes of memory that its weights alone take in bfloat16
    memory: int

    def quantised(self, bits: int) -> int:
        """Bytes that they take packed in groups of 64, each with a scale and a bias of 16 bits."""
        return self.parameters * (2 * bits + 1) // 16


@attrs.frozen
class FamilyEntry:
    """Models that are read by one file of `families/`."""

    #: `model_type` in their config.json; llada_moe stands for a llada with experts
    types: tuple[str, ...]
    #: which models these are
    about: str
    #: some of them, with the sizes that follow from their published configurations
    published: tuple[PublishedEntry, ...]


def families_menu() -> tuple[FamilyEntry, ...]:
    """Every family; what it is stands in the first line of its file."""
    known, types = published(), dict[str, list[str]]()
    for kind, read in FAMILIES.items():
        types.setdefault(read.__module__, []).append(kind)
    entries: list[FamilyEntry] = []
    for module, kinds in types.items():
        first = (sys.modules[module].__doc__ or "").partition("\n")[0]
        members = tuple(
            PublishedEntry(name, trunk.parameters, trunk.active_parameters, 2 * trunk.parameters)
            for name, trunk in known.items()
            if trunk.family in kinds
        )
        entries.append(FamilyEntry(tuple(kinds), re.sub(r" \([^()]*`model_type`[^()]*\)", "", first), members))
    return tuple(entries)

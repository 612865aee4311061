"""The menu for people: what parts and presets there are, and what a policy does, from the parts' own docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator

import attrs

from mdsample.catalog import PARTS
from mdsample.families import FAMILIES, published
from mdsample.loading import embedded_folder, embedded_models, read_card
from mdsample.part import MANY, SEATS, Part, Seat
from mdsample.policy import Policy
from mdsample.presets import PRESETS
from mdsample.written import part_text, value_text

#: what each seat decides
QUESTIONS: dict[Seat, str] = {
    "window": "which blanks are on offer now?",
    "order": "in which order are they best filled?",
    "selection": "how many of the ranking go now?",
    "draw": "how is a token drawn?",
    "stop": "which rows are done early? (any number of parts)",
    "constraint": "which tokens may stand where? (any number of parts)",
    "revise": "which committed positions become blank again?",
    "guide": "how are the logits changed?",
}


@attrs.frozen
class Setting:
    """One setting of a part or preset."""

    name: str
    #: as in policy text; empty if it must be given
    default: str
    #: whether Python wants its name
    named: bool


@attrs.frozen
class Entry:
    """A line of the menu."""

    name: str
    settings: tuple[Setting, ...]
    #: first sentence of the docstring
    summary: str
    #: the whole docstring, unwrapped
    about: str
    #: arXiv ids that the docstring names
    sources: tuple[str, ...]
    #: of a preset: the parts that it stands for
    parts: str = ""

    @property
    def signature(self) -> str:
        """As one would write it: `below-entropy(0.2, k=none)`; settings that must be given as `…`."""
        said = [f"{s.name}={s.default or '…'}" if s.named else s.default or "…" for s in self.settings]
        return f"{self.name}({', '.join(said)})" if said else self.name


@attrs.frozen
class Seated:
    """One part of a completed policy."""

    seat: Seat
    part: str
    #: whether the policy says it, rather than the defaults
    given: bool
    #: name, value, and the default's text (equal to the value if it was left as it is)
    settings: tuple[tuple[str, str, str], ...]
    about: str
    sources: tuple[str, ...]


def parts_menu() -> dict[Seat, tuple[Entry, ...]]:
    """Every part, by seat."""
    return {seat: tuple(_entry(p.name, p) for p in PARTS.values() if p.seat == seat) for seat in SEATS}


def presets_menu() -> tuple[Entry, ...]:
    """Every preset, with the parts it stands for."""
    return tuple(_entry(name, make, str(make())) for name, make in PRESETS.items())


def explain(policy: Policy) -> Iterator[Seated]:
    """Each part of the completed policy, in the order of the seats."""
    given = set(policy.parts())
    for part in Policy(*attrs.astuple(policy.completed(), recurse=False)).parts():
        entry = _entry(part.name, type(part))
        settings = tuple((s.name, value_text(getattr(part, s.name)), s.default) for s in entry.settings)
        yield Seated(part.seat, part_text(part), part in given, settings, entry.about, entry.sources)


def empty_seats(policy: Policy) -> list[Seat]:
    """The seats for any number of parts that hold none."""
    taken = {part.seat for part in policy.parts()}
    return [seat for seat in SEATS if seat in MANY and seat not in taken]


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


def _entry(name: str, maker: Callable[..., Part | Policy], parts: str = "") -> Entry:
    about = "\n\n".join(" ".join(block.split()) for block in (inspect.getdoc(maker) or "").split("\n\n"))
    settings = tuple(
        Setting(s.name, "" if s.default is s.empty else value_text(s.default), s.kind is s.KEYWORD_ONLY)
        for s in inspect.signature(maker).parameters.values()
    )
    summary = re.split(r"(?<=\.)\s", about, maxsplit=1)[0]
    sources = tuple(dict.fromkeys(re.findall(r"\b\d{4}\.\d{5}\b", about)))
    return Entry(name, settings, summary, about, sources, parts)

"""The menu for people: what parts and presets there are, and what a policy does, from the parts' own docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

import attrs

from mdsample.constraints.query import Facts
from mdsample.core.tokens import Tokenizer
from mdsample.policy.base import MANY, SEATS, Part, Policy, Seat, part_text
from mdsample.policy.catalog import PARTS
from mdsample.policy.complete import complete
from mdsample.policy.installed import Maker, installed, loaded
from mdsample.policy.language import Language
from mdsample.policy.presets import PRESETS
from mdsample.policy.settings import domains
from mdsample.policy.writing import value_text

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
    #: what it accepts, as in `a number, above 0`; empty where nothing is known, as of presets
    domain: str


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
        settings = [f"{s.name}={s.default or '…'}" if s.named else s.default or "…" for s in self.settings]
        return f"{self.name}({', '.join(settings)})" if settings else self.name


@attrs.frozen
class ExplainedPart:
    """One part of a completed policy."""

    seat: Seat
    part: str
    #: whether the policy says it, rather than the defaults
    given: bool
    #: name, value, and the default's text (equal to the value if it was left as it is)
    settings: tuple[tuple[str, str, str], ...]
    about: str
    sources: tuple[str, ...]
    #: what each setting accepts, as in `Setting.domain`
    domains: tuple[str, ...]
    #: of a slot's language, if a tokenizer was given
    language: Facts | None = None

    @property
    def told(self) -> str:
        """What it does, and its language in a sentence."""
        return self.about if self.language is None else f"{self.about}\n\n{_sentence(self.language)}"


def _sentence(facts: Facts) -> str:
    """A language, for people."""
    if facts.longest is None:
        lengths = f"the shortest has {facts.shortest:,}, and there is no longest"
    else:
        lengths = f"the shortest has {facts.shortest:,}, the longest {facts.longest:,}"
    return f"Over this model's tokens: {facts.states:,} states, {facts.classes:,} classes. Tokens of a text: {lengths}."


def parts_menu() -> dict[Seat, tuple[Entry, ...]]:
    """Every part, by seat; those of installed packages last."""
    parts = [*PARTS.values(), *(maker for _, maker in _others() if isinstance(maker, type) and issubclass(maker, Part))]
    return {seat: tuple(_entry(part.name, part) for part in parts if part.seat == seat) for seat in SEATS}


def presets_menu() -> tuple[Entry, ...]:
    """Every preset, with the parts it stands for."""
    presets = [*PRESETS.items(), *((name, maker) for name, maker in _others() if not isinstance(maker, type))]
    return tuple(_entry(name, make, str(make())) for name, make in presets)


def _others() -> list[tuple[str, Maker]]:
    """What installed packages add."""
    return [(name, loaded(entry)) for name, entry in installed().items()]


def explain(policy: Policy, tokenizer: Tokenizer | None = None) -> Iterator[ExplainedPart]:
    """Each part of the completed policy, in the order of the seats.

    With a `tokenizer`, which a model has, also how large the languages of slots are over its tokens and how long their
    texts; `ValueError` for a language that it cannot spell.
    """
    given = {part.seat for part in policy.parts}
    for part in complete(policy).parts:
        entry = _entry(part.name, type(part))
        settings = tuple((s.name, value_text(getattr(part, s.name)), s.default) for s in entry.settings)
        accepted = tuple(s.domain for s in entry.settings)
        about = "\n\n".join(filter(None, (entry.about, part.promise)))
        language = part.facts(tokenizer) if tokenizer is not None and isinstance(part, Language) else None
        facts = part.seat, part_text(part), part.seat in given, settings, about, entry.sources, accepted
        yield ExplainedPart(*facts, language)


def empty_seats(policy: Policy) -> list[Seat]:
    """The seats for any number of parts that hold none."""
    taken = {part.seat for part in policy.parts}
    return [seat for seat in SEATS if seat in MANY and seat not in taken]


def _entry(name: str, maker: Callable[..., Part | Policy], parts: str = "") -> Entry:
    about = "\n\n".join(" ".join(block.split()) for block in (inspect.getdoc(maker) or "").split("\n\n"))
    accepted = domains(maker) if isinstance(maker, type) else {}
    settings = tuple(
        Setting(
            s.name,
            "" if s.default is s.empty else value_text(s.default),
            s.kind is s.KEYWORD_ONLY,
            known.words + (", or none" if known.optional else "") if (known := accepted.get(s.name)) else "",
        )
        for s in inspect.signature(maker).parameters.values()
    )
    summary = re.split(r"(?<=\.)\s", about, maxsplit=1)[0]
    sources = tuple(dict.fromkeys(re.findall(r"\b\d{4}\.\d{5}\b", about)))
    return Entry(name, settings, summary, about, sources, parts)

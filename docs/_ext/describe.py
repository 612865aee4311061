"""What the reference says of a name or a command, as Markdown: signature, docstring, settings, fields, methods."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import attrs
import typer.main
from mdsample_cli.main import app
from sphinx.ext.autodoc.mock import mock
from sphinx.pycode import ModuleAnalyzer

from mdsample.policy.base import Part
from mdsample.policy.catalog import PARTS
from mdsample.policy.menu import parts_menu
from mdsample.policy.settings import domains

COMMANDS: Any = typer.main.get_command(app)


def public(module: str, name: str) -> Iterator[str]:
    """A name of a module, whatever it is."""
    with mock([] if find_spec("torch") else ["torch"]):  # signatures and docstrings need no tensors
        value = getattr(import_module(module), name)
    yield from ("", f"```{{py:currentmodule}} {module}", "```", "")
    if isinstance(value, ModuleType):
        yield from block("py:attribute", name, [*doc(value)])
    elif inspect.isclass(value):
        kind = "py:exception" if issubclass(value, Exception) else "py:class"
        yield from block(kind, name + signature(value), [*of_class(value)])
    elif callable(value):
        yield from block("py:function", name + signature(value), [*doc(value)])
    else:
        yield from block("py:data", name, [*comment(import_module(module), value, name)])


def block(directive: str, argument: str, inside: list[str], *options: str) -> Iterator[str]:
    """A directive around lines; its fence is longer than any within."""
    longest = max((len(line) - len(line.lstrip("`")) for line in inside), default=0)
    fence = "`" * max(3, longest + 1)
    yield from ("", f"{fence}{{{directive}}} {argument}", *options, "", *inside, fence, "")


def doc(value: object) -> Iterator[str]:
    """A docstring; arXiv ids are links, parameters a list."""
    named = inspect.signature(value).parameters if inspect.isfunction(value) else {}
    for paragraph in (inspect.getdoc(value) or "").split("\n\n"):
        yield from map(linked, itemised(paragraph, list(named)))
        yield ""


def itemised(paragraph: str, names: list[str]) -> list[str]:
    """A paragraph that goes through parameters, "`seed`: …. `ids`: …", as a list of them; another one as it is."""
    starts = "|".join(map(re.escape, names))
    pieces = re.split(rf"(?:^|(?<=[.;)]) )(?=`(?:{starts})`(?: and `\w+`)?: )", " ".join(paragraph.split()))
    if not names or len(pieces) < 3:  # one does not make a list
        return paragraph.splitlines()
    *items, last = pieces[1:]
    last, raises, errors = last.partition(" Raises ")
    items = [f"- {piece}" for piece in (*items, last)]
    return [*([pieces[0], ""] if pieces[0] else []), *items, *(["", raises.strip() + " " + errors] if errors else [])]


def linked(line: str) -> str:
    """arXiv ids as links."""
    return re.sub(r"(?<![\d.])(\d{4}\.\d{5})(?!\d)", r"[\1](https://arxiv.org/abs/\1)", line)


def signature(value: Any) -> str:
    """Parameters as they are written in the source; annotations without quotes."""
    try:
        found = inspect.signature(value)
    except ValueError:  # a class that is made in C
        return ""
    if inspect.isclass(value) and issubclass(value, Part) and inspect.isabstract(value):
        return ""
    if inspect.isclass(value) and len(found.parameters) > _MOST and [*fields(value)] == [*found.parameters]:
        return ""  # a value that is read, not made: its fields say it all
    parameters = [
        p.replace(annotation=Written(p.annotation), default=default_of(p))
        for p in found.parameters.values()
        if p.name not in ("self", "cls") and not p.name.startswith("_")
    ]
    returns = inspect.Signature.empty if inspect.isclass(value) else Written(found.return_annotation)
    return str(found.replace(parameters=parameters, return_annotation=returns))


class Written(str):
    """An annotation that is shown as it is written."""

    def __new__(cls, annotation: object) -> Any:
        """Of text only; anything else is left out."""
        return super().__new__(cls, annotation) if isinstance(annotation, str) else inspect.Parameter.empty

    def __repr__(self) -> str:
        """Without quotes."""
        return str(self)


#: stands for a default that is made for each call, or is too long to read
_CHOSEN = Written("...")
#: how many fields are also shown as arguments, and characters of a default
_MOST, _LONGEST = 5, 60


def default_of(parameter: inspect.Parameter) -> Any:
    """A parameter's default, if it can be read."""
    value = parameter.default
    return _CHOSEN if value is attrs.NOTHING or (type(value) is not type and len(repr(value)) > _LONGEST) else value


def of_class(value: type) -> Iterator[str]:
    """What is said of a class: its docstring, what stands in policy text, its settings or fields, its methods."""
    yield from doc(value)
    if issubclass(value, Part) and value in PARTS.values():
        yield from settings(value)
        return
    noted = fields(value)
    for name, (kind, lines) in noted.items():
        yield from block("py:attribute", name, lines, *([f":type: {kind}"] if kind else []))
    for name, member in vars(value).items():
        inner = getattr(member, "__func__", member)
        if name.startswith("_") or name in noted:
            continue
        if isinstance(member, property):
            yield from block("py:property", name, [*doc(member)])
        elif inspect.isfunction(inner):
            option = [":staticmethod:"] if isinstance(member, staticmethod) else []
            option += [":classmethod:"] if isinstance(member, classmethod) else []
            yield from block("py:method", name + signature(inner), [*doc(inner)], *option)


def fields(value: type) -> dict[str, tuple[str, list[str]]]:
    """Fields of a value: type, and the comment above each."""
    if not attrs.has(value):
        return {}
    said = ModuleAnalyzer.for_module(value.__module__).find_attr_docs()
    return {
        field.name: (text_of(field.type), [linked(line) for line in said.get((value.__name__, field.name), [])])
        for field in attrs.fields(value)
        if not field.name.startswith("_")
    }


def text_of(kind: object) -> str:
    """An annotation as it is written."""
    return kind if isinstance(kind, str) else getattr(kind, "__name__", "")


def comment(module: ModuleType, value: object, name: str) -> Iterator[str]:
    """The comment at a constant, wherever it comes from."""
    for line in inspect.getsource(module).splitlines():
        if found := re.match(rf"from (\S+) import .*\b{name}\b", line):
            yield from ModuleAnalyzer.for_module(found[1]).find_attr_docs().get(("", name), [])
            return
    yield f"`{value!r}`" if isinstance(value, str) else ""


def settings(part: type[Part]) -> Iterator[str]:
    """How a part is written in policy text, and what its settings accept."""
    entry = next(entry for seat in parts_menu().values() for entry in seat if entry.name == part.name)
    yield from ("", f"In policy text: `{entry.signature}`, seat {part.seat}.", "")
    if entry.settings:
        yield from ("| setting | accepts | default |", "| --- | --- | --- |")
        known = domains(part)
        for one in entry.settings:
            domain = known.get(one.name)
            accepts = (domain.words if domain else "") + (", or none" if domain and domain.optional else "")
            yield f"| `{one.name}` | {accepts} | {f'`{one.default}`' if one.default else 'must be given'} |"
        yield ""


def command(name: str) -> Iterator[str]:
    """A command's help, and a table of its arguments and options for each group of them."""
    chosen = COMMANDS.commands[name]
    yield from ("", *paragraphs(chosen.help or ""), "")
    groups: dict[str, list[str]] = {}
    for option in chosen.params:
        if getattr(option, "hidden", False):
            continue
        names = ", ".join(f"`{x}`" for x in (*option.opts, *option.secondary_opts) if x.startswith("-"))
        names = names or f"`{option.metavar or option.name.upper()}`"
        said = " ".join((getattr(option, "help", "") or "").split()).replace("|", "\\|").replace("<", "&lt;")
        default = option.default
        shown = default if isinstance(default, (int, float, str)) and not isinstance(default, bool) else ""
        default = f" Default: `{shown}`." if shown != "" and "efault" not in said else ""
        groups.setdefault(getattr(option, "rich_help_panel", None) or "Options", []).append(
            f"| {names} | {said}{default} |"
        )
    for title, lines in groups.items():
        yield from ("", f"**{title}**", "", "| | |", "| --- | --- |", *lines, "")


def paragraphs(text: str) -> Iterator[str]:
    """Help without Click's marks."""
    for line in inspect.cleandoc(text).replace("\b", "").splitlines():
        yield line.replace("<", "&lt;")

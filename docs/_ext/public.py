"""Directives for the reference: `public` describes names of a module, `command` one command of the command line.

    :::{public} mdsample
    load sample stream
    :::

What they write is Markdown (`describe.py`), parsed like the rest of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import describe
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class _Written(SphinxDirective):
    """A directive that writes Markdown."""

    def parsed(self, lines: Sequence[str]) -> list[nodes.Node]:
        """What the page's own parser makes of lines."""
        inside = nodes.container(classes=["public"])
        self.state.nested_parse(StringList(list(lines), self.get_source_info()[0]), self.content_offset, inside)
        return inside.children


class Public(_Written):
    """Describes names of a module from signatures, docstrings and comments at fields."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The names, in the order in which they stand."""
        module = self.arguments[0]
        names = " ".join(self.content).split()
        return self.parsed([line for name in names for line in describe.public(module, name)])


class Command(_Written):
    """Describes a command: its help, its arguments and options."""

    required_arguments = 1
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """As `--help` has it."""
        found = self.parsed([*describe.command(self.arguments[0])])
        for table in (table for node in found for table in node.findall(nodes.table)):
            table["classes"].append("options")
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("public", Public)
    app.add_directive("command", Command)
    return {"parallel_read_safe": True}

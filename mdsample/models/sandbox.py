"""Jinja that came with a checkpoint, so anybody's: rendered as transformers renders chat templates, in a sandbox.

It sees the values that it is given, and neither Python's insides nor files. Its steps and what it writes are bounded;
the memory that it takes is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import final

from jinja2 import TemplateError, TemplateSyntaxError, nodes, pass_context
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mdsample.errors import RenderError

#: rounds of loops, and calls of macros and blocks; a chat template takes a few per message
STEPS = 10_000
#: characters; instructions to a model and descriptions of tools fill a few thousand
LONGEST = 100_000

#: the filter that counts steps; with a space, so that it hides no filter that a template calls by name
_STEP = "a step"


def render(source: str, values: Mapping[str, object]) -> str:
    """The text that a template writes, with `values` as its variables; raises `RenderError`."""
    text = ""
    try:
        sandbox = _Sandbox()
        for piece in sandbox.from_string(_counted(sandbox.parse(source), sandbox)).generate(values):
            text += piece
            if len(text) > LONGEST:
                raise TemplateError(f"it writes more than {LONGEST:,} characters")
    except Exception as error:  # a template can raise anything
        raise RenderError(_line(error)) from error
    return text


@final
class _Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@final
class _Sandbox(ImmutableSandboxedEnvironment):
    """One rendering: the names and habits that chat templates count on, and how many steps are left."""

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension])
        self._left = STEPS
        self.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        self.filters |= {"tojson": _json, _STEP: self._step}

    @pass_context  # a filter that asks for the context is not computed once and for all when the template is read
    def _step(self, _: Context, value: bool) -> bool:
        self._left -= 1
        if self._left < 0:
            raise TemplateError(f"it takes more than {STEPS:,} steps")
        return value


def _counted(tree: nodes.Template, sandbox: _Sandbox) -> nodes.Template:
    """The same template, with a step taken wherever it could go round."""
    step = nodes.Filter(nodes.Const(True), _STEP, [], [], None, None)
    for block in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block))):
        block.body.insert(0, nodes.ExprStmt(step))
        if isinstance(block, nodes.For) and block.test is not None:
            block.test = nodes.And(step, block.test)
    tree.set_environment(sandbox)
    return tree


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON for a model to read; Jinja's own filter writes it for web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _line(error: Exception) -> str:
    where = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
    kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
    said = error.message if isinstance(error, TemplateError) else str(error)
    return f"{where}{kind}{' '.join((said or '').split())[:200]}"

"""What the child process of `sandbox` runs: Jinja in Jinja's own sandbox, a request a line and an answer a line.

It is run as a file, with the parent's import path as its argument, and imports nothing of this package, so that it
starts as fast as Python and Jinja do.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import final

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])

from jinja2 import TemplateError, TemplateSyntaxError, nodes, pass_context
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

#: the filter that counts steps; with a space, so that it hides no filter that a template calls by name
_STEP = "a step"


def serve(steps: int, longest: int, seconds: float, megabytes: int) -> None:
    """Answers until the parent is gone.

    `steps`, `longest` (characters), `megabytes`: what a rendering may take; `seconds` of the processor: what ends it
    and this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's
    _limit_memory(megabytes)
    for line in sys.stdin:
        _limit_time(seconds)
        request = json.loads(line)
        try:
            answer = {"text": _rendered(request["source"], request["values"], steps, longest)}
        except MemoryError:
            answer = {"error": f"it takes more than {megabytes} MB of memory"}
        except Exception as error:  # a template can raise anything
            answer = {"error": _line(error)}
        _limit_time(0)
        print(json.dumps(answer), flush=True)


def _limit_time(seconds: float) -> None:
    if sys.platform != "win32":  # there the parent's patience alone is the limit
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(megabytes: int) -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, ValueError, OSError):
        pass  # the system does not limit it; time is


def _rendered(source: str, values: Mapping[str, object], steps: int, longest: int) -> str:
    sandbox, text = _Sandbox(steps), ""
    for piece in sandbox.from_string(_counted(sandbox.parse(source), sandbox)).generate(values):
        text += piece
        if len(text) > longest:
            raise TemplateError(f"it writes more than {longest:,} characters")
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

    def __init__(self, steps: int) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension])
        self._steps = self._left = steps
        self.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        self.filters |= {"tojson": _json, _STEP: self._step}

    @pass_context  # a filter that asks for the context is not computed once and for all when the template is read
    def _step(self, _: Context, value: bool) -> bool:
        self._left -= 1
        if self._left < 0:
            raise TemplateError(f"it takes more than {self._steps:,} steps")
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
    message = error.message if isinstance(error, TemplateError) else str(error)
    return f"{where}{kind}{' '.join((message or '').split())[:200]}"


if __name__ == "__main__":
    serve(**json.loads(sys.argv[2]))

"""`mdsample chat`: a conversation on a terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError, note, tell_error
from mdsample_cli.files import read_schema, require_writable, text_or_file
from mdsample_cli.groups import Without, grouped

if TYPE_CHECKING:
    from mdsample.sampling.row import Row
    from mdsample_cli.conversation import Conversation

#: what may be typed in place of a message, and what it does
_COMMANDS = {
    "/policy [POLICY]": "show the policy, or take another one",
    "/seed [N]": "show the seed, or take another one",
    "/template [TEXT]": "show the template, or take another one, such as one with a longer slot",
    "/again": "the last reply once more, with the next seed",
    "/undo": "take back the last message and its reply",
    "/new [SYSTEM]": "begin again, with a system message if there is one",
    "/save FILE": "write the conversation to a file",
    "/help": "show this",
    "/quit": "end; so does Ctrl-D",
}


@grouped
def chat(
    policy: options.PolicyOptions,
    template: Annotated[options.TemplateOptions, Without("chat")],
    model: options.ModelOptions,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FILE", help="Keep the transcript here; run again to go on with it."),
    ] = None,
    seed: options.Seed = 0,
    schema: Annotated[str | None, Option(metavar="FILE", help="Each reply is JSON of this schema.")] = None,
    speculate: options.Speculate = None,
) -> int:
    """Talk with a model; each reply is watched as it fills.

    A line is a message; one that ends in \\ goes on in the next. Lines that begin with / are commands, such as /policy
    and /seed; /help lists them. Ctrl-C stops a reply, Ctrl-D ends the conversation. Messages can be piped in, one a
    line.

    Exit code 1 if a message that was piped in could not be answered.
    """
    if output is not None:
        require_writable(output, "--output")
        if str(output) == "-":
            raise UsageError("--output keeps a transcript, and stdout shows the conversation; give a file")
    chosen = policy.open()
    text = None if template.template is None else text_or_file(template.template)
    wanted = None if schema is None else read_schema(schema)
    guess = options.speculation_of(speculate)

    from mdsample.core.files import locked
    from mdsample_cli.conversation import POLICY, Conversation

    denoiser = model.load()
    typed = denoiser.policy or POLICY if chosen is None else policy.label(chosen)
    talk = Conversation(denoiser, text, typed, seed, wanted, guess)
    talk.begin(template.system)
    with ExitStack() as stack:
        if output is not None:
            stack.enter_context(locked(output))
            talk.resume(output)
            if template.system is not None and talk.system != template.system:
                raise UsageError(f"{output} begins with another system message; leave out --system, or --output")
        talk.check()
        return _Talk(talk, output).run()


class _Talk:
    """The conversation on this terminal."""

    def __init__(self, talk: Conversation, output: Path | None) -> None:
        from mdsample_cli.show import render

        self._talk, self._output = talk, output
        self._out = render.console()
        self._typed = sys.stdin.isatty()
        self._failed = False

    def run(self) -> int:
        """Takes messages until there are no more; the exit code."""
        if self._typed:
            _edit_lines()
            self._begin()
        while True:
            try:
                line = self._read()
            except EOFError:
                break
            except KeyboardInterrupt:
                typer.echo(err=True)
                note("/quit or Ctrl-D ends the conversation")
                continue
            if line.strip() == "/quit":
                break
            try:
                self._take(line)
            except KeyboardInterrupt:
                if not self._typed:
                    raise
                note("stopped; the message is taken back")
        return int(self._failed)

    def _read(self) -> str:
        try:
            line = self._line("> ")
            # a backslash before the end of the input is one
            while line.endswith("\\") and (more := self._more()) is not None:
                line = line[:-1] + "\n" + more
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not UTF-8 (byte {error.start} of what was read)") from error
        return line

    def _line(self, prompt: str) -> str:
        if self._typed:
            return input(prompt)
        # files of Windows begin with a mark and end lines in two characters
        return input().removeprefix("\ufeff").removesuffix("\r")

    def _more(self) -> str | None:
        try:
            return self._line("… ")
        except EOFError:
            return None

    def _take(self, line: str) -> None:
        from mdsample.errors import MdsampleError

        try:
            if line.startswith("/"):
                self._obey(*line.strip().partition(" ")[::2])
            elif line.strip():
                self._reply(line)
        except (MdsampleError, UsageError) as error:
            self._failed |= not self._typed
            tell_error(str(error))

    def _obey(self, command: str, value: str) -> None:
        talk, value = self._talk, value.strip()
        match command:
            case "/policy" | "/seed" | "/template" if not value:
                self._tell(command.removeprefix("/"))
            case "/policy":
                self._change("policy", value)
            case "/seed":
                if not value.isdecimal():
                    raise UsageError(f"/seed takes a whole number from 0 on; got {value!r}")
                self._change("seed", int(value))
            case "/template":
                self._change("template", value)
            case "/again":
                with talk.unless_it_fails():
                    if not (message := talk.take_back()):
                        raise UsageError("there is no reply yet")
                    talk.seed += 1
                    self._reply(message)
            case "/undo":
                self._say(f"taken back: {talk.take_back() or 'nothing'}")
                self._save()
            case "/new":
                with talk.unless_it_fails():
                    talk.begin(value or None)
                    talk.check()
                self._save()
            case "/save" if not value:
                raise UsageError("/save takes the name of a file, as in /save talk.json")
            case "/save":
                self._write(Path(value))
            case "/help":
                self._help()
            case _:
                raise UsageError(f"{command} is not a command here; /help lists them")

    def _change(self, name: str, value: str | int) -> None:
        """Sets a setting, unless the model cannot take it."""
        with self._talk.unless_it_fails():
            setattr(self._talk, name, value)
            self._talk.check()
        self._tell(name)

    def _tell(self, name: str) -> None:
        """What a setting is now."""
        value = getattr(self._talk, name)
        self._say(f"{name}: {self._talk.model.template if value is None else value}")

    def _reply(self, message: str) -> None:
        from rich.live import Live

        from mdsample_cli.show import render

        err, row = render.console(stderr=True), None
        with ExitStack() as stack:
            moving = None
            if err.is_terminal and self._typed:
                moving = stack.enter_context(Live(console=err, transient=True, auto_refresh=False))
            for row in self._talk.say(message):
                if moving is not None:
                    line = render.progress(row.nfe, row.filled + row.unfilled, row.unfilled)
                    shown = render.window(render.reply(row), line, err.width, err.height)
                    moving.update(shown, refresh=True)
        if row is not None:
            self._show(row)
            self._save()

    def _show(self, row: Row) -> None:
        from mdsample_cli.show import render

        render.show(self._out, render.reply(row) if self._talk.schema is None else render.plain(self._talk.text(row)))
        if self._typed:
            cost = f"{render.count(row.nfe, 'pass', 'es')}{row.guessed_text}, {row.tokens_per_forward:.1f} tokens each"
            self._say(f"{cost}; {render.speed(self._talk.replies[-1]['seconds'], row.filled)}")

    def _save(self) -> None:
        if self._output is not None:
            self._talk.save(self._output)

    def _write(self, path: Path) -> None:
        """Writes the conversation to a file that is new, or a transcript."""
        from mdsample_cli.conversation import Conversation

        Conversation(self._talk.model).resume(path)
        self._talk.save(path)
        self._say(f"saved in {path}")

    def _begin(self) -> None:
        talk = self._talk
        where = f"{talk.model.name} on {talk.model.backend}; /help lists what can be changed, Ctrl-D ends"
        alone = "" if talk.is_chat else f"\n{talk.model.name} has no chat template: it answers each message by itself"
        self._say(where + alone)
        if talk.replies:
            self._say(f"going on after {len(talk.replies)} replies")

    def _say(self, text: str) -> None:
        """Something that is not the model's."""
        from mdsample_cli.show import render

        out = render.console(stderr=True)
        render.show(out, render.plain(text, "dim"))

    def _help(self) -> None:
        from mdsample_cli.show import render

        rows = [(command, render.plain(what)) for command, what in _COMMANDS.items()]
        render.show(render.console(stderr=True), render.listing(rows))


def _edit_lines() -> None:
    """Arrows move in the line that is typed and bring back those before it, where Python knows how."""
    with suppress(ImportError):  # Windows has its own
        import_module("readline")  # `input` uses it once it is there

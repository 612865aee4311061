"""The entry point: commands, and how errors are reported.

Results go to stdout; progress and notes go to stderr. Exit codes: 0, success; 1, a run or some of its rows failed;
2, wrong usage (an option, policy, template, model or file); 130, interrupted. Modules of commands import the library
inside their functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mdsample_cli.command import Command, Group
from mdsample_cli.commands.audit import audit
from mdsample_cli.commands.bench import bench
from mdsample_cli.commands.calibrate import calibrate
from mdsample_cli.commands.chat import chat
from mdsample_cli.commands.convert import convert
from mdsample_cli.commands.finetune import finetune
from mdsample_cli.commands.judge import judge
from mdsample_cli.commands.lm_eval import lm_eval
from mdsample_cli.commands.menu import explain, policies
from mdsample_cli.commands.models import inspect, models
from mdsample_cli.commands.ray_plan import ray_plan
from mdsample_cli.commands.replay import replay
from mdsample_cli.commands.rows import rows
from mdsample_cli.commands.run import run
from mdsample_cli.commands.score import score
from mdsample_cli.commands.serve import serve
from mdsample_cli.commands.study import study
from mdsample_cli.commands.traces import traces
from mdsample_cli.errors import Interrupted, UsageError, note, tell_error

_INTERRUPTED = 130

app = typer.Typer(
    name="mdsample",
    cls=Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in (
    ("Texts", (run, chat, serve, replay, score, judge, traces)),
    ("Policies", (policies, explain, audit, bench, study, calibrate)),
    ("Models and data", (models, inspect, convert, finetune, rows)),
):
    for command in commands:
        app.command(cls=Command, rich_help_panel=panel)(command)
app.command("ray-plan", cls=Command, rich_help_panel="Models and data")(ray_plan)
#: takes what it does not know itself to another program
_FOREIGN = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("lm-eval", cls=Command, rich_help_panel="Policies", context_settings=_FOREIGN)(lm_eval)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Show the version and stop.")] = False,
) -> None:
    """Sample from masked diffusion language models.

    Start with: mdsample run

    Commands and options are completed by the shell after: mdsample --install-completion
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"mdsample {installed('mdsample')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    for name in ("stdout", "stderr"):  # a shell may have closed them
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal cannot show are escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(args=arguments, prog_name="mdsample", standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # typer has caught it
            note("interrupted")
        return int(code or 0)
    except BrokenPipeError:  # the reader, such as `head`, is done
        return _pipe_closed()
    except SystemExit as stop:  # what typer makes of a closed pipe
        if isinstance(stop.__context__, BrokenPipeError):
            return _pipe_closed()
        raise
    except Interrupted as stop:
        note(f"interrupted; {stop}" if str(stop) else "interrupted")
        return _INTERRUPTED
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", None)
        hint = f" (see '{command} --help')" if command else ""
        return _failed(error.format_message().rstrip(".") + hint, error.exit_code)
    except UsageError as error:
        return _failed(str(error), 2)
    except ValueError as error:
        from mdsample.errors import MdsampleError

        # an error of the library means wrong usage, any other a failure on the way
        return _failed(str(error), 2 if isinstance(error, MdsampleError) else 1)
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error), 1)


def _pipe_closed() -> int:
    """Nobody reads on, so nothing more is written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _failed(message: str, code: int) -> int:
    tell_error(message)
    return code

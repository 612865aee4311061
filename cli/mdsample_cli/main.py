"""The entry point: commands, and what becomes of errors.

Results go to stdout; progress and everything said about a run go to stderr. Exit codes: 0, all went well; 1, a run
failed or some of its rows did; 2, the command cannot mean anything (a wrong option, policy, template, model or file);
130, interrupted. Modules of commands import the library inside their functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mdsample_cli.commands import (
    audit,
    bench,
    calibrate,
    convert,
    finetune,
    menu,
    models,
    replay,
    rows,
    run,
    score,
    traces,
)
from mdsample_cli.options import Interrupted, Wrong

_INTERRUPTED = 130

app = typer.Typer(
    name="mdsample",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("score")(score.score)
app.command("traces")(traces.traces)
app.command("rows")(rows.rows)
app.command("finetune")(finetune.finetune)
app.command("policies")(menu.policies)
app.command("explain")(menu.explain)
app.command("models")(models.models)
app.command("inspect")(models.inspect)
app.command("convert")(convert.convert)
app.command("audit")(audit.audit)
app.command("bench")(bench.bench)
app.command("calibrate")(calibrate.calibrate)
app.command("replay")(replay.replay)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Show the version and stop.")] = False,
) -> None:
    """Sample from masked diffusion language models.

    Start with: mdsample run
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"mdsample {installed('mdsample')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character gets its number
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(args=arguments, prog_name="mdsample", standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # typer has caught it
            typer.echo("interrupted", err=True)
        return int(code or 0)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        return _pipe_closed()
    except SystemExit as stop:  # what typer makes of a closed pipe
        if isinstance(stop.__context__, BrokenPipeError):
            return _pipe_closed()
        raise
    except Interrupted as stop:
        typer.echo(f"interrupted; {stop}" if str(stop) else "interrupted", err=True)
        return _INTERRUPTED
    except typer.TyperException as fault:
        command = getattr(getattr(fault, "ctx", None), "command_path", None)
        hint = f" (see '{command} --help')" if command else ""
        return _failed(fault.format_message().rstrip(".") + hint, fault.exit_code)
    except Wrong as fault:
        return _failed(str(fault), 2)
    except ValueError as fault:
        from mdsample.errors import MdsampleError

        # an error of ours says that what was asked for is wrong, any other that it failed on the way
        return _failed(str(fault), 2 if isinstance(fault, MdsampleError) else 1)
    except OSError as fault:
        return _failed(str(fault), 1)


def _pipe_closed() -> int:
    """Nobody reads on, so that nothing more need be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _failed(message: str, code: int) -> int:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
    return code

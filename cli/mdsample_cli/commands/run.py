"""`mdsample run`: the main job."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdsample_cli import options
from mdsample_cli.options import Interrupted, Wrong

if TYPE_CHECKING:
    from mdsample.jobs.job import Job
    from mdsample.jobs.records import Output, Request
    from mdsample.sampling.state import State
    from mdsample_cli.show.screens import Screen


def run(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What goes into the template's field.", show_default=False)
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(
            "--input", "-i", metavar="FILE", help="JSON lines (fields by name, id) or one prompt a line; - is stdin."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="POLICY",
            help="As in 'med(0.2)+early-exit(0.1)'. Default: med+early-exit (med, if there is no slot 'answer').",
            show_default=False,
        ),
    ] = None,
    policy_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The policy from a TOML file.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Short for steps(N) in the policy: all blanks in N steps.", show_default=False
        ),
    ] = None,
    template: options.Layout = None,
    fill: options.Fill = None,
    fill_from: options.FillFrom = None,
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="SLOT",
            help="Take down what a slot says in every pass: its entropy, its answer.",
            show_default=False,
        ),
    ] = None,
    expect_from: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="The right answer in each row of --input; --watch asks how probable it is.",
            show_default=False,
        ),
    ] = None,
    chat: options.Chat = None,
    system: options.System = None,
    model: options.Model = options.MODEL,
    revision: options.Revision = None,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    cache: options.Cache = "none",
    compile: options.Compile = False,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Append one JSON line per row as it finishes; run again to resume.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="One JSON object a line on stdout, in the input's order.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", metavar="", help="Watch the canvas fill (one prompt, on a terminal).")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Record every commit, for `mdsample replay`.", show_default=False),
    ] = None,
) -> int:
    """Fill a template's blanks: a PROMPT, a file of prompts, or (with neither) a sample problem.

    Exit code 1 if a row of the input could not be answered; its record says why.
    """
    if prompt is not None and input is not None:
        raise Wrong("a PROMPT and --input are two inputs; give one of them")
    if live and input is not None:
        raise Wrong("--live shows one prompt; leave out --input, or --live")
    everywhere, by_row = options.open_fills(fill, fill_from, input)
    if expect_from is not None and input is None:
        raise Wrong("--expect-from takes a key of the rows of --input; leave it out")
    options.apart(input=input, output=output, trace=trace)
    if trace is not None:
        _new_trace(trace)
    from attrs import evolve

    from mdsample.backend.load import load
    from mdsample.core.template import Template
    from mdsample.jobs.job import Job
    from mdsample.jobs.records import read_requests
    from mdsample.sampling.api import default_policy
    from mdsample.sampling.sampler import Sampler

    chosen = options.open_policy(policy, policy_file, steps)
    asked = options.open_template(template, model, revision, chat, system)
    denoiser = load(model, backend, revision=revision, device=device, dtype=dtype, cache=cache, compile=compile)
    layout = Template.parse(denoiser.template) if asked is None else asked
    sampler = Sampler(default_policy(layout) if chosen is None else chosen, seed=seed)
    job = Job(denoiser, layout, sampler, revision=revision, batch_size=batch_size, watch=watch)
    layout.check_given(everywhere | by_row)
    if input is None:
        requests = [job.request(prompt, everywhere)]
    else:
        read = read_requests(options.read_bytes(input), layout, input, by_row, expected=expect_from)
        requests = [evolve(request, given={**everywhere, **request.given}) for request in read]
    try:
        screen = _go(job, requests, input is not None, output, json, live, trace)
    except KeyboardInterrupt:
        # said here, when bar and live canvas are gone from the terminal
        again = "what was finished is written; the same command goes on from here"
        raise Interrupted("" if output is None else again) from None
    if input is not None:
        typer.echo(screen.summary(), err=True)
    return 1 if screen.failed else 0


def _new_trace(path: Path) -> None:
    """Only another trace may be written over."""
    options.writable(path, "--trace")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as there:
            if not there.readline().startswith(b'{"format": '):
                raise Wrong(f"--trace: {path} is there and is no trace; give another name, or remove it")


def _go(
    job: Job, requests: Sequence[Request], many: bool, output: Path | None, json: bool, live: bool, trace: Path | None
) -> Screen:
    """The job, on its screen."""
    from mdsample.jobs.records import Output
    from mdsample_cli.show.screens import screen as screen_of

    with ExitStack() as stack:
        file = None if output is None else stack.enter_context(Output(output, job.fingerprint))
        left = requests if file is None else file.left(requests)
        if len(left) < len(requests):
            typer.echo(f"{output} already answers {len(requests) - len(left)} of {len(requests)} rows", err=True)
        quiet = file is not None and many and not json
        screen = stack.enter_context(screen_of(job, len(left), many=many, live=live, quiet=quiet))
        _answer(job, left, file, json, quiet, trace, screen)
    return screen


def _answer(
    job: Job,
    requests: Sequence[Request],
    file: Output | None,
    json: bool,
    quiet: bool,
    trace: Path | None,
    screen: Screen,
) -> None:
    """Answers, shows, writes."""
    from mdsample.jobs.job import in_order
    from mdsample.jobs.records import line

    latest: list[State] = []

    def watch(state: State) -> None:
        latest[:] = [state]
        screen.see(state)

    answers = job.answers(requests, one_shelf=trace is not None, watch=watch)
    try:
        for answer in in_order(answers) if file is None else answers:
            screen.count(answer)
            record = job.record(answer)
            if file is not None:
                file.write(record)
            if json:
                print(line(record), flush=True)
            elif not quiet:
                screen.show(answer)
    finally:
        if trace is not None and latest:
            job.trace(latest[0]).save(trace)

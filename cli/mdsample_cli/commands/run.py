"""`mdsample run`: the main job."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from typer import Option

from mdsample_cli import files, options
from mdsample_cli.crew_option import CrewOptions
from mdsample_cli.errors import Interrupted, UsageError, note
from mdsample_cli.files import read_schema, require_distinct, require_replaceable
from mdsample_cli.groups import grouped

if TYPE_CHECKING:
    from mdsample.jobs.crew import Crew
    from mdsample.jobs.job import Job
    from mdsample.jobs.records import Left, Output, Request
    from mdsample.jobs.requests import Requests
    from mdsample.sampling.state import State
    from mdsample_cli.show.screens import Screen


@grouped
def run(
    policy: options.PolicyOptions,
    template: options.TemplateOptions,
    rows: options.InputOptions,
    model: options.ModelOptions,
    several: CrewOptions,
    prompt: options.Prompt = None,
    output: options.Records = None,
    json: options.JsonRows = False,
    trace: Annotated[
        Path | None, Option(metavar="FILE", help="Record every commit, for `mdsample replay` and `judge`.")
    ] = None,
    live: Annotated[
        bool, Option("--live", metavar="", help="Watch the canvas fill (one prompt, on a terminal).")
    ] = False,
    watch: Annotated[
        str | None, Option(metavar="SLOT", help="Log a slot's entropy and best text after every forward pass.")
    ] = None,
    expect_from: Annotated[
        str | None,
        Option(metavar="KEY", help="The right answer in each row of --input; --watch logs how probable it is."),
    ] = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    speculate: options.Speculate = None,
    schema: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="JSON of this schema in the place of the template's last slot; the record has the parsed `value`.",
        ),
    ] = None,
) -> int:
    """Fill a template's blanks: a PROMPT, a file of prompts or what is piped in; with none, a sample problem.

    Exit code 1 if a row of the input could not be answered; its record says why.
    """
    if prompt is None and rows.input is None and files.is_piped(policy.policy_file, template.template):
        rows = attrs.evolve(rows, input="-")
    if prompt is not None and rows.input is not None:
        raise UsageError("a PROMPT and --input are two inputs; give one of them")
    if live and rows.input is not None:
        raise UsageError("--live shows one prompt; leave out --input, or --live")
    rows.check()
    several.check(model, live=live, trace=trace)
    several.check_output(output)
    guess = options.speculation_of(speculate)
    if expect_from is not None and rows.input is None:
        raise UsageError("--expect-from takes a key of the rows of --input; leave it out")
    require_distinct(input=rows.input, output=output, trace=trace)
    if trace is not None:
        require_replaceable(trace, "--trace", "a trace", (b'{"format": ',))
    from mdsample.jobs.job import Job
    from mdsample.models.decoding import default_text
    from mdsample.sampling.sampler import Sampler
    from mdsample.sampling.structured import Structured

    chosen = policy.open()
    wanted = None if schema is None else read_schema(schema)
    with several.crew(model) as crew:
        layout, denoiser, chats = template.open_with(model, None if crew is None else crew.model)
        structured = None if wanted is None else Structured.of(wanted, layout, denoiser.tokenizer)
        if structured is not None:
            layout = structured.template
            chats = chats.changed(lambda plain: Structured.of(wanted, plain, denoiser.tokenizer).template)
        if trace is not None and layout.ranged:
            raise UsageError(
                f"--trace records one canvas, and slot {layout.ranged[0].name!r} has one of each length; "
                "write one length"
            )
        label = default_text(denoiser.policy, layout) if chosen is None else policy.label(chosen)
        sampler = Sampler(default_text(denoiser.policy, layout) if chosen is None else chosen, seed=seed)
        if structured is not None:
            sampler = attrs.evolve(sampler, policy=structured.policy(sampler.policy))
        job = Job(
            denoiser,
            layout,
            sampler,
            revision=model.revision,
            batch_size=batch_size,
            speculate=guess,
            watch_slot=watch,
            chats=chats,
            structured=structured,
        )
        layout.check_given(rows.in_every_row | rows.from_rows)
        many = rows.read(layout, expected=expect_from)
        requests: Requests | list[Request] = [job.request(prompt, rows.in_every_row)] if many is None else many
        try:
            screen = _run(job, crew, label, requests, many is not None, output, json, live, trace)
        except KeyboardInterrupt:  # raised here, when bar and live canvas are gone from the terminal
            raise Interrupted("" if output is None else options.RESUME) from None
        if many is not None:
            note(screen.summary())
        return 1 if screen.failed else 0


def _run(
    job: Job,
    crew: Crew | None,
    label: str,
    requests: Requests | list[Request],
    many: bool,
    output: Path | None,
    json: bool,
    live: bool,
    trace: Path | None,
) -> Screen:
    """Runs the job on its screen, without the rows that `output` already has."""
    from mdsample.jobs.parquet import as_lines
    from mdsample.jobs.records import Output
    from mdsample_cli.show.screens import screen as screen_of

    with ExitStack() as stack:
        lines = None if output is None else stack.enter_context(as_lines(output))
        file = None if lines is None else stack.enter_context(Output(lines, job.fingerprint))
        left = None if file is None else file.left(requests)
        if left is not None and left.answered:
            note(f"{output} already answers {left.answered} of {left.total} rows")
        quiet = file is not None and many and not json
        total = len(requests if left is None else left)
        screen = stack.enter_context(screen_of(job, label, total, many=many, live=live, quiet=quiet))
        if crew is None:
            _answer(job, requests if left is None else left, file, json, quiet, trace, screen)
        elif left is not None and file is not None:
            _by_crew(crew, job, left, file, json, screen)
    return screen


def _by_crew(crew: Crew, job: Job, left: Left, file: Output, json: bool, screen: Screen) -> None:
    """Writes what a crew answers."""
    from mdsample.jobs.crew import records
    from mdsample_cli.show.json_line import line

    for record in records(crew, job, left):
        screen.count_record(record)
        file.write(record)
        if json:
            print(line(record), flush=True)


def _answer(
    job: Job,
    requests: Iterable[Request],
    file: Output | None,
    json: bool,
    quiet: bool,
    trace: Path | None,
    screen: Screen,
) -> None:
    """Answers, shows, writes."""
    from mdsample.jobs.job import in_request_order
    from mdsample_cli.show.json_line import line

    latest: list[State] = []

    def watch(state: State) -> None:
        latest[:] = [state]
        screen.see(state)

    answers = job.answers(requests, one_chunk=trace is not None, on_step=watch)
    try:
        for answer in in_request_order(answers) if file is None else answers:
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

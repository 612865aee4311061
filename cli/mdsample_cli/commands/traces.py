"""`mdsample traces`: reasonings sampled given the answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from typer import Option

from mdsample_cli import options
from mdsample_cli.crew_option import CrewOptions
from mdsample_cli.errors import Interrupted, UsageError, note
from mdsample_cli.files import read_source, require_distinct
from mdsample_cli.groups import grouped

if TYPE_CHECKING:
    from mdsample.jobs.crew import Crew
    from mdsample.jobs.posterior import By, Keep, Tracer
    from mdsample.jobs.requests import Requests
    from mdsample.sampling.state import State

#: it samples; greedily all traces of a problem would be the same
POLICY = "med+temperature(1)"


@grouped
def traces(
    template: options.TemplateOptions,
    model: options.ModelOptions,
    several: CrewOptions,
    input: Annotated[
        str,
        Option(
            "--input",
            "-i",
            metavar="FILE",
            help="JSON lines: the template's fields or messages, answer, id; - is stdin.",
        ),
    ],
    output: options.Records = None,
    answer_field: Annotated[str, Option(metavar="KEY", help="Key of the answer in a row.")] = "answer",
    answer_as: options.AnswerAs = "{}",
    slot: Annotated[str, Option(metavar="NAME", help="The slot that the answer goes into.")] = "answer",
    number: Annotated[int, Option("-n", min=1, metavar="N", help="Traces of each problem.")] = 8,
    keep: Annotated[str, Option(metavar="WHICH", help="all, or best:K by their score.")] = "all",
    min_score: Annotated[float | None, Option(metavar="NATS", help="Keep no trace with a score below this.")] = None,
    keep_by: Annotated[
        str, Option(metavar="mean|last", help="The score: log p(answer), averaged along a trace or at its end.")
    ] = "mean",
    policy: Annotated[str, Option("--policy", "-p", metavar="POLICY", help="How the traces are sampled.")] = POLICY,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    speculate: options.Speculate = None,
) -> int:
    """Sample reasonings given question and answer; score how much each makes of its answer.

    A record per problem: its different traces, with log p(answer | reasoning so far) before, at each quarter and after,
    and which are kept. Exit code 1 if a row of the input could not be used.
    """
    kept, guess = _keep(keep, min_score, keep_by), options.speculation_of(speculate)
    options.check_answer_as(answer_as)
    several.check(model)
    several.check_output(output)
    require_distinct(input=input, output=output)
    from mdsample.jobs.posterior import Tracer
    from mdsample.jobs.requests import Requests
    from mdsample.sampling.sampler import Sampler

    sampler = Sampler(options.policy_of(policy, "--policy", "leave the option out"), seed=seed)
    with several.crew(model) as crew:
        layout, denoiser, chats = template.open_with(model, None if crew is None else crew.model)
        tracer = Tracer(
            denoiser,
            layout,
            sampler,
            answer=slot,
            n=number,
            keep=kept,
            revision=model.revision,
            batch_size=batch_size,
            speculate=guess,
            chats=chats,
        )
        requests = Requests(read_source(input), layout, name=input, keys={slot: answer_field}, written=answer_as)
        try:
            return int(_print(tracer, requests) if output is None else _write(tracer, crew, requests, output))
        except KeyboardInterrupt:
            raise Interrupted("" if output is None else options.RESUME) from None


def _print(tracer: Tracer, requests: Requests) -> bool:
    """Whether a row failed."""
    from mdsample_cli.show.json_line import line

    failed = False
    for record in tracer.records(requests):
        failed |= "error" in record
        print(line(record), flush=True)
    return failed


def _write(tracer: Tracer, crew: Crew | None, requests: Requests, output: Path) -> bool:
    """Whether a row failed."""
    from mdsample.jobs.crew import records
    from mdsample.jobs.parquet import as_lines
    from mdsample.jobs.records import Output
    from mdsample_cli.show import render
    from mdsample_cli.show.screens import Pace, bar

    failed = False
    sampled = kept = 0
    with as_lines(output) as lines, Output(lines, tracer.fingerprint) as file, bar() as progress:
        left = file.left(requests)
        if left.answered:
            note(f"{output} already has {left.answered} of {left.total} rows")
        task, pace = progress.add_task("problems", total=len(left), pace=""), Pace()

        def see(state: State) -> None:
            pace.see(state)
            progress.update(task, pace=f"{pace}")

        for record in tracer.records(left, see) if crew is None else records(crew, tracer, left):
            failed |= "error" in record
            sampled += len(record.get("traces", ()))
            kept += sum(trace["kept"] for trace in record.get("traces", ()))
            file.write(record)
            progress.advance(task)
    problems, time = render.count(len(left), "problem"), render.seconds(pace.seconds)
    note(f"{problems}, {sampled} different traces, {kept} kept; {time}")
    return failed


def _keep(text: str, min_score: float | None, by: str) -> Keep:
    from mdsample.jobs.posterior import Keep

    match = re.fullmatch(r"all|best:([1-9]\d{0,8})", text)
    if match is None:
        raise UsageError(f"--keep takes all, or best:K as in best:1; got {text!r}")
    return Keep(None if match[1] is None else int(match[1]), min_score, cast("By", by))

"""`mdsample traces`: reasonings that are written when the answer is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mdsample_cli import options
from mdsample_cli.options import Interrupted, Wrong

if TYPE_CHECKING:
    from mdsample.jobs.posterior import By, Keep

#: sampled, or all traces of a problem were the same
POLICY = "med+temperature(1)"


def traces(
    input: Annotated[
        str,
        typer.Option(
            "--input", "-i", metavar="FILE", help="JSON lines: the template's fields, the answer, an id; - is stdin."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Append one JSON line per problem as it finishes; run again to resume. Default: stdout.",
            show_default=False,
        ),
    ] = None,
    answer_field: Annotated[str, typer.Option(metavar="KEY", help="Where the answer stands in a row.")] = "answer",
    answer_as: Annotated[
        str, typer.Option(metavar="TEXT", help="How it is written into its slot, {} being the answer, as in ' {}'.")
    ] = "{}",
    slot: Annotated[str, typer.Option(metavar="NAME", help="The slot that it goes into.")] = "answer",
    number: Annotated[int, typer.Option("-n", min=1, metavar="N", help="Traces of each problem.")] = 8,
    keep: Annotated[str, typer.Option(metavar="WHICH", help="all, or best:K by their score.")] = "all",
    min_score: Annotated[
        float | None, typer.Option(metavar="NATS", help="Keep no trace whose score is below.", show_default=False)
    ] = None,
    keep_by: Annotated[
        str,
        typer.Option(metavar="mean|last", help="The score: log p(answer), in the mean along a trace or after it."),
    ] = "mean",
    policy: Annotated[str, typer.Option("--policy", "-p", metavar="POLICY", help="How they are written.")] = POLICY,
    template: options.Layout = None,
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
) -> int:
    """Sample reasonings given question and answer; score how much each makes of its answer.

    A record per problem: its different traces, with log p(answer | reasoning so far) before, at each quarter and after,
    and which are kept. Exit code 1 if a row of the input could not be used.
    """
    which = _keep(keep, min_score, keep_by)
    if answer_as.count("{}") != 1:
        raise Wrong(f"--answer-as needs {{}} once, where the answer goes; got {answer_as!r}")
    options.apart(input=input, output=output)
    from attrs import evolve

    from mdsample.backend.load import load
    from mdsample.core.template import Template
    from mdsample.jobs.posterior import Tracer
    from mdsample.jobs.records import Output, line, read_requests
    from mdsample.policy.parsing import parse
    from mdsample.sampling.sampler import Sampler
    from mdsample_cli.show.screens import bar

    chosen = parse(policy)
    asked = options.open_template(template, model, revision, chat, system)
    denoiser = load(model, backend, revision=revision, device=device, dtype=dtype, cache=cache, compile=compile)
    layout = Template.parse(denoiser.template) if asked is None else asked
    tracer = Tracer(
        denoiser,
        layout,
        Sampler(chosen, seed=seed),
        answer=slot,
        n=number,
        keep=which,
        revision=revision,
        batch_size=batch_size,
    )
    read = read_requests(options.read_bytes(input), layout, input, {slot: answer_field})
    requests = [
        evolve(request, given={name: answer_as.replace("{}", text) for name, text in request.given.items()})
        for request in read
    ]
    failed = False
    try:
        if output is None:
            for record in tracer.records(requests):
                failed |= "error" in record
                print(line(record), flush=True)
            return int(failed)
        with Output(output, tracer.fingerprint) as file, bar() as progress:
            left = file.left(requests)
            if len(left) < len(requests):
                typer.echo(f"{output} already has {len(requests) - len(left)} of {len(requests)} rows", err=True)
            task = progress.add_task("problems", total=len(left))
            kept = drawn = 0
            for record in tracer.records(left):
                failed |= "error" in record
                drawn += len(record.get("traces", ()))
                kept += sum(trace["kept"] for trace in record.get("traces", ()))
                file.write(record)
                progress.advance(task)
        typer.echo(f"{len(left)} problems, {drawn} different traces, {kept} kept", err=True)
    except KeyboardInterrupt:
        again = "what was finished is written; the same command goes on from here"
        raise Interrupted("" if output is None else again) from None
    return int(failed)


def _keep(text: str, min_score: float | None, by: str) -> Keep:
    from mdsample.jobs.posterior import Keep

    found = re.fullmatch(r"all|best:([1-9]\d{0,8})", text)
    if found is None:
        raise Wrong(f"--keep takes all, or best:K as in best:1; got {text!r}")
    return Keep(None if found[1] is None else int(found[1]), min_score, cast("By", by))

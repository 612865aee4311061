"""`mdsample ray-plan`: how many actors fit into a cluster, and what a job will take there."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Annotated, Any

import attrs
from typer import Option

from mdsample_cli import options
from mdsample_cli.crew_option import load_here, ray_module
from mdsample_cli.errors import UsageError
from mdsample_cli.groups import grouped

#: batches of rows that the probe does
_BATCHES = 2
_GIB = 2**30


@grouped
def ray_plan(
    policy: options.PolicyOptions,
    template: options.TemplateOptions,
    rows: options.InputOptions,
    model: options.ModelOptions,
    ray: Annotated[
        str, Option(metavar="ADDRESS", help="auto (the cluster here), local (a new one) or HOST:PORT.")
    ] = "auto",
    actor_gpus: Annotated[
        float | None, Option(min=0, metavar="N", help="GPUs of an actor, as 0.5. Default: 1 if the cluster has some.")
    ] = None,
    actor_cpus: Annotated[float | None, Option(min=0.01, metavar="N", help="CPUs of an actor. Default: 1.")] = None,
    seed: options.Seed = 0,
    batch_size: options.BatchSize = 16,
    json: Annotated[bool, Option("--json", metavar="", help="Print one JSON object.")] = False,
) -> None:
    """How many actors fit, and how long `run --ray` will take, from a probe: two batches of the rows, in one actor.

    A machine takes as many actors as its GPUs, CPUs and memory allow; the probe says how much memory one needs.
    """
    if rows.input is None:
        raise UsageError("a plan is for rows; give --input")
    rows.check()
    adapter = ray_module()
    from mdsample.core.template import Template
    from mdsample.jobs.crew import Absent, Recorded
    from mdsample.jobs.job import Job
    from mdsample.models.decoding import default_text
    from mdsample.sampling.sampler import Sampler
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line

    chosen = policy.open()
    with adapter.cluster(ray) as machines:
        actor = adapter.actor_for(machines, actor_gpus, actor_cpus)
        load = partial(load_here, model)
        known = Absent(adapter.about(load, actor))
        layout = template.open(model.model, model.revision) or Template.parse(known.template)
        sampler = Sampler(default_text(known.policy, layout) if chosen is None else chosen, seed=seed)
        chats = template.chats(known.tokenizer, known.name, known.template)
        job = Job(known, layout, sampler, revision=model.revision, batch_size=batch_size, chats=chats)
        layout.check_given(rows.in_every_row | rows.from_rows)
        requests = rows.read(layout)
        assert requests is not None
        some = list(islice((request for request in requests if not request.error), _BATCHES * batch_size))
        if not some:
            raise UsageError(f"no row of {rows.input} can be used: {next(iter(requests)).error}")
        found = adapter.probe(load, actor, Recorded(job), some)
        need = attrs.evolve(actor, memory=found.memory)
        fits = [need.fitting(machine) for machine in machines]
    total = sum(fits)
    seconds = None if not total else found.opening + len(requests) * found.row / min(total, len(requests))
    plan: dict[str, Any] = {
        "machines": [
            {"gpus": machine.get("GPU", 0), "cpus": machine.get("CPU", 0), "memory": machine.get("memory"), "actors": n}
            for machine, n in zip(machines, fits, strict=True)
        ],
        "actors": total,
        "actor_gpus": actor.gpus,
        "actor_cpus": actor.cpus,
        "actor_memory": found.memory,
        "device_memory": found.device_memory,
        "opening": found.opening,
        "row": found.row,
        "probe_rows": found.rows,
        "rows": len(requests),
        "seconds": seconds,
    }
    if json:
        print(line(plan))
        return
    out = render.console(width=render.WIDEST)
    cells = [
        [f"{m['gpus']:g}", f"{m['cpus']:g}", f"{(m['memory'] or 0) / _GIB:.1f}", f"{m['actors']}"]
        for m in plan["machines"]
    ]
    render.show(out, render.table(out, ["GPUs", "CPUs", "memory, GiB", "actors"], cells))
    device = "" if found.device_memory is None else f", {found.device_memory / _GIB:.2f} GiB of its device"
    text = (
        f"\nan actor takes {actor.gpus:g} GPUs, {actor.cpus:g} CPUs, {found.memory / _GIB:.2f} GiB{device}; "
        f"it opens in {render.seconds(found.opening)} and takes {found.row:.3g} s a row ({found.rows} rows)\n"
    )
    took = "no actor fits" if seconds is None else render.seconds(seconds)
    last = f"{len(requests):,} rows on {total} actors: {took}"
    render.show(out, render.plain(text + last))

"""Reasonings written when the answer is known, on problems that the model gets wrong without it.

    python benchmarks/posterior.py [--limit 400] [--samples 4] [--policy med+temperature(1)] [--model NAME] [--json]

`tiny-gsm`'s first problems are answered once by `med`. On those that it gets wrong, `--samples` reasonings each are
sampled by `--policy`: *ordinary* ones, given the question, and *posterior* ones, given question and answer.
A reasoning is correct if every equation in it holds and every amount that the problem needs is derived, by the
generator's own arithmetic (the answer alone does not make it so, and one wrong letter undoes it). *Derived* asks only
that every amount stands behind an equals sign. *Best* is the one of a problem's posterior traces whose mean of log
p(answer | reasoning so far) is the highest. Shares with 95 % bootstrap intervals over problems. The paper (arXiv
2510.19990) found 31 to 43 % of posterior traces correct on GSM8K, by language models as judges.
"""

from __future__ import annotations

import random
import re

import numpy as np
from common import bootstrap, command_line, emit, progress
from tokenizers import Tokenizer

import mdsample
from mdsample.jobs.posterior import Tracer
from mdsample.jobs.records import Request
from mdsample.models.find import embedded_folder
from mdsample.sampling.engine import fill
from mdsample.sampling.prepared import prepare
from mdsample.tasks.catalog import TASKS
from recipes.tiny_gsm.data import HELD_OUT_SEED, draw_problem
from recipes.tiny_gsm.problems import Problem, correct_steps


def problems(limit: int) -> list[Problem]:
    """The held-out problems with their arithmetic, generated again."""
    tokenizer = Tokenizer.from_file(str(embedded_folder("tiny-gsm") / "tokenizer.json"))
    rng, found = random.Random(HELD_OUT_SEED), dict[str, Problem]()
    while len(found) < limit:
        problem, _ = draw_problem(rng, tokenizer)
        found.setdefault(problem.question, problem)
    return list(found.values())


def derived(problem: Problem, reasoning: str) -> bool:
    """Whether every amount that the problem needs stands behind an equals sign."""
    results = {int(number) for number in re.findall(r"= (\d+)", reasoning)}
    return results >= {amount.value for amount in problem.amounts if amount.op}


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--policy", default="med+temperature(1)")
    parser.add_argument("--model", default="tiny-gsm", help="tiny-gsm, or a folder with a weaker one")
    parser.add_argument("--backend", default="reference")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    task, model = TASKS["tiny-gsm"], mdsample.load(options.model, backend=options.backend)
    template = mdsample.Template.parse(task.template)
    asked = task.read()[: options.limit]
    arithmetic = dict(zip((problem.id for problem in asked), problems(len(asked)), strict=True))
    assert all(arithmetic[problem.id].question == problem.texts["prompt"] for problem in asked)
    rows = [prepare(model, template, problem.id, problem.texts) for problem in asked]
    by_id = {problem.id: problem for problem in asked}
    progress(f"{len(rows)} problems by med …")
    first = {row.id: row for row in fill(mdsample.Sampler(mdsample.parse("med")), model, template.slots, rows)}
    wrong = [name for name in by_id if not task.correct(first[name], by_id[name])]
    sampler = mdsample.Sampler(mdsample.parse(options.policy), seed=1)
    count = range(options.samples)
    progress(f"{len(wrong)} are wrong: {options.samples} ordinary and {options.samples} posterior reasonings of each …")
    again = [prepare(model, template, f"{name}#{i}", by_id[name].texts) for name in wrong for i in count]
    ordinary: dict[object, list[bool]] = {name: [] for name in wrong}
    answered: dict[object, list[bool]] = {name: [] for name in wrong}
    ordinary_derived: dict[object, list[bool]] = {name: [] for name in wrong}
    for row in fill(sampler, model, template.slots, again):
        name = int(str(row.id).partition("#")[0])
        ordinary[name].append(correct_steps(arithmetic[name], row.slots["reasoning"]))
        ordinary_derived[name].append(derived(arithmetic[name], row.slots["reasoning"]))
        answered[name].append(row.slots["answer"] == by_id[name].answer)
    requests = [Request(name, by_id[name].texts, given={"answer": f" {by_id[name].answer}"}) for name in wrong]
    posterior: dict[object, list[bool]] = {}
    best: dict[object, list[bool]] = {}
    posterior_derived: dict[object, list[bool]] = {}
    for record in Tracer(model, template, sampler, n=options.samples).records(requests):
        traces = record["traces"]
        right = [correct_steps(arithmetic[record["id"]], trace["slots"]["reasoning"]) for trace in traces]
        posterior[record["id"]] = right
        problem = arithmetic[record["id"]]
        posterior_derived[record["id"]] = [derived(problem, trace["slots"]["reasoning"]) for trace in traces]
        best[record["id"]] = [right[int(np.argmax([np.mean(trace["scores"]) for trace in traces]))]]
    if not options.json:
        print(f"{len(asked)} problems, {len(wrong)} of them wrong by med; {options.samples} of each, {options.policy}")
    for name, found in (
        ("ordinary, reasoning correct", ordinary),
        ("ordinary, all derived", ordinary_derived),
        ("ordinary, answer right", answered),
        ("posterior, reasoning correct", posterior),
        ("posterior, all derived", posterior_derived),
        ("posterior, best of a problem", best),
    ):
        share = bootstrap(np.array([np.mean(found[problem]) for problem in wrong]))
        record = {
            **{"what": name, "share": round(share.value, 4), "low": round(share.low, 4), "high": round(share.high, 4)},
            **{"problems": len(asked), "wrong": len(wrong), "samples": options.samples},
        }
        text = f"  {name:30} {100 * share.value:5.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"
        emit(record, text, options.json)


if __name__ == "__main__":
    main()

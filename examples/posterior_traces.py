"""Posterior traces: reasonings that a model writes when it knows the answer, and a finetuning on the best of them.

python examples/posterior_traces.py --out runs/traces
python examples/posterior_traces.py --out runs/llada --model GSAI-ML/LLaDA-8B-Base --problems train.jsonl -n 8

Needs `pip install 'mdsample[train]'`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mdsample_torch.training.settings import Settings
from mdsample_torch.training.trainer import finetune

import mdsample
from mdsample.jobs.examples import read_examples
from mdsample.jobs.posterior import Keep, Tracer
from mdsample.jobs.records import Request

PROBLEMS = Path(__file__).parent / "data" / "problems.jsonl"
TEMPLATE = mdsample.Template.parse("Question: {prompt}\nReasoning:{reasoning:64}\nAnswer:{answer:4}")
#: parallel, so these traces are near the posterior; with `top(1)` in the place of a threshold they are from it
POLICY = "ar-med(0.8)+temperature(1)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes `traces.jsonl` and the trained model, `tuned`, into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-gsm", help="an embedded model, a folder, or a name on the hub")
    parser.add_argument("--problems", type=Path, default=PROBLEMS, help="GSM8K's own layout, JSON lines")
    parser.add_argument("--limit", type=int, help="the first so many problems only")
    parser.add_argument("-n", type=int, default=2, help="traces drawn for each problem, of which the best is kept")
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for the traces and the trained model")
    options = parser.parse_args(arguments)

    problems = [json.loads(line) for line in options.problems.read_text(encoding="utf-8").splitlines()][: options.limit]
    requests = [
        Request(number, {"prompt": problem["question"]}, given={"answer": " " + problem["answer"].split("#### ")[-1]})
        for number, problem in enumerate(problems)
    ]
    model = mdsample.load(options.model)
    tracer = Tracer(model, TEMPLATE, mdsample.Sampler(POLICY), n=options.n, keep=Keep(best=1))
    options.out.mkdir(parents=True, exist_ok=True)
    traces = options.out / "traces.jsonl"
    traces.write_text("".join(json.dumps(record) + "\n" for record in tracer.records(requests)), encoding="utf-8")

    # traces are texts without the space before them
    written = {slot: " {}" for slot in TEMPLATE.slots}
    found = read_examples(traces.read_bytes(), TEMPLATE, model.tokenizer, traces.name, written)
    report = finetune(options.model, found.examples, options.out / "tuned", Settings(epochs=options.epochs))
    print(f"{report.folder}: {report.steps} steps on {len(found.examples)} traces, loss {report.last_loss:.2f} nats")


if __name__ == "__main__":
    main()

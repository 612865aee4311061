"""On paper: posterior traces of a million problems on 8 and on 256 GPUs, and what stands in their way first.

    OPENBLAS_NUM_THREADS=1 python benchmarks/scale.py [--problems 1000000] [--traces 8] [--records 5000] [--json]

Predicted is the time of the GPUs, by the cost model (`mdsample.models.cost`): LLaDA-8B's published sizes in bfloat16 on
an H200 at the rates stated, prompts of 120 tokens, 240 blanks in blocks of 32, 16 texts in a pass, and five passes of
each text that score its answer. Measured here is what one process does that leads such a job: taking a finished record
out of its pickle, writing it, and reading it again to resume, with records of the size that such traces have.
"""

from __future__ import annotations

import pickle
import random
import tempfile
import time
from pathlib import Path

import attrs
import common
from llada import published

from mdsample.jobs.records import Output, Request
from mdsample.models.cost import Machine, Pace, Texts, pass_cost, text_seconds

#: tokens of a prompt, and of a reasoning; characters of a token, as English has them
PROMPT, BLANKS, CHARACTERS = 120, 240, 4
STAGES = 5
#: one token a pass, which is the true posterior; and as many passes as `med` takes on tiny-gsm, a share of the blanks
PACES = (Pace("one by one", BLANKS, BLANKS), Pace("med, 0.4 passes a token", 0.4 * BLANKS, 0.4 * BLANKS))
#: batches of a task on a cluster, as in `mdsample_integrations.ray`
TASK = 8
BATCH = 16
FACTS = {"model": "m", "cache": "none", "policy": "p" * 120, "template": "t" * 120, "seed": 0, "n": 8, "keep": {}}


def record_of(number: int, traces: int) -> dict[str, object]:
    """A record of traces, of the size that these have."""
    dice = random.Random(number)
    text = ["".join(dice.choices("abcdefghij ", k=CHARACTERS * BLANKS)) for _ in range(traces)]
    prompt = "q" * (CHARACTERS * PROMPT)
    made = [
        {
            "sample": n,
            "text": t,
            "slots": {"reasoning": t, "answer": "7"},
            "nfe": 240,
            "rounds": 240,
            "scores": [0.1] * 5,
        }
        for n, t in enumerate(text)
    ]
    return {"id": number, "prompt": prompt, "given": {"answer": "7"}, "traces": made, **FACTS}


@attrs.frozen
class Led:
    """What the leading process does, records a second, and bytes of a record in its file."""

    written: float
    resumed: float
    bytes: float


def measured(records: int, traces: int) -> Led:
    """By writing so many and reading them again."""
    packed = [pickle.dumps(record_of(number, traces)) for number in range(records)]
    requests = [Request(n, {"prompt": "q" * (CHARACTERS * PROMPT)}, given={"answer": "7"}) for n in range(records)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.jsonl")
        began = time.process_time()
        with Output(path, FACTS) as file:
            for one in packed:
                file.write(pickle.loads(one))
        written = records / (time.process_time() - began)
        began = time.process_time()
        with Output(path, FACTS) as file:
            assert not len(file.left(requests))
        return Led(written, records / (time.process_time() - began), path.stat().st_size / records)


def main() -> None:
    """Command line."""
    parser = common.command_line(__doc__)
    parser.add_argument("--problems", type=int, default=1_000_000)
    parser.add_argument("--traces", type=int, default=8)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--bandwidth", type=float, default=4800.0, help="GB/s; default: an H200's")
    parser.add_argument("--tflops", type=float, default=989.0, help="default: an H200's peak, published")
    parser.add_argument("--share", type=float, default=0.4, help="of these rates that is reached")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    trunk = published(False)
    machine = Machine(1e9 * options.bandwidth * options.share, 1e12 * options.tflops * options.share)
    led = measured(options.records, options.traces)
    texts = Texts(batch=BATCH, length=PROMPT + BLANKS, blanks=BLANKS, window=32)
    scoring = STAGES * pass_cost(trunk, BATCH, texts.length, texts.length, 16, 2).seconds(machine) / BATCH
    problems_of_task = TASK * -(-BATCH // options.traces)
    if not options.json:
        columns = (
            "policy",
            "s a text",
            "GPU hours",
            "GPUs",
            "hours",
            "problems/s",
            "the leader's share of a core",
            "lost with it, GPU hours",
        )
        common.print_head(columns, text=1)
    for pace in PACES:
        text = text_seconds(trunk, machine, texts, pace, "none", 2) / texts.batch + scoring
        hours = options.problems * options.traces * text / 3600
        for gpus in (8, 256):
            rate = gpus / (options.traces * text)
            record = {"policy": pace.name, "text_seconds": text, "gpu_hours": hours, "gpus": gpus, "rate": rate}
            # a leader that dies takes half of every task with it, on average
            lost = gpus * problems_of_task * options.traces * text / 2 / 3600
            record |= {"hours": hours / gpus, "leader": rate / led.written, "lost": lost}
            cells = [pace.name, f"{text:.3f}", f"{hours:,.0f}", gpus, f"{hours / gpus:,.0f}", f"{rate:.2f}"]
            common.emit(record, [*cells, f"{100 * rate / led.written:.2f} %", f"{lost:.1f}"], options.json)
    file, resume = led.bytes * options.problems / 1e9, options.problems / led.resumed / 60
    said = (
        f"\nleading process, measured here: {led.written:,.0f} records/s written, {led.resumed:,.0f} records/s read to "
        f"resume; a record has {led.bytes / 1e3:.1f} kB, so the file of {options.problems:,} has {file:.0f} GB and "
        f"takes {resume:.1f} min of a core to resume"
    )
    common.emit({**attrs.asdict(led), "file_gb": file, "resume_minutes": resume}, said, options.json)


if __name__ == "__main__":
    main()

"""Tasks people quote, as tasks of lm-evaluation-harness: problems, contexts and judgement are those of `bench`.

    mdsample lm-eval --tasks mdsample_mbpp --metadata '{"problems": "mbpp.jsonl"}' --confirm_run_unsafe_code

`--metadata` takes `problems` (the published file, or one for each task by name), `shots`, `shots_from` and `layout`, a
template whose one slot stands at its end. How much is generated is the harness's to say (`--gen_kwargs`).
"""

# pyright: basic
# the harness has no types of its own
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdsample.core.template import Field, Slot, Template
from mdsample.errors import RecordError, TemplateError
from mdsample.tasks.catalog import Task
from mdsample.tasks.named import PUBLISHED, Source

#: where there are no shots, and the task's own template would be filled rather than gone on with
_NO_SHOTS = {
    "gsm8k": "Question: {prompt}\nAnswer:{solution:256}",
    "math500": "Problem:\n{prompt}\n\nSolution:{solution:512}",
}


def rows(
    name: str,
    problems: str | Mapping[str, str] | None = None,
    shots: int | None = None,
    shots_from: str | None = None,
    layout: str | None = None,
    **others: object,
) -> dict[str, Any]:
    """The documents of a task: `name`, `context` and `answer`. The harness adds `others`, the model's arguments."""
    from datasets import Dataset

    path = problems.get(name) if isinstance(problems, Mapping) else problems
    if path is None:
        raise RecordError(f'mdsample_{name} needs the published file: --metadata \'{{"problems": "FILE"}}\'')
    task = _task(name, path, shots, shots_from)
    template = Template.parse(layout or (_NO_SHOTS.get(name, task.template) if shots is None else task.template))
    found = [
        {"name": name, "context": _context(template, problem.texts), "answer": problem.answer}
        for problem in task.read()
    ]
    return {"test": Dataset.from_list(found)}


def results(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Whether a text solves its problem."""
    task = _task(doc["name"], "-")
    text = results[0]
    answer = task.extracts["marked"](text) if task.extracts else task.answer(_Written(text))  # type: ignore[arg-type]
    return {"exact_match": float(task.same(answer, doc["answer"]))}


def _task(name: str, problems: str, shots: int | None = None, shots_from: str | None = None) -> Task:
    """The harness asks for itself whether code may be run (`unsafe_code`)."""
    source = Source(Path(problems), shots, None if shots_from is None else Path(shots_from), run_code=True)
    return PUBLISHED[name](source)


def _context(template: Template, texts: Mapping[str, str]) -> str:
    *before, last = template.pieces
    if not isinstance(last, Slot) or any(isinstance(piece, Slot) for piece in before):
        raise TemplateError("the harness goes on after a context, so a layout has one slot, at its end")
    return "".join(texts[piece.name] if isinstance(piece, Field) else piece.text for piece in before)  # type: ignore[union-attr]


class _Written:
    """What tasks read of a row, of a text alone."""

    def __init__(self, text: str) -> None:
        self.text, self.slots, self.blank, self.slot = text, {"solution": text}, [False], [0]

    def shown(self) -> list[tuple[int, str]]:
        """All of it in one piece."""
        return [(0, self.text)]

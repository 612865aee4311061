"""HumanEval and MBPP: programs, judged by running them, which must be allowed. The files are the user's.

A problem's right answer is what its program is put together from and tested by, as JSON: the text before and after
what the model writes, and the tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mdsample.errors import RecordError
from mdsample.sampling.result import Row
from mdsample.tasks.catalog import Problem, Task
from mdsample.tasks.child import passes, require_runner
from mdsample.tasks.files import Where, read_once, rows_of, text_in, text_of
from mdsample.tasks.shots import named

#: where a completion ends: what follows the function is no part of it; lm-evaluation-harness, humaneval.yaml
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```")
#: of MBPP's prompt, and of the test split (Austin et al., arXiv 2108.07732, and the data set's README)
_EXAMPLES, _TEST = (2, 3, 4), range(11, 511)


def humaneval(path: Path, run_code: bool = False) -> Task:
    """HumanEval: JSON lines `task_id`, `prompt`, `test`, `entry_point` (gzip or not); the model goes on after `prompt`.

    A completion ends before what follows a function (`STOPS`). Raises `RecordError` unless `run_code`.
    """
    _require_allowed("humaneval", run_code)

    def problems() -> Iterator[Problem]:
        for where, row in rows_of(path):
            prompt = text_in(row, "prompt", where)
            yield Problem(_name(row, where), {"prompt": prompt}, _expected(prompt, "", _checked(row, where)))

    about = "164 functions to be completed (HumanEval)."
    return Task("humaneval", about, "{prompt}{solution:512}", read_once(problems), _completion, (), _right)


def humaneval_infilling(path: Path, run_code: bool = False) -> Task:
    """HumanEval with a hole (`HumanEval-SingleLineInfilling.jsonl` and the like): also `suffix`, which stands fixed."""
    _require_allowed("humaneval-infilling", run_code)

    def problems() -> Iterator[Problem]:
        for where, row in rows_of(path):
            before, after = text_in(row, "prompt", where), text_in(row, "suffix", where)
            texts = {"prompt": before, "suffix": after}
            yield Problem(_name(row, where), texts, _expected(before, after, _checked(row, where)))

    about = "Functions of HumanEval with a hole to be filled."
    template = "{prompt}{solution:64}{suffix}"
    return Task("humaneval-infilling", about, template, read_once(problems), _filled, ("solution",), _right)


def mbpp(path: Path, run_code: bool = False, shots: int = 3) -> Task:
    """MBPP: `mbpp.jsonl`, or the array in `sanitized-mbpp.json`; problems 11 to 510, as the paper tests them.

    The prompt is the paper's: the first `shots` of problems 2, 3 and 4 with their code between `[BEGIN]` and `[DONE]`.
    A fixed `[DONE]` behind the slot, as in `-t '{prompt}{solution:256}\\n[DONE]'`, makes it a hole to be filled. Raises
    `RecordError` unless `run_code`.
    """
    _require_allowed("mbpp", run_code)
    if not 0 <= shots <= len(_EXAMPLES):
        raise RecordError(f"mbpp's prompt has at most {len(_EXAMPLES)} shots; got {shots}")

    def problems() -> Iterator[Problem]:
        rows = {row.get("task_id"): (where, row) for where, row in _array_or_lines(path)}
        if missing := [number for number in _EXAMPLES[:shots] if number not in rows]:
            raise RecordError(f"{path} lacks problem {missing[0]}, an example of the prompt; give the whole file")
        before = "".join(f"{_asked(*rows[n])}{_code(*rows[n])}\n[DONE]\n\n" for n in _EXAMPLES[:shots])
        tested = [number for number in rows if number in _TEST]
        if not tested:
            raise RecordError(f"{path} holds no problem of the test split, 11 to 510")
        for number in tested:
            where, row = rows[number]
            tests = _lines(row, "test_list", where)
            setup = [str(row.get("test_setup_code") or ""), *_lines(row, "test_imports", where, needed=False)]
            right = _expected("", "", "\n".join([*filter(None, setup), *tests]))
            yield Problem(cast("int", number), {"prompt": before + _asked(where, row)}, right)

    about = "500 short Python programs (MBPP)."
    return Task(named("mbpp", shots), about, "{prompt}{solution:256}", read_once(problems), _until_done, (), _right)


def written(row: Row) -> str:
    """All that the model wrote, white space included."""
    return "".join(piece for place, piece in row.shown() if not row.blank[place])


def _completion(row: Row) -> str:
    text = written(row)
    return text[: min((at for stop in STOPS if (at := text.find(stop)) >= 0), default=len(text))]


def _filled(row: Row) -> str:
    """What stands in the hole; `written` would go on with the fixed text behind it."""
    return "".join(piece for place, piece in row.shown() if row.slot[place] >= 0 and not row.blank[place])


def _until_done(row: Row) -> str:
    return written(row).partition("[DONE]")[0]


def _right(answer: str, expected: str) -> bool:
    """Whether the program passes its tests."""
    parts = json.loads(expected)
    return passes(f"{parts['before']}{answer}{parts['after']}\n{parts['test']}\n")


def _expected(before: str, after: str, test: str) -> str:
    return json.dumps({"before": before, "after": after, "test": test})


def _checked(row: Mapping[str, Any], where: Where) -> str:
    return f"{text_in(row, 'test', where)}\ncheck({text_in(row, 'entry_point', where)})"


def _name(row: Mapping[str, Any], where: Where) -> Any:
    return row.get("task_id", where.number)


def _asked(where: Where, row: Mapping[str, Any]) -> str:
    """The paper's prompt of one problem, up to where the code begins."""
    text = text_in(row, "text" if "text" in row else "prompt", where)
    tests = "\n".join(_lines(row, "test_list", where))
    task = f"You are an expert Python programmer, and here is your task: {text}"
    return f"{task} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"


def _code(where: Where, row: Mapping[str, Any]) -> str:
    return text_in(row, "code", where)


def _lines(row: Mapping[str, Any], name: str, where: Where, needed: bool = True) -> Sequence[str]:
    found = row.get(name, None if needed else [])
    lines = cast("list[object]", found) if isinstance(found, list) else [None]
    if not all(isinstance(line, str) for line in lines):
        raise RecordError(f"{where}: {name!r} must be a list of texts; it is {found!r:.40}")
    return cast("list[str]", lines)


def _array_or_lines(path: Path) -> Iterator[tuple[Where, Mapping[str, Any]]]:
    """The rows of a JSON array, or of JSON lines."""
    text = text_of(path)
    if not text.lstrip().startswith("["):
        yield from rows_of(path)
        return
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise RecordError(f"{path} is not JSON: {fault}") from fault
    for number, row in enumerate(rows):
        where = Where(path, number + 1, number, "entry")
        if not isinstance(row, dict):
            raise RecordError(f"{where}: a row must be a JSON object; got {row!r:.40}")
        yield where, cast("dict[str, Any]", row)


def _require_allowed(name: str, run_code: bool) -> None:
    if not run_code:
        raise RecordError(
            f"{name} is judged by running what the model writes, in a child process with limits; allow it: run_code, "
            "--run-code"
        )
    require_runner()

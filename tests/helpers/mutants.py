"""How many small changes of core, policy and sampling the tests notice: `make mutate`.

mutmut (settings in pyproject.toml) makes the changes and tells which tests run which function.
All of them take a day; this tries a random sample and keeps every result in a file: it can be stopped and resumed.
A file has its share of the sample by the number of its changes, and the order is random: any beginning is a sample too.
A change meets the tests that run its function, the fastest first, as many as take `--seconds` of processor time.
One that they do not notice counts as not noticed, and so does one that no test runs.
"""

import argparse
import gc
import hashlib
import importlib
import json
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from functools import _lru_cache_wrapper
from math import ceil
from pathlib import Path
from time import process_time
from typing import Any

from mutmut.__main__ import create_mutants
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths, walk_mutatable_files
from mutmut.utils.format_utils import mangled_name_from_mutant_name, orig_function_and_class_names_from_key
from mutmut.workers.isolation import MutantRunner, get_mutant_runner

UNNOTICED = ("survived", "no tests")
# an endless loop may fill memory before its time is over
MEMORY = 8 << 30


def prepare() -> tuple[MutantRunner, set[str]]:
    """The tree with all changes in `mutants/`, and the functions that run when it is imported."""
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    # processes that tests start must see the changes too
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path("mutants").absolute()), os.environ.get("PYTHONPATH", "")])
    create_mutants(1)
    set_mutant_under_test("stats")
    for path in walk_mutatable_files():
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    return get_mutant_runner(1), set(state()._stats)


def learn(runner: MutantRunner, path: Path) -> None:
    """Which tests run which function, and how long they take: file by file, and again where a file has changed.

    mutmut would ask all tests at once, and give up at the first that fails.
    """
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    set_mutant_under_test("stats")
    # of processes that tests start nothing is learnt: they do not know mutmut's settings
    del os.environ["MUTANT_UNDER_TEST"]
    took, runs = state().duration_by_test, state().tests_by_mangled_function_name
    chosen = [Path(folder) for folder in config().pytest_add_cli_args_test_selection]
    files = [file for folder in chosen for file in (sorted(folder.rglob("test_*.py")) or [folder])]
    for file in files:
        mark = hashlib.sha256(file.read_bytes()).hexdigest()
        if known.get(str(file), {}).get("mark") != mark:
            took.clear(), runs.clear()
            began = process_time()
            if (code := runner.collect_stats([str(file)])) not in (0, 5):
                raise SystemExit(f"{file} fails without a change")
            # mutmut times tests by the clock; in processor time other programs do not matter
            scale = (process_time() - began) / max(sum(took.values()), 1e-9) if code == 0 else 0.0
            times = {test: seconds * scale for test, seconds in took.items()}
            known[str(file)] = {"mark": mark, "took": times, "runs": {name: [*tests] for name, tests in runs.items()}}
            path.write_text(json.dumps(known), encoding="utf-8")
    took.clear(), runs.clear()
    for file in map(str, files):
        took.update(known[file]["took"])
        for name, tests in known[file]["runs"].items():
            runs[name].update(tests)


def changes_of_files() -> dict[str, Path]:
    """Name of each change -> its file."""
    found: dict[str, Path] = {}
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        found |= dict.fromkeys(data.exit_code_by_key, path)
    return found


def sample(names: dict[str, Path], count: int, seed: int) -> list[str]:
    """Every k-th of the changes, shuffled within their files; then in random order."""
    rng = random.Random(seed)
    ordered = sorted(names, key=lambda name: (names[name], rng.random()))
    step, start = len(ordered) / count, rng.random()
    chosen = [ordered[int((start + index) * step)] for index in range(count)]
    rng.shuffle(chosen)
    return chosen


def outcome(runner: MutantRunner, name: str, seconds: float, anew: bool) -> str:
    """What the tests say of a change; `anew` in a process that imports everything with the change in place."""
    took, tests, total = state().duration_by_test, [], 0.0
    # what runs at the import is not told apart by test
    there = took if anew else state().tests_by_mangled_function_name.get(mangled_name_from_mutant_name(name), ())
    for test in sorted(there, key=took.__getitem__):
        if tests and total + took[test] > seconds:
            break
        tests.append(test)
        total += took[test]
    # twice what the tests take, and what pytest needs to start
    limit = ceil(2 * total) + 20
    if anew and tests:
        command = [sys.executable, "-m", "pytest", "-x", "--rootdir=.", *tests, *config().pytest_add_cli_args]
        done = subprocess.run(
            ["bash", "-c", f'ulimit -t {limit}; exec "$@"', "-", *command],
            cwd="mutants",
            env=os.environ | {"MUTANT_UNDER_TEST": name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # a change that breaks the import is noticed
        return status_by_exit_code[done.returncode if done.returncode in (0, -24, -9) else 1]
    parent = os.getpid()
    try:
        runner.submit(name, tests, limit, limit)
    except BaseException:
        if os.getpid() != parent:
            os._exit(3)
        raise
    return status_by_exit_code[runner.wait_for_result().exit_code]


def place(name: str, path: Path) -> tuple[int, str]:
    """The line that is changed, and the change."""
    change = [row for row in get_diff_for_mutant(name, path=path).split("\n")[2:] if row[:1] in ("-", "+")]
    function, cls = orig_function_and_class_names_from_key(name)
    source = [row.strip() for row in path.read_text(encoding="utf-8").split("\n")]
    line = 0
    for start in (*([f"class {cls}"] if cls else []), f"def {function}(", change[0][1:].strip()):
        line = next(number for number in range(line, len(source)) if source[number].startswith(start))
    return line + 1, "\n".join(change)


def tell(rows: list[dict[str, Any]]) -> None:
    # the package is imported with its changes in place, so not before they are
    from mdsample.evaluation.intervals import share

    for row in rows:
        if row["outcome"] in UNNOTICED:
            print(f"{row['file']}:{row['line']} {row['outcome']} {row['name']}\n{row['change']}\n")
    for folder in ("", *sorted({os.path.dirname(row["file"]) for row in rows})):
        inside = [row for row in rows if row["file"].startswith(folder)]
        found = share(sum(row["outcome"] not in UNNOTICED for row in inside), len(inside))
        told = f"{found.value:.1%} of {len(inside)} noticed (95 %: {found.low:.1%} to {found.high:.1%})"
        print(f"{folder or 'all'}: {told}")
    print(dict(Counter(row["outcome"] for row in rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="try these changes, by mutmut's names, instead of a sample")
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=15, help="processor time of a change's tests")
    parser.add_argument(
        "--out", type=Path, default=Path("mutants/sample.jsonl"), help="results; resumed if it is there"
    )
    args = parser.parse_args()
    runner, imported = prepare()
    learn(runner, Path("mutants/learnt.json"))
    # the tests are imported once, before processes fork from this one; what was computed without a change is forgotten
    runner.list_all_tests()
    for cached in [value for value in gc.get_objects() if type(value) is _lru_cache_wrapper]:
        cached.cache_clear()
    files = changes_of_files()
    rows = [json.loads(line) for line in args.out.read_text(encoding="utf-8").splitlines()] if args.out.exists() else []
    done = {row["name"] for row in rows}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for name in args.names or sample(files, args.sample, args.seed):
        if name not in done:
            line, change = place(name, files[name])
            row = {"name": name, "file": str(files[name]), "line": line, "change": change}
            row["outcome"] = outcome(runner, name, args.seconds, mangled_name_from_mutant_name(name) in imported)
            rows.append(row)
            with args.out.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
    tell(rows)


if __name__ == "__main__":
    main()

"""A thousand hostile inputs to the command and the library: `python tests/helpers/hostile.py`.

`tests/hostile/corpus.jsonl` has one case a line: a command with the files that it finds, or a call of the library, and
how it ends. Every case runs in a folder of its own, in a process forked from this one, which has imported everything;
so time and memory are the case's. Whatever the input is, it is answered, or refused with one sentence; nothing hangs,
nothing grows, and no file is touched but those that the case names. `--only N` shows one case, `--write` makes the
cases anew (`hostile_cases.py`) and writes down how they end, to be read before it is committed.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, cast

os.environ.update(HF_HUB_OFFLINE="1", COLUMNS="80", NO_COLOR="1", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import attrs
import mdsample_cli.main
import numpy as np
from checkpoints import write_checkpoint
from damage import DAMAGE
from hostile_cases import Case, Json, make_cases
from mdsample_cli.show.json_line import is_shown

import mdsample
from mdsample.errors import MdsampleError
from mdsample.testing.toys import ScriptedDenoiser, Symbols

CORPUS = Path(__file__).parents[1] / "hostile" / "corpus.jsonl"
#: what a case may take: seconds by the clock, and bytes beyond what a case that does nothing has
SECONDS, GROWTH = 2.0, 200 << 20
#: characters of a command's error; people read it
LONGEST = 2000
#: of the sentence, in the corpus
_KEPT = 200
_MODEL_TEXT = "template = 'Q {prompt} R{reasoning:8} A{answer:4}'\n"


@attrs.frozen
class Ended:
    """How a case ended here."""

    end: str
    code: int
    says: str
    seconds: float
    growth: int
    #: what is wrong with that, whatever the corpus says
    fault: str
    err: str = ""


# files


def content(said: Json) -> bytes:
    """Text, or `{"repeat": [text, n]}`, `{"join": [...]}`, `{"hex": "..."}`."""
    match said:
        case str():
            return said.encode("utf-8", "surrogateescape" if re.search("[\udc80-\udcff]", said) else "surrogatepass")
        case {"repeat": [inner, int(times)]}:
            return content(inner) * times
        case {"join": [*parts]}:
            return b"".join(map(content, parts))
        case {"hex": str(digits)}:
            return bytes.fromhex(digits)
        case _:
            raise ValueError(f"this is no content: {said!r}")


def text(said: Json) -> str:
    """As `content`, for an argument."""
    match said:
        case str():
            return said
        case {"repeat": [inner, int(times)]}:
            return text(inner) * times
        case {"join": [*parts]}:
            return "".join(map(text, parts))
        case _:
            raise ValueError(f"this is no text: {said!r}")


def edited(good: bytes, edits: Sequence[Json]) -> bytes:
    """JSON lines with some faults, in this order."""
    lines = good.splitlines(keepends=True)
    for edit in edits:
        match edit:
            case {"line": int(number), "set": fields}:
                lines[number] = json.dumps(json.loads(lines[number]) | fields).encode() + b"\n"
            case {"line": int(number), "drop": str(key)}:
                row = json.loads(lines[number])
                del row[key]
                lines[number] = json.dumps(row).encode() + b"\n"
            case {"line": int(number), "to": whole}:
                lines[number] = content(whole)
            case {"cut": int(end)}:
                lines = b"".join(lines)[:end].splitlines(keepends=True)
            case {"twice": int(number)}:
                lines.insert(number, lines[number])
            case {"remove": int(number)}:
                del lines[number]
            case {"swap": [int(one), int(other)]}:
                lines[one], lines[other] = lines[other], lines[one]
            case {"flip": [int(place), int(value)]}:
                whole = bytearray(b"".join(lines))
                whole[place % len(whole)] = value
                lines = bytes(whole).splitlines(keepends=True)
            case _:
                raise ValueError(f"this is no edit: {edit!r}")
    return b"".join(lines)


class Bench:
    """What all cases find: a tiny model, a trace, records and answers that are in order."""

    def __init__(self, folder: Path) -> None:
        """Makes them in `folder`."""
        self.folder = folder
        self.model = write_checkpoint(
            folder / "tiny", config={"max_sequence_length": 640, "d_model": 32, "mlp_hidden_size": 64}
        )
        (self.model / "mdsample.toml").write_text(_MODEL_TEXT)
        self.good: dict[str, bytes] = {}
        rows = b'{"id": "a", "prompt": "the cat"}\n{"id": "b", "prompt": "the mat", "answer": "7"}\n'
        (folder / "rows.jsonl").write_bytes(rows)
        on = ["-m", str(self.model), "--backend", "reference"]
        made = {
            "trace": ["run", *on, "-i", str(folder / "rows.jsonl"), "-p", "steps(3)", "--trace"],
            "records": ["run", *on, "-i", str(folder / "rows.jsonl"), "-p", "steps(3)", "-o"],
            "answers": ["bench", *on, "--limit", "2", "-p", "steps(2)", "-o"],
        }
        for name, argv in made.items():
            if mdsample_cli.main.main([*argv, str(folder / name)]):
                raise SystemExit(f"cannot make {name}")
            self.good[name] = (folder / name).read_bytes()

    def place(self, case: Case) -> Path:
        """A folder with what the case finds."""
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=self.folder))
        (folder / "tiny").symlink_to(self.model)
        (folder / "rows.jsonl").write_bytes((self.folder / "rows.jsonl").read_bytes())
        (folder / "good.trace").write_bytes(self.good["trace"])
        (folder / "precious.txt").write_text("precious\n")
        for name, said in case.files.items():
            self.put(folder / name, said)
        return folder

    def put(self, path: Path, said: Json) -> None:
        """A file of this content, or a link, a pipe, a folder, a model folder, a damaged trace …"""
        path.parent.mkdir(parents=True, exist_ok=True)
        match said:
            case {"link": str(target)}:
                path.unlink(missing_ok=True)
                path.symlink_to(target)
            case {"fifo": inner}:
                os.mkfifo(path)
                _feed(path, content(inner))
            case {"folder": int(mode)}:
                path.mkdir(mode=mode)
            case {"model": changes}:
                self._model(path, changes)
            case {"trace": _} | {"records": _} | {"answers": _}:
                [(name, edits)] = cast("dict[str, list[Json]]", said).items()
                path.write_bytes(edited(self.good[name], edits))
            case _:
                path.write_bytes(content(said))

    def _model(self, path: Path, changes: Mapping[str, Json]) -> None:
        if name := changes.get("damage"):
            write_checkpoint(path)
            DAMAGE[name][0](path)
            return
        shutil.copytree(self.model, path)
        for file, fields in changes.get("set", {}).items():
            said: Json = json.loads((path / file).read_bytes()) if (path / file).exists() else {}
            (path / file).write_text(json.dumps(said | fields))
        for file, said in changes.get("put", {}).items():
            with suppress(FileNotFoundError):
                (path / file).unlink()
            self.put(path / file, said)
        for file in changes.get("remove", ()):
            (path / file).unlink()


def _feed(path: Path, data: bytes) -> None:
    """A process that writes into a pipe, or waits for what is written into it; it ends with the case's group."""
    if os.fork() == 0:
        try:
            signal.alarm(10)
            with path.open("wb" if data else "rb") as pipe:
                pipe.write(data) if data else pipe.read()
        finally:
            os._exit(0)


# running


def names() -> dict[str, Any]:
    """What a call may use."""
    model = ScriptedDenoiser(Symbols(3))
    template = mdsample.Template.parse("a{prompt}{text:5}b{answer:2}")

    def canvas(**changes: Any) -> mdsample.Canvas:
        good = template.canvas(model.tokenizer, [{"prompt": "ab"}, {"prompt": "b"}])
        fields = {field.name: getattr(good, field.name) for field in attrs.fields(mdsample.Canvas)}
        return mdsample.Canvas(**fields | changes)

    return {
        **{name: getattr(mdsample, name) for name in mdsample.__all__},
        **{"np": np, "Path": Path, "mdsample": mdsample, "attrs": attrs},
        **{"model": model, "template": template, "canvas": canvas},
        "nested": _nested,
        "Odd": _Odd,
        "run": lambda: mdsample.Sampler("med").run(model, canvas()),
    }


class _Odd:
    """A value that cannot be looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def _called(expression: str) -> tuple[str, str]:
    """How a call ended, and what it said."""
    try:
        found = eval(expression, names())
        if isinstance(found, Iterator):
            list(cast("Iterator[Any]", found))
    except (MdsampleError, TypeError, ValueError) as error:
        if not isinstance(error, MdsampleError) and not _on_purpose(error):
            raise
        return type(error).__name__, str(error)
    return "answered", ""


def _on_purpose(error: BaseException) -> bool:
    """Whether it was raised by a statement of mdsample, or by Python because of how the call is written."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(frame.filename).is_relative_to(Path(mdsample.__file__).parent)
    return frame.filename == "<string>" or (ours and (frame.line or "").startswith("raise "))


def _child(case: Case, folder: Path, out: Path, err: Path, seconds: float) -> NoReturn:
    """The case; never returns."""
    code = 99
    try:
        os.setsid()
        limit = _size() + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(folder)
        if case.stdin is not None:
            given = os.open(os.devnull, os.O_RDONLY)
            if case.stdin:
                given = os.open(err, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
                os.unlink(err)
                os.write(given, content(case.stdin))
                os.lseek(given, 0, os.SEEK_SET)
            os.dup2(given, 0)
        for number, path in ((1, Path(case.stdout) if case.stdout else out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        locked = any(isinstance(said, Mapping) and {"mode", "folder"} & {*said} for said in case.files.values())
        if locked and os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, 65534, 65534, follow_symlinks=False)
            os.seteuid(65534)  # the administrator may write anywhere
        if case.stdin is None:
            os.close(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        argv = [text(one) for one in case.argv]
        if case.process:
            os.execv(sys.executable, [sys.executable, "-m", "mdsample_cli", *argv])
        if case.call:
            end, said = _called(case.call)
            sys.stderr.write(json.dumps([end, said]))
            code = 0
        else:
            code = mdsample_cli.main.main(argv)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 98
    except BaseException:
        with suppress(BaseException):
            sys.stderr.write(traceback.format_exc())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):
                stream.flush()
        os._exit(code)


def _size() -> int:
    """Bytes of address space of this process."""
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 1 << 40


def _listing(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that lies in a folder, by what it is and holds."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        held = path.read_bytes() if stat.S_ISREG(about.st_mode) and about.st_size < 1 << 22 else about.st_size
        if stat.S_ISLNK(about.st_mode):
            held = os.readlink(path)
        found[str(path.relative_to(folder))] = (stat.S_IFMT(about.st_mode), None if path.is_dir() else held)
    return found


def _times(folder: Path) -> dict[str, int]:
    """When each file of a folder was changed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def run(bench: Bench, case: Case, base: int, seconds: float = SECONDS) -> Ended:
    """Runs a case in a process of its own; `base`: bytes that one has which does nothing."""
    folder = bench.place(case)
    out, err = bench.folder / "out", bench.folder / "err"
    try:
        before, model = _listing(folder), _times(bench.model)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _child(case, folder, out, err, seconds * (3 if case.process else 1))
        _, status, usage = os.wait4(pid, 0)
        took = time.monotonic() - began
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        growth = max(0, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) - base)
        after = _listing(folder)
        touched = [
            name
            for name in before.keys() | after.keys()
            if before.get(name) != after.get(name)
            and not any(name == made or name.startswith(f"{made}/") for made in case.writes)
        ]
        if _times(bench.model) != model:
            touched.append("tiny")
    finally:
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)
    said = err.read_bytes().decode("utf-8", "replace").replace(str(folder), "HERE")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        fault = f"over {seconds:g} s" if number == signal.SIGALRM else f"killed by signal {number}"
        return Ended("killed", -number, "", took, growth, fault, said)
    code = os.WEXITSTATUS(status)
    if case.call and code == 0:
        end, sentence = json.loads(said)
        fault = "" if end == "answered" else _unclear(sentence.replace(str(folder), "HERE"), math.inf)
        ended = Ended(end, code, _steady(sentence), took, growth, fault, sentence)
    else:
        ended = _ending(said, code, took, growth)
    fault = ended.fault
    if not fault and growth > GROWTH and not case.process:
        fault = f"{growth >> 20} MB more"
    if not fault and touched:
        fault = f"touched {', '.join(sorted(set(touched)))[:300]}"
    return attrs.evolve(ended, fault=fault)


def _ending(said: str, code: int, took: float, growth: int) -> Ended:
    """How a command ended."""
    errors = [line for line in said.split("\n") if line.startswith("error: ")]
    first = errors[0].removeprefix("error: ") if errors else ""
    if code == 0:
        end, fault = "answered", "exit code 0 with an error" if errors else ""
    elif errors:
        end = "refused"
        message = said[said.index("error: ") + 7 :].removesuffix("\n")
        fault = "two errors" if len(errors) > 1 else _unclear(message)
    else:
        end, fault = "rows", "" if code == 1 else "no sentence"
    if "Traceback" in said:
        fault = "traceback: " + said.rstrip().rpartition("\n")[2][:300]
    elif code not in (0, 1, 2):
        fault = fault or f"exit code {code}"
    elif strange := next((c for c in said if not (is_shown(c) or c == "\n")), ""):
        fault = fault or f"prints {strange!r}"
    return Ended(end, code, _steady(first), took, growth, fault, said)


def _unclear(message: str, most: float = LONGEST) -> str:
    """What is wrong with an error's text: one sentence, and below it only what it points at, set in."""
    first, *more = message.split("\n")
    if not first.strip() or any(not line.startswith("  ") for line in more):
        return f"not one sentence: {message[:300]!r}"
    if len(message) > most:
        return f"{len(message)} characters: {message[:80]!r} …"
    if re.search(r"Attribute\(|has no attribute|'NoneType' object", message):
        return f"Python's own words: {message[:300]!r}"
    return ""


def _steady(sentence: str) -> str:
    """What is the same on every machine."""
    first = sentence.split("\n")[0].replace(str(Path(mdsample.__file__).parent), "MDSAMPLE")
    for pattern, kept in (
        (r"((?:not|is no) (?:valid )?(?:JSON|TOML)(?: lines)?)\b.*", r"\1"),
        (r"(installed: ).*", r"\1"),
        (r"\(\w+Error: .*", ""),
        (r"0x[0-9a-f]+", "0x"),
        (r"process \d+, since [\d: -]+", "process N"),
    ):
        first = re.sub(pattern, kept, first)
    return first[:_KEPT]


# the corpus


def read_corpus() -> list[Case]:
    """All cases."""
    return [Case(**json.loads(line)) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def differs(case: Case, ended: Ended) -> str:
    """What is wrong with how a case ended; empty if nothing is."""
    if ended.fault:
        return ended.fault
    if (case.end, case.code) != (ended.end, ended.code):
        return f"was {case.end} with code {case.code}, now {ended.end} with {ended.code}: {ended.says!r}"
    return "" if case.says == ended.says else f"said {case.says!r}, now {ended.says!r}"


def warm(cases: Sequence[Case], folder: Path) -> tuple[Bench, int]:
    """Imports what the cases use; the bench, and the bytes that a process has which does nothing."""
    out, err = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        bench = Bench(folder)
        for argv in (["models"], ["policies"], ["explain", "med"], ["audit", "-p", "med"], ["--help"]):
            mdsample_cli.main.main(argv)
        if any(case.argv and case.argv[0] == "finetune" for case in cases):
            import_module("mdsample_torch.training.trainer")
    finally:
        os.dup2(out, 1)
        os.dup2(err, 2)
    gc.freeze()
    base = max(run(bench, Case(kind="", call="None"), 0).growth for _ in range(2))
    return bench, base


def main() -> int:
    """Prints what went wrong and a table; 1 if anything did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, help="of the order in which the cases run; with --write, of the cases")
    parser.add_argument("--only", type=int, help="the number of one case, which is shown with what it prints")
    parser.add_argument("--every", type=int, default=1, help="only every Nth case")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that a case may take")
    parser.add_argument("--kind", help="only kinds in which this pattern is found")
    parser.add_argument("--all", action="store_true", help="all that the tables have, whatever they say")
    parser.add_argument("--write", action="store_true", help="make the cases anew and write how they end")
    options = parser.parse_args()
    fresh = options.write or options.all
    cases = make_cases(options.seed or 0, options.all) if fresh else read_corpus()
    chosen = [n for n in range(len(cases)) if n % options.every == 0 and re.search(options.kind or "", cases[n].kind)]
    if not find_spec("peft"):  # without what trains, finetune says so and no more
        chosen = [n for n in chosen if list(cases[n].argv[:1]) != ["finetune"]]
    if options.only is not None:
        chosen = [options.only]
    elif options.seed is not None and not fresh:
        random.Random(options.seed).shuffle(chosen)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        bench, base = warm([cases[n] for n in chosen], Path(made))
        print(f"{len(chosen)} cases; warm after {time.monotonic() - began:.1f} s", file=sys.stderr)
        ended: dict[int, Ended] = {}
        wrong: dict[int, str] = {}
        for n in chosen:
            ended[n] = found = run(bench, cases[n], base, options.seconds)
            if fault := found.fault if fresh else differs(cases[n], found):
                wrong[n] = fault
                print(f"case {n}, {cases[n].kind}: {cases[n].call or cases[n].argv!r:.200}: {fault}", flush=True)
            if options.only is not None:
                print(cases[n].line()[:2000], found, sep="\n")
    if options.write and not options.all:
        lines = [
            attrs.evolve(case, end=e.end, code=e.code, says=e.says).line()
            for case, e in ((cases[n], ended[n]) for n in chosen)
        ]
        if len(lines) == len(cases):
            CORPUS.write_text("\n".join(lines) + "\n")
    show(cases, ended, wrong)
    print(f"{len(chosen)} cases in {time.monotonic() - began:.0f} s, {len(wrong)} went wrong")
    return 1 if wrong else 0


def show(cases: Sequence[Case], ended: Mapping[int, Ended], wrong: Mapping[int, str]) -> None:
    """A line a kind: how its cases ended, the longest time, the largest growth."""
    kinds: dict[str, list[int]] = {}
    for n in ended:
        kinds.setdefault(cases[n].kind, []).append(n)
    row: Callable[..., str] = "{:<28}{:>6}{:>10}{:>9}{:>6}{:>8}{:>8}{:>7}".format
    print(row("kind", "cases", "answered", "refused", "rows", "most s", "most MB", "wrong"))
    for kind, numbers in [*kinds.items(), ("all", [*ended])]:
        of = [ended[n] for n in numbers]
        ends = Counter(e.end if e.end in ("answered", "rows") else "refused" for e in of)
        print(
            row(
                *(kind, len(of), ends["answered"], ends["refused"], ends["rows"]),
                *(
                    f"{max(e.seconds for e in of):.2f}",
                    max(e.growth for e in of) >> 20,
                    sum(n in wrong for n in numbers),
                ),
            )
        )


if __name__ == "__main__":
    failed = main()
    sys.stdout.flush()
    os._exit(failed)  # without what torch says of its own end

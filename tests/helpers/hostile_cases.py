"""The cases of `tests/hostile/corpus.jsonl`, made from tables: every door with what does not belong there.

`hostile.py --write` draws a thousand of them, runs them and keeps how they end; `hostile.py --all` runs all.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import attrs
import mdsample_cli.main
import typer
from damage import DAMAGE

Json = Any

CASES = 1000

ON = ["-m", "tiny", "--backend", "reference"]
LONG: Json = {"repeat": ["a", 100_000]}
DIGITS: Json = {"repeat": ["9", 400]}
SURROGATE, RIGHT_TO_LEFT, ESCAPE, NUL = "\udcff", "\u202eevil", "\x1b[2J\x07", "a\0b"

#: what every command needs; an option of the sweep takes the place of its own
BASE: dict[str, tuple[dict[str, Json], dict[str, Json]]] = {
    "run": ({"--model": "tiny", "--backend": "reference", "--policy": "steps(2)"}, {"prompt": "hi"}),
    "chat": ({"--model": "tiny", "--backend": "reference", "--policy": "steps(2)"}, {}),
    "replay": ({"--model": "tiny"}, {"trace": "good.trace"}),
    "score": ({"--model": "tiny", "--backend": "reference", "--choices": "a,b"}, {"prompt": "hi"}),
    "judge": ({"--model": "tiny", "--backend": "reference"}, {"trace": "good.trace"}),
    "traces": ({"--model": "tiny", "--backend": "reference", "--input": "answers.jsonl", "-n": "1"}, {}),
    "policies": ({}, {}),
    "explain": ({}, {"policy": "med"}),
    "audit": ({"--policy": "med"}, {}),
    "bench": ({"--model": "tiny", "--backend": "reference", "--limit": "1", "--policy": "steps(1)"}, {}),
    "calibrate": (
        {
            **{"--model": "tiny", "--backend": "reference", "--limit": "1", "--disagreement": "0.5"},
            **{"--values": "9", "--reference": "steps(1)"},
        },
        {"policy": "med(?)"},
    ),
    "study": ({"--limit": "1", "--output": "new"}, {"file": "absent.toml"}),
    "models": ({}, {}),
    "inspect": ({"--backend": "reference"}, {"model": "tiny"}),
    "convert": ({"--group-size": "32"}, {"model": "tiny", "out": "new"}),
    # no row is fit to train on, for training takes longer than a case may
    "finetune": ({"--data": "rows.jsonl", "--out": "new"}, {"model": "tiny"}),
    "rows": ({"--limit": "1"}, {}),
    # no model is there, for a server does not end by itself
    "serve": ({"--model": "./absent", "--port": "0"}, {}),
    "lm-eval": ({}, {}),
    # without rows it is refused before it looks for a cluster
    "ray-plan": ({}, {}),
}
ANSWERS = '{"prompt": "the cat", "answer": "7"}\n'
#: what an accepted value of an option makes
WRITES = ("out.jsonl", "new", "new.trace", "new.svg", "a\nb", "\udcff", "-", "a\0b", "é", RIGHT_TO_LEFT, ESCAPE)

INTEGERS: tuple[Json, ...] = (
    *("x", "", "nan", "1e9", "1.5", "-1", "0", "-0", DIGITS, "٣", "\u202e1", " 1", "0x10", "1_0", "--", ESCAPE, "1\n2"),
)
REALS: tuple[Json, ...] = ("x", "", "nan", "inf", "-inf", "1e999", "-1", "1,5", DIGITS, "½", ESCAPE, "0x1p3", "-0.0")
TEXTS: tuple[Json, ...] = (
    *("", " ", SURROGATE, NUL, RIGHT_TO_LEFT, ESCAPE, LONG, "a\nb", "../../etc/passwd", "{}", "=", "NaN", "[bold]x[/]"),
    *("%s %n", "\u0301", "\U0001f600" * 50, "$(touch x)", "--help", "-", "@precious.txt", "@absent", "cuda:99", "None"),
)
PATHS: tuple[Json, ...] = (
    *("", ".", "..", "absent/x", "loop", "dangling/x", "/dev/full", {"repeat": ["n", 300]}, {"repeat": ["n/", 3000]}),
    *("absent\nnew", SURROGATE + "/x", "tiny", "locked/x", "precious.txt", "precious.txt/x", NUL, RIGHT_TO_LEFT + "/x"),
)
ODD_FILES: dict[str, Json] = {
    "loop": {"link": "loop"},
    "dangling": {"link": "absent/target"},
    "locked": {"folder": 0o555},
    "answers.jsonl": ANSWERS,
}


@attrs.frozen(kw_only=True)
class Case:
    """An input, and how it ends."""

    #: what is hostile in it
    kind: str
    #: the command's arguments, or
    argv: Sequence[Json] = ()
    #: an expression with the names of `mdsample`
    call: str = ""
    #: by path; see `put`
    files: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    stdin: Json = ""
    stdout: str = ""
    #: the files that it may make or change
    writes: Sequence[str] = ()
    #: a process of its own, from its first line on
    process: bool = False
    #: `answered`, `refused`, `rows` (some rows have an error), or the class of the library's error
    end: str = ""
    code: int = 0
    #: the sentence, or the beginning of a long one
    says: str = ""

    def line(self) -> str:
        """As it stands in the corpus."""
        fields, plain = attrs.asdict(self), attrs.asdict(Case(kind=""))
        kept = {"kind", "end", *(name for name, value in fields.items() if value != plain[name] and value != [])}
        return json.dumps({name: value for name, value in fields.items() if name in kept})


def make_cases(seed: int, everything: bool = False) -> list[Case]:
    """A thousand cases: one of every option, and of each table the same share; or all that there are."""
    rng = random.Random(seed)
    rounds = _options(rng)
    said = [case for group in GROUPS for case in group()]
    if everything:
        return [case for cases in (*rounds, said) for case in cases]
    drawn = sorted(rng.sample(range(len(said)), CASES - len(rounds[0])))
    return [*rounds[0], *(said[number] for number in drawn)]


# options


def _options(rng: random.Random) -> list[list[Case]]:
    """Wrong values of every option and argument, in rounds that have one of each."""
    whole: Any = typer.main.get_command(mdsample_cli.main.app)
    rounds: list[list[Case]] = []
    about: Any
    for command, about in whole.commands.items():
        options, arguments = BASE[command]
        for parameter in about.params:
            kind = str(parameter.type_descriptor.annotation)
            if "bool" in kind:
                continue
            name: str = max(parameter.opts, key=len)
            path = "Path" in kind or name in ("--input", "--policy-file", "--data", "--out", "--problems", "--wrong")
            values = PATHS if path else INTEGERS if "int" in kind else REALS if "float" in kind else TEXTS
            for number, value in enumerate(rng.sample(values, 6)):
                now = {**options, name: value} if name.startswith("-") else options
                placed = {**arguments, name: value} if not name.startswith("-") else arguments
                argv = [command, *(word for pair in now.items() for word in pair), "--", *placed.values()]
                if number == len(rounds):
                    rounds.append([])
                writes = [*WRITES, *([value] if isinstance(value, str) and path else [])]
                rounds[number].append(
                    Case(kind=f"option of {command}", argv=argv, files=_needed(argv), writes=_there(writes, argv))
                )
    return rounds


def _needed(argv: Sequence[Json]) -> dict[str, Json]:
    """The odd files that a line names."""
    said = [word for word in argv if isinstance(word, str)]
    return {name: file for name, file in ODD_FILES.items() if any(word.split("/")[0] == name for word in said)}


def _there(names: Sequence[str], argv: Sequence[Json]) -> list[str]:
    """The names that a line has; what was there before may not be touched."""
    return sorted({name for name in names if name in argv and name not in ("precious.txt", "tiny", "rows.jsonl", "")})


def refused(kind: str, *lines: Sequence[Json], files: dict[str, Json] | None = None, **more: Any) -> Iterator[Case]:
    """A case a line."""
    for argv in lines:
        yield Case(kind=kind, argv=argv, files={**(files or {}), **_needed(argv)}, **more)


def contradictions() -> Iterator[Case]:
    """Options that do not go together, that lack another, or that are there twice."""
    run, score = ["run", *ON], ["score", *ON]
    yield from refused(
        "contradiction",
        [*run, "-p", "med", "--policy-file", "x", "hi"],
        [*run, "-p", "med", "--steps", "4", "hi"],
        [*run, "-p", "med", "-p", "eb", "hi"],
        [*run, "--input", "rows.jsonl", "hi"],
        [*run, "--input", "rows.jsonl", "--live"],
        [*run, "--fill-from", "answer=answer", "hi"],
        [*run, "--fill", "answer=1", "--fill-from", "answer=answer", "-i", "rows.jsonl"],
        [*run, "--fill", "answer=1", "--fill", "answer=2", "hi"],
        [*run, "--fill", "answer", "hi"],
        [*run, "--fill", "=x", "hi"],
        [*run, "--fill", "none=x", "hi"],
        [*run, "--fill", "prompt=x", "hi"],
        [*run, "--expect-from", "answer", "hi"],
        [*run, "--system", "x", "--no-chat", "hi"],
        [*run, "--chat", "hi"],
        [*run, "--chat", "--no-chat", "hi"],
        [*run, "--input", "rows.jsonl", "--output", "rows.jsonl"],
        [*run, "--input", "rows.jsonl", "--output", "./rows.jsonl"],
        [*run, "--output", "x", "--trace", "x", "hi"],
        [*run, "--trace", "rows.jsonl", "hi"],
        [*run, "--trace", "precious.txt", "hi"],
        [*run, "--output", "precious.txt", "hi"],
        [*run, "--watch", "none", "hi"],
        [*run, "--watch", "answer", "--expect-from", "none", "-i", "rows.jsonl"],
        [*run, "--revision", "main", "hi"],
        [*run, "--cache", "dual", "hi"],
        [*run, "--compile", "hi"],
        [*run, "--device", "cuda", "hi"],
        [*run, "--dtype", "int8", "hi"],
        [*run, "one", "two"],
        [*run, "--no-such-option"],
        [*run, "--seed"],
        [*run, "-t", "{answer:2}", "hi"],
        [*run, "-t", "{a}{b}{answer:2}", "hi"],
        [*run, "-t", "{a}{answer:2}"],
        [*score, "hi"],
        [*score, "--choices", "a", "--choices-from", "c", "hi"],
        [*score, "--choices-from", "c", "hi"],
        [*score, "--choices", "a,a", "hi"],
        [*score, "--choices", "", "hi"],
        [*score, "--choices", "a", "--input", "rows.jsonl", "hi"],
        [*score, "--choices", "a", "--method", "bound", "--order", "entropy", "hi"],
        [*score, "--choices", "a", "--samples", "7", "hi"],
        [*score, "--choices", "a", "--order", "med", "hi"],
        [*score, "--choices", "a", "--order", "lookahead", "hi"],
        [*score, "--choices", "a", "--fill", "answer=x", "hi"],
        [*score, "--choices", "a", "--trace", "good.trace", "hi"],
        [*score, "--choices", "a", "--slot", "prompt", "hi"],
        [*score, "--choices", {"join": [{"repeat": ["a,", 3]}, LONG]}, "hi"],
        ["judge", *ON, "good.trace", "--by", "word"],
        ["judge", *ON, "good.trace", "--slot", "none"],
        ["judge", *ON, "good.trace", "--answer", {"repeat": ["long ", 100]}],
        ["judge", "good.trace"],
        ["replay", "good.trace", "--row", "none"],
        ["replay", "good.trace"],
        ["replay", "good.trace", "--model", "tiny-gsm"],
        ["traces", *ON],
        ["traces", *ON, "-i", "answers.jsonl", "-o", "answers.jsonl"],
        ["traces", *ON, "-i", "answers.jsonl", "--keep", "best:0"],
        ["traces", *ON, "-i", "answers.jsonl", "--keep-by", "first"],
        ["traces", *ON, "-i", "answers.jsonl", "--slot", "none"],
        ["traces", *ON, "-i", "answers.jsonl", "--answer-as", "{}{}"],
        ["traces", *ON, "-i", "answers.jsonl", "-p", "early-exit"],
        ["bench", *ON, "--limit", "1", "-p", "med", "-p", "entropy+below-entropy"],
        ["bench", *ON, "--task", "gsm8k"],
        ["bench", *ON, "--problems", "rows.jsonl"],
        ["bench", *ON, "--task", "rows.jsonl"],
        ["bench", *ON, "--task", "rows.jsonl", "-t", "{prompt}{answer:2}"],
        ["bench", *ON, "--task", "gsm8k", "--problems", "rows.jsonl", "-o", "rows.jsonl"],
        ["bench", *ON, "--output", "x.svg", "--plot", "x.svg"],
        ["bench", *ON, "--plot", "x.gif"],
        ["bench", *ON, "--limit", "100000"],
        ["calibrate", "med(?)"],
        ["calibrate", "med(?)", "--disagreement", "0.1", "--error-bound", "1"],
        ["calibrate", "med", "--disagreement", "0.1"],
        ["calibrate", "med(?)+eb(?)", "--disagreement", "0.1"],
        ["calibrate", *ON, "--limit", "1", "med(?)", "--disagreement", "0.1", "--values", "1,0.5"],
        ["calibrate", "med(?)", "--disagreement", "0.1", "--values", "nan"],
        ["calibrate", "med(?)", "--disagreement", "0.1", "--values", ""],
        ["calibrate", "top(?)", "--disagreement", "0.1", "--values", "0.5"],
        ["calibrate", "med(?)", "--disagreement", "0.1", "--reference", "zzz"],
        ["audit", "--toy", "none"],
        ["audit", "-p", "early-exit"],
        ["audit", "--plot", "x.pdf"],
        ["audit", "--plot", "locked/x.svg"],
        ["inspect"],
        ["inspect", "tiny", "tiny"],
        ["convert", "tiny"],
        ["convert", "tiny", "tiny"],
        ["convert", "tiny", "precious.txt"],
        ["convert", "tiny", "new", "--bits", "7"],
        ["convert", "tiny", "new", "--group-size", "96"],
        ["finetune", "tiny", "--data", "rows.jsonl"],
        ["finetune", "tiny", "--data", "rows.jsonl", "-o", "tiny"],
        ["finetune", "tiny", "--data", "rows.jsonl", "-o", "new", "--write-as", "answer=x"],
        ["finetune", "tiny", "--data", "rows.jsonl", "-o", "new", "--write-as", "answer={}", "--write-as", "answer={}"],
        ["finetune", "tiny-gsm", "--data", "rows.jsonl", "-o", "new"],
        ["rows", "--answer-as", "{} {}"],
        ["rows", "-t", "{q}{a:1}"],
        ["rows", "--wrong", "rows.jsonl"],
        ["rows", "--task", "math500", "--problems", "rows.jsonl"],
        ["walk"],
        ["policies", "med"],
        ["policies", "--json", "--json"],
        ["models", "tiny"],
        ["models", "--nope"],
        ["explain", "med", "eb"],
        ["--nope"],
        ["run", "--help", "--nope"],
        [LONG],
        [""],
        [SURROGATE],
        [ESCAPE],
        ["\0"],
    )


# paths

#: by command: a line with a place for a file that is read, and for one that is written
READS: dict[str, list[Json]] = {
    "run --input": ["run", *ON, "-p", "steps(1)", "--input"],
    "run --policy-file": ["run", *ON, "hi", "--policy-file"],
    "replay": ["replay", "--model", "tiny"],
    "judge": ["judge", *ON],
    "traces --input": ["traces", *ON, "-n", "1", "--input"],
    "rows --wrong": ["rows", "--wrong"],
    "bench --task": ["bench", *ON, "-p", "steps(1)", "-t", "{prompt}{answer:2}", "--task"],
    "finetune --data": ["finetune", "tiny", "-o", "new", "--data"],
    "gsm8k": ["rows", "--task", "gsm8k", "--problems"],
}
WRITTEN: dict[str, list[Json]] = {
    "run --output": ["run", *ON, "-p", "steps(1)", "hi", "--output"],
    "run --trace": ["run", *ON, "-p", "steps(1)", "hi", "--trace"],
    "bench --output": ["bench", *ON, "--limit", "1", "-p", "steps(1)", "--output"],
    "traces --output": ["traces", *ON, "-n", "1", "-p", "steps(1)", "-i", "answers.jsonl", "--output"],
    "audit --plot": ["audit", "-p", "steps(1)", "--plot"],
    "convert": ["convert", "--group-size", "32", "tiny"],
}
READ_PATHS: dict[str, Json] = {
    "absent": None,
    "absent.jsonl": None,
    "loop.jsonl": {"link": "loop.jsonl"},
    "dangling.jsonl": {"link": "nowhere"},
    "folder.jsonl": {"folder": 0o755},
    "new\nline.jsonl": "{\n",
    "empty.jsonl": "",
    "/dev/null": None,
    "pipe.jsonl": {"fifo": "no json\n"},
    "\udcff.jsonl": "[]\n",
}


def paths() -> Iterator[Case]:
    """Files that are no files, or that others own, for every option that reads or writes one."""
    for line in READS.values():
        for path, said in READ_PATHS.items():
            files = {} if said is None else {path: said}
            yield Case(kind="path to read", argv=[*line, path], files=files)
        yield Case(kind="path to read", argv=[*line, {"repeat": ["n", 300]}])
    for line in WRITTEN.values():
        ending = ".svg" if line[0] == "audit" else ""
        for path, said in (
            ("locked/x", {"folder": 0o555}),
            ("loop", {"link": "loop" + ending}),
            ("to-absent", {"link": "absent/target"}),
            ("folder", {"folder": 0o755}),
            ("precious", "precious\n"),
            ("link", {"link": "precious.txt"}),
            ("/dev/full", None),
            ("absent/x", None),
            ("precious.txt/x", None),
            ("new\nline", None),
        ):
            path = path + ending if path != "/dev/full" else path
            name = path.split("/")[0] if path.startswith("locked") else path
            files: dict[str, Json] = {} if said is None else {name: said}
            writes = ["new\nline" + ending] if path.startswith("new\n") else []
            yield Case(kind="path to write", argv=[*line, path], files={**_needed(line), **files}, writes=writes)
    yield from refused(
        "path to write",
        ["run", *ON, "-p", "steps(1)", "hi", "--output", "pipe"],
        ["run", *ON, "-p", "steps(1)", "hi", "--trace", "pipe"],
        files={"pipe": {"fifo": ""}},
    )
    run = ["run", *ON, "-p", "steps(1)", "hi"]
    for files in (
        {"out.lock": "precious\n"},
        {"out.lock": {"folder": 0o755}},
        {"out.lock": {"link": "precious.txt"}},
        {"out.lock": {"fifo": ""}},
        {"out.lock": {"link": "out.lock"}},
    ):
        yield Case(kind="path to write", argv=[*run, "-o", "out"], files=files, writes=["out"])
    for files in ({"new.part": {"folder": 0o755}}, {"new.part": "precious\n"}, {"new.lock": "precious\n"}):
        yield Case(kind="path to write", argv=["convert", "--group-size", "32", "tiny", "new"], files=files)
    for line in (run, [*run, "--json"], ["policies"], ["explain", "med"], ["models"], ["rows"], ["--help"]):
        yield Case(kind="streams", argv=line, stdout="/dev/full")
    yield Case(kind="streams", argv=[*run[:-1], "-i", "-"], stdin=None, process=True)
    yield Case(kind="streams", argv=[*run[:-1], "-i", "-"], stdin="")
    for lines in (
        "/policy med(\n",
        "/seed -1\n",
        "/again\n",
        "/save precious.txt\n",
        "/template {a}{b}\n",
        {"hex": "ff0a"},
    ):
        yield Case(kind="chat", argv=["chat", *ON, "-p", "steps(1)"], stdin=lines)
    for lost in ("{}", "[" * 999, '{"messages": [3], "replies": []}', "\x00"):
        yield Case(kind="chat", argv=["chat", *ON, "-o", "odd"], files={"odd": lost}, stdin="hi\n")
    yield Case(kind="streams", argv=[*run[:-1], "-i", "/dev/stdin"], stdin='{"prompt": "hi"}\n')
    yield Case(kind="streams", argv=run[:-1], stdin={"hex": "00ff00ff"})
    yield Case(kind="streams", argv=["run", *ON, "-p", "steps(1)", "-t", "@-", "hi"], stdin="{a")
    yield Case(kind="streams", argv=["run", *ON, "--policy-file", "-", "hi"], stdin="policy = ")
    yield Case(kind="streams", argv=["explain", "zz\udcff"], process=True)
    yield Case(kind="streams", argv=["models", "--json"], process=True, stdout="/dev/full")
    yield Case(kind="streams", argv=["run", "-p", "nope", "hi"], process=True)
    yield Case(kind="streams", argv=["replay", "\udcff\udcfe"], process=True)


# files that are read

ROW = '{"prompt": "hi"}\n'
ROWS: dict[str, Json] = {
    "byte order mark": {"join": ["\ufeff", ROW]},
    "two byte order marks": {"join": ["\ufeff\ufeff", ROW]},
    "line ends of Windows": '{"prompt": "hi"}\r\n{"prompt": "ho"}\r\n',
    "line ends of old Macs": '{"prompt": "hi"}\r{"prompt": "ho"}\r',
    "UTF-16": {"hex": '{"prompt": "hi"}\n'.encode("utf-16").hex()},
    "UTF-16 without a mark": {"hex": '{"prompt": "hi"}\n'.encode("utf-16-le").hex()},
    "Latin-1": {"hex": '{"prompt": "caf\xe9"}\n'.encode("latin-1").hex()},
    "NUL": '{"prompt": "h\0i"}\n',
    "NUL escaped": '{"prompt": "h\\u0000i"}\n',
    "zeros": {"repeat": ["\0", 1000]},
    "deep": {"join": ['{"prompt": "hi", "x": ', {"repeat": ["[", 100_000]}, "\n"]},
    "deep and whole": {"join": ['{"prompt": "hi", "x": ', {"repeat": ["[", 900]}, {"repeat": ["]", 900]}, "}\n"]},
    "huge whole number": {"join": ['{"prompt": "hi", "id": ', {"repeat": ["9", 5000]}, "}\n"]},
    "large id": {"join": ['{"prompt": "hi", "id": ', {"repeat": ["9", 400]}, "}\n"]},
    "long id": {"join": ['{"prompt": "hi", "id": "', {"repeat": ["i", 100_000]}, '"}\n']},
    "negative id": '{"prompt": "hi", "id": -1}\n',
    "true as id": '{"prompt": "hi", "id": true}\n',
    "real id": '{"prompt": "hi", "id": 1.0}\n',
    "null as id": '{"prompt": "hi", "id": null}\n',
    "half a surrogate as id": '{"prompt": "hi", "id": "\\ud800"}\n',
    "half a surrogate": '{"prompt": "\\ud800"}\n',
    "control characters": '{"prompt": "\\u001b[2J\\u0007", "id": "\\u001b[31m\\u202e"}\n',
    "id of two lines": '{"prompt": "hi", "id": "a\\nb"}\n{"prompt": 3, "id": "c\\nd"}\n',
    "ids twice": '{"prompt": "hi", "id": 1}\n{"prompt": "ho", "id": 1}\n',
    "1 and '1'": '{"prompt": "hi", "id": 1}\n{"prompt": "ho", "id": "1"}\n',
    "a key twice": '{"prompt": "hi", "prompt": "ho"}\n',
    "missing key": '{"promt": "hi"}\n',
    "no keys": "{}\n",
    "null": '{"prompt": null}\n',
    "a number": '{"prompt": 7}\n',
    "a list": '{"prompt": ["hi"]}\n',
    "an object": '{"prompt": {"a": 1}}\n',
    "bare values": '3\n"x"\nnull\n[1]\ntrue\n',
    "one array": '[{"prompt": "hi"}]\n',
    "indented": '{\n  "prompt": "hi"\n}\n',
    "a comma at the end": '{"prompt": "hi",}\n',
    "single quotes": "{'prompt': 'hi'}\n",
    "NaN": '{"prompt": "hi", "id": NaN}\n',
    "empty": "",
    "blank lines": "\n \n\t\n",
    "long line": {"join": ['{"prompt": "', {"repeat": ["word ", 200_000]}, '"}\n']},
    "long line without spaces": {"join": ['{"prompt": "', {"repeat": ["a", 1_000_000]}, '"}\n']},
    "long key": {"join": ['{"', {"repeat": ["k", 100_000]}, '": 1}\n']},
    "many keys": {"join": ["{", {"repeat": ['"k": 1, ', 20_000]}, '"z": 1}\n']},
    "many bad rows": {"repeat": ["no json\n", 2000]},
    "cut off": '{"prompt": "hi"}\n{"prompt": "h',
    "special tokens": '{"prompt": "<|mdm_mask|><|endoftext|>"}\n',
    "a page": "<!doctype html><html></html>\n",
    "a pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "compressed": {"hex": "1f8b0800000000000003" + "ab" * 50},
}


def inputs() -> Iterator[Case]:
    """Damaged JSON lines, to every command that reads them."""
    for said in ROWS.values():
        for line in (
            ["run", *ON, "-p", "steps(1)", "--json", "-i"],
            ["score", *ON, "--choices", "a,b", "--method", "marginals", "-i"],
        ):
            yield Case(kind="rows", argv=[*line, "in.jsonl"], files={"in.jsonl": said})
    rows = list(ROWS.values())
    for number, line in enumerate(
        (
            ["traces", *ON, "-n", "1", "-p", "steps(1)+temperature(1)", "-i"],
            ["bench", *ON, "-p", "steps(1)", "-t", "{prompt}{answer:2}", "--task"],
            ["finetune", "tiny", "-o", "new", "--data"],
        )
    ):
        for said in rows[number::3]:
            yield Case(kind="rows", argv=[*line, "in.jsonl"], files={"in.jsonl": said})
    for said in rows[:10]:
        yield Case(kind="prompts", argv=["run", *ON, "-p", "steps(1)", "-i", "in.txt"], files={"in.txt": said})
    run = ["run", *ON, "-p", "steps(1)", "-t", "Q {prompt} A{answer:3}", "-i", "in.jsonl"]
    for more, said in (
        (["--fill-from", "answer=a"], '{"prompt": "hi"}\n'),
        (["--fill-from", "answer=a"], '{"prompt": "hi", "a": 1.5}\n'),
        (["--fill-from", "answer=a"], '{"prompt": "hi", "a": "far too long for three"}\n'),
        (["--fill-from", "answer=a"], '{"prompt": "hi", "a": "\\ud800"}\n'),
        (["--watch", "answer", "--expect-from", "a"], '{"prompt": "hi", "a": []}\n'),
        (["--watch", "answer", "--expect-from", "a"], '{"prompt": "hi", "a": "far too long for three"}\n'),
        (["--expect-from", "a"], '{"prompt": "hi", "a": true}\n'),
    ):
        yield Case(kind="rows", argv=[*run, *more], files={"in.jsonl": said})
    score = ["score", *ON, "-i", "in.jsonl", "--choices-from", "c"]
    for value in ("null", "[]", '"a,b"', "[1]", '["a", "a"]', '["\\ud800"]', '[["a"]]', '["far too long for a slot"]'):
        yield Case(kind="rows", argv=score, files={"in.jsonl": f'{{"prompt": "hi", "c": {value}}}\n'})
    for task in ("gsm8k", "math500"):
        for said in (
            '{"question": "a", "problem": "a"}\n',
            '{"question": "a", "problem": 3, "answer": "b"}\n',
            '{"question": "a", "problem": "a", "answer": "#### x"}\n',
            '{"question": "a", "problem": "a", "answer": "#### 1e999999999"}\n',
            '{"question": "a", "problem": "a", "answer": "\\\\frac{", "id": []}\n',
            '{"question": "a", "problem": "a", "answer": "#### 3", "id": 1.5, "unique_id": null}\n',
        ):
            line = ["rows", "--task", task, "--problems", "in.jsonl"]
            yield Case(kind="problems", argv=line, files={"in.jsonl": said})


# policies and templates

POLICIES: tuple[Json, ...] = (
    *("", " ", "+", "++", "med+", "+med", "med++eb", "med med", "med,eb", "(", ")", "()", "med(", "med)", "med()"),
    *("med((", "med(0.2", "med(0.2,)", "med(,)", "med(0.2,0.3,0.4)", "med(x)", "med(nan)", "med(inf)", "med(-inf)"),
    *("med(-1)", "med(1e999)", "med(1e-999)", "med(None)", "med(true)", "med(0.2=3)", "med(entropy=)", "med(=0.2)"),
    *("med(entropy=1,entropy=2)", "med(no=1)", "med('x')", 'med("x', "med('\\x')", "med('\\ud800')", "Med", "MED"),
    *(
        "m\u0435d",
        "med\0",
        "med\n+\neb",
        "\ufeffmed",
        "med(٣)",
        "med(1_0)",
        "med(0x10)",
        "med(1e)",
        "med(.)",
        "med(--1)",
    ),
    *("top(0)", "top(-1)", "top(1.5)", "top(1e9)", "top(99999999999999999999)", "steps(0)", "steps(none)", "blocks(0)"),
    *("temperature(-1)", "temperature(nan)", "temperature(1e308)", "cfg(-1)", "cfg(nan)", "budget()", "budget(nfe=0)"),
    *("ban([])", "ban([''])", "ban(['a','a'])", "ban('a')", "ban([1])", "allow([])", "characters('')", "choices([])"),
    *("choices([''])", "choices(['a'],slot='none')", "early-exit(slot='none')", "early-exit(slot='')", "fixed()"),
    *("fixed([0,0])", "fixed([-1])", "random+random", "med+top(3)", "entropy+confidence", "below-confidence(2)"),
    *("one-by-one+one-by-one", "lookahead(0)", "error-budget(-1)", "remdm(2)", "p2(-1)", "__class__", "med.__init__"),
    *("med;import os", "${HOME}", "med(lambda:0)", "med({'a':1})", "med([[[[]]]])", RIGHT_TO_LEFT, ESCAPE, SURROGATE),
    *(LONG, {"repeat": ["med+", 3000]}, {"repeat": ["(", 20_000]}, {"join": ["med(", DIGITS, ")"]}),
    *({"join": ["ban(['", LONG, "'])"]}, {"join": ["med(", {"repeat": ["[", 20_000]}, ")"]}),
)
TEMPLATES: tuple[Json, ...] = (
    *("", " ", "no slot", "{", "}", "{}", "{a", "a}", "{a:}", "{:3}", "{a:0}", "{a:-1}", "{a:1.5}", "{a:x}", "{a:٣}"),
    *("{a:99999999}", "{a:999999999999}", "{a:1e3}", "{a b:3}", "{1a:3}", "{a.b:3}", "{a!r:3}", "{a:3}{a:3}"),
    *("{a}{a:3}", "{{a:3}}", "{{{a:3}}}", "{a:{b}}", "{é:3}", "{a\n:3}", "x\n\n{a:3", "{a:3}\0", "{a:3}" + SURROGATE),
    *("{__class__:3}", "{a:3}<|mdm_mask|>", "<|startoftext|>{a:3}", "{prompt}{answer:9999}", RIGHT_TO_LEFT + "{"),
    *(ESCAPE + "{", LONG, {"repeat": ["{", 100_000]}, {"repeat": ["{x}", 20_000]}, {"join": ["{", LONG, ":3}"]}),
    *({"join": [LONG, "{", LONG]}, "@", "@absent", "@tiny", "@loop", "@/dev/null", "@precious.txt", "@@precious.txt"),
)
TOMLS: tuple[Json, ...] = (
    *("", "x", "policy", "policy =", "policy = 3", "policy = []", "policy = ''", "policy = 'zz'", "policy = 'med('"),
    *("policy = 'med'\npolicy = 'eb'", "policy = 'med'\nother = 1", "[policy]", "[[policy]]", "[policy]\nnone = 1"),
    *("[policy]\norder = 3", "[policy]\norder = []", "[policy]\norder = {}", "[policy]\norder = 'med'"),
    *("[policy]\norder = {entropy = 1}", "[policy]\norder = {entropy = {noise = 'x'}}", "[policy]\norder = {zz = {}}"),
    *("[policy]\norder = {entropy = {}, margin = {}}", "[policy]\nselection = {top = {n = 0}}", "[policy]\nstops = {}"),
    *("[policy]\nselection = {top = {n = nan}}", "[policy]\nselection = {below-entropy = {entropy = inf}}"),
    *("[policy]\nselection = {steps = {n = 2024-01-01}}", "[policy]\nstops = [3]", "[policy]\nstops = ['med']"),
    *(
        "[policy]\nstops = [{early-exit = {slot = 3}}]",
        "[policy]\norder = 'entropy+margin'",
        "[policy]\norder = 'top(1)'",
    ),
    *(
        {"join": ["policy = ", {"repeat": ["[", 50_000]}]},
        {"join": ["policy = '", LONG, "'"]},
        {"hex": "ff"},
        "a = 1\n",
    ),
    *(
        {"join": ["policy = ", DIGITS]},
        "\ufeffpolicy = 'med'",
        {"hex": "fffe70006f00"},
        "policy = 'm\0d'",
        "\udcff = 1",
    ),
    *({"join": ["[", {"repeat": ["a.", 20_000]}, "a]"]}, "policy = 'med'\r\n\r\r\n", "[policy]\n'order\\n' = 1"),
)


def policies() -> Iterator[Case]:
    """Texts that are no policies, or policies without sense."""
    for number, said in enumerate(POLICIES):
        line = ["explain", "--", said] if number % 3 else ["run", *ON, "-p", said, "--json", "hi"]
        yield Case(kind="policy", argv=line)
    for said in POLICIES[1::9]:
        yield Case(kind="policy", argv=["audit", "-p", said])
        yield Case(kind="policy", argv=["calibrate", *ON, "--limit", "1", "--disagreement", "1", "--", said])
    for said in TEMPLATES:
        yield from refused("template", ["run", *ON, "-p", "steps(1)", "--json", "-t", said, "hi"])
    for said in TEMPLATES[::6]:
        yield from refused("template", ["rows", "--task", "rows.jsonl", "--limit", "1", "-t", said])
    for said in TOMLS:
        argv = ["run", *ON, "--json", "--policy-file", "p.toml", "hi"]
        yield Case(kind="policy file", argv=argv, files={"p.toml": said})


# what was written before

ODD = cast("tuple[Json, ...]", (None, True, -1, 1.5, 10**30, "x", "", [], {}, [[]], "\ud800", 1e308))


def recorded() -> Iterator[Case]:
    """Traces, records and answers with faults."""
    replay, judge = ["replay", "--model", "tiny", "t"], ["judge", *ON, "t"]
    header = ("format", "policy", "seed", "model", "backend", "cache", "mask_id", "versions", "slots", "events", "rows")
    edits: list[list[Json]] = [[{"line": 0, "set": {key: ODD[n % len(ODD)]}}] for n, key in enumerate(header)]
    edits += [[{"line": 0, "drop": key}] for key in header]
    edits += [[{"line": 1, "set": {key: value}}] for key in ("id", "tokens", "slot", "blank") for value in ODD[:9:2]]
    edits += [
        [{"line": 4, "set": {key: value}}]
        for n, key in enumerate(("rows", "row", "position", "token", "probability", "entropy", "ruled", "price"))
        for value in ([0, 0, 9], [-1], [10**6], [1e308], ["a"], ODD[n])
    ]
    edits += [
        [{"line": -1, "set": {key: value}}] for key in ("outcomes", "left") for value in (3, [3], [[1, 2]], [0, 0])
    ]
    edits += [[{"cut": end}] for end in (0, 1, 100, 400, 900, -1)]
    edits += [[{"twice": n}] for n in (0, 1, 4)] + [[{"remove": n}] for n in (0, 1, 4)]
    edits += [[{"swap": [0, 1]}], [{"swap": [3, 4]}], [{"line": 0, "set": {"rows": 0, "events": 0}}]]
    edits += [[{"line": 0, "set": {"events": 10**12}}], [{"line": 0, "to": {"repeat": ["[", 100_000]}}]]
    edits += [
        [{"line": 1, "to": "\n"}],
        [{"line": 1, "to": {"hex": "ff0a"}}],
        [{"flip": [300, 0]}],
        [{"flip": [900, 9]}],
    ]
    edits += [[{"line": 1, "set": {"id": "\x1b[2J"}}], [{"line": 0, "set": {"model": "a\nb"}}]]
    for number, edit in enumerate(edits):
        yield Case(kind="trace", argv=judge if number % 4 == 3 else replay, files={"t": {"trace": edit}})
    resume = ["run", *ON, "-i", "rows.jsonl", "-p", "steps(3)", "-o", "o"]
    faults: list[list[Json]] = [[{"line": 0, "set": {"id": value}}] for value in (*ODD[:4], [1], "\ud800")]
    faults += [[{"line": 0, "drop": key}] for key in ("id", "model", "policy", "template", "seed", "prompt")]
    faults += [[{"line": 0, "set": {key: 3}}] for key in ("model", "policy", "template", "seed", "cache", "prompt")]
    faults += [[{"twice": 0}], [{"cut": 0}], [{"cut": 5}], [{"cut": 300}], [{"cut": -1}], [{"swap": [0, 1]}]]
    faults += [[{"line": 0, "to": said}] for said in ("\n", "{}\n", "[]\n", "x\n", {"hex": "00ff0a"}, "\ufeff{}\n")]
    faults += [[{"line": 0, "to": {"repeat": ["[", 100_000]}}], [{"line": 1, "to": {"repeat": ["x", 100_000]}}]]
    for edit in faults:
        yield Case(kind="records", argv=resume, files={"o": {"records": edit}}, writes=["o"])
    answers: list[list[Json]] = [
        *(
            [{"line": 0, "set": {key: value}}]
            for key in ("id", "answer", "solved", "nfe")
            for value in (None, [1], 1.5)
        ),
        *([{"line": 0, "drop": key}] for key in ("id", "task", "expected", "seconds")),
        *([{"line": 0, "set": {key: 1e308}}] for key in ("error_bound", "seconds", "tv_bound")),
        *([{"line": 0, "set": {"expected": "other"}}], [{"line": 0, "to": "x\n"}], [{"cut": 50}], [{"twice": 0}]),
    ]
    again = ["bench", *ON, "--limit", "2", "-p", "steps(2)", "-o", "o"]
    for number, edit in enumerate(answers):
        argv = ["rows", "--limit", "2", "--wrong", "o"] if number % 2 else again
        yield Case(kind="answers", argv=argv, files={"o": {"answers": edit}}, writes=[] if number % 2 else ["o"])


# model folders

CONFIGS: dict[str, tuple[Json, ...]] = {
    "model_type": (None, "gpt2", "\x1b[2J", "llada\n"),
    "n_layers": (0, -1, 1e6, 10**9, "2"),
    "d_model": (0, 33, 10**12, 1.5),
    "n_heads": (0, 3, -4, True),
    "vocab_size": (-1, 10**12, "448", None),
    "max_sequence_length": (0, -1, "x"),
    "rope_theta": (0, -1, "x", 10**400, None),
    "rms_norm_eps": (float("nan"), -1),
    "mask_token_id": (-1, 320, 10**9, "2", None),
    "eos_token_id": ([1, 2], -1, 319),
    "activation_type": ("gelu", 3),
}
JINJA: tuple[Json, ...] = (
    *("", "{{", "{% for m in messages %}", "{{ messages[0].content", "{{ 9 ** (9 ** 9) }}", "{{ lipsum(n=10**8) }}"),
    *("{% set x = 'a' * 6000000000 %}{{ x }}", "{{ 'a' | center(9999999999) }}", "{{ raise_exception('a\nb') }}"),
    *("{% for i in range(10**9) %}{% endfor %}", "{{ messages.__class__.__mro__ }}", "{% include '/etc/passwd' %}"),
    *("{{ self }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages[-1].content | upper }}", "\udcff"),
    *({"join": ["{{ ", {"repeat": ["(", 300]}]}, {"repeat": ["{% if true %}", 500]}, LONG),
)


def models() -> Iterator[Case]:
    """Model folders with faults."""

    def case(change: Json, *line: Json) -> Case:
        return Case(kind="model", argv=line or ("inspect", "m"), files={"m": {"model": change}})

    for number, (key, values) in enumerate(CONFIGS.items()):
        for value in values:
            line = ("run", "-m", "m", "--backend", "reference", "-p", "steps(1)", "hi") if number % 3 == 2 else ()
            yield case({"set": {"config.json": {key: value}}}, *line)
    broken: tuple[Json, ...] = ("", "[]", "{", "\udcff", {"repeat": ["[", 50_000]}, {"folder": 0o755}, {"fifo": "{}"})
    for file in ("config.json", "tokenizer.json", "mdsample.toml", "model.safetensors"):
        for said in (*broken, {"link": file}, {"link": "/dev/zero"}):
            yield case({"put": {file: said}}, "run", "-m", "m", "--backend", "reference", "-p", "steps(1)", "hi")
        if file != "mdsample.toml":
            yield case({"remove": [file]})
    names = [name for name in DAMAGE if name not in ("nan", "inf")]
    for name in names[::2]:
        yield case({"damage": name})
    for name in names[1::6]:
        yield case({"damage": name}, "convert", "m", "new")
    for source in JINJA:
        chat = {"set": {"tokenizer_config.json": {"chat_template": "x"}}, "put": {"chat_template.jinja": source}}
        yield case(chat, "run", "-m", "m", "--backend", "reference", "-p", "steps(1)", "--chat", "hi")
    for value in ("template = 3", "template = ''", "template = '{a'", "description = []", "template = '{a:99999999}'"):
        yield case({"put": {"mdsample.toml": value}}, "run", "-m", "m", "--backend", "reference", "hi")
    for name in (
        "absent",
        "a/b/c",
        "organisation/absent",
        "/",
        "",
        "\udcff",
        "a\nb",
        NUL,
        LONG,
        "https://x.y/z",
        "~",
        "~nobody-here/m",
    ):
        yield Case(kind="model", argv=["inspect", "--", name])


# the library

#: what no call takes; `Odd()` cannot even be looked at
JUNK = (
    "Odd()",
    "None",
    "3",
    "1.5",
    "float('nan')",
    "True",
    "b'med'",
    "[]",
    "{}",
    "object()",
    "np.zeros(3)",
    "lambda: 0",
    "'\\ud800'",
)

CALLS: dict[str, tuple[str, ...]] = {
    "load": (
        *(f"load({junk})" for junk in JUNK),
        *(
            "load('')",
            "load('tiny-gsn')",
            "load('tiny-gsm', 'jax')",
            "load('tiny-gsm', None)",
            "load('tiny-gsm', device=3)",
        ),
        *(
            "load('tiny-gsm', dtype='int8')",
            "load('tiny-gsm', cache='zz')",
            "load('tiny-gsm', cache=3)",
            "load('a\\0b')",
        ),
        *("load('tiny-gsm', cache='dual(0)')", "load('tiny-gsm', revision='x')", "load('tiny-gsm', revision=3)"),
        *(
            "load(Path('absent'))",
            "load('a' * 100000)",
            "load('tiny-gsm', compile='yes')",
            "inspect(None)",
            "inspect([])",
        ),
        *(
            "inspect('tiny-gsm', revision=b'x')",
            "chat(None)",
            "chat('tiny-gsm', 3)",
            "chat('tiny-gsm')",
            "chat('tiny-gsm', system=3)",
        ),
    ),
    "parse": (
        *(f"parse({junk})" for junk in JUNK),
        *("parse('med', parts=3)", "parse('med', parts=[3])", "parse('med', parts='med')", "parse('med' * 99999)"),
        *(
            "Policy(3)",
            "Policy.of('med')",
            "med(None)",
            "med('x')",
            "med(float('nan'))",
            "med(-1)",
            "med(True)",
            "eb(np.zeros(2))",
        ),
        *(
            "Top(0)",
            "Top(1.5)",
            "Top(None)",
            "Steps('3')",
            "Temperature(-1.0)",
            "Cfg(float('inf'))",
            "Blocks(-1)",
            "Fixed(3)",
        ),
        *(
            "Fixed([0, 0])",
            "Fixed('ab')",
            "Ban('a')",
            "Ban([1])",
            "Choices(3)",
            "Characters(None)",
            "EarlyExit(slot=3)",
        ),
        *(
            "Budget()",
            "Budget(nfe=0)",
            "parse('med') + 3",
            "parse('med') + 'eb'",
            "parse('med') + Top(1)",
            "BelowEntropy(10**400)",
        ),
        *(
            "Top(10**400)",
            "Steps(np.array([1, 2]))",
            "Random(noise=object())",
            "Entropy(noise=-1)",
            "klass(history=-1)",
        ),
    ),
    "template": (
        *(f"Template.parse({junk})" for junk in JUNK),
        *(f"template.canvas(model.tokenizer, {junk})" for junk in JUNK),
        *(
            "template.canvas(model, [{'prompt': 'a'}])",
            "template.canvas(None, [])",
            "template.canvas(model.tokenizer, ['a'])",
        ),
        *("template.canvas(model.tokenizer, [{'prompt': None}])", "template.canvas(model.tokenizer, [{3: 'a'}])"),
        *("template.canvas(model.tokenizer, [{}])", "template.canvas(model.tokenizer, [{'prompt': 'a', 'x': 'b'}])"),
        *(f"template.canvas(model.tokenizer, [{{'prompt': 'a'}}], ids={junk})" for junk in JUNK[1:]),
        *(f"template.canvas(model.tokenizer, [{{'prompt': 'a'}}], given={junk})" for junk in JUNK[1:]),
        *(
            "template.canvas(model.tokenizer, [{'prompt': 'a'}] * 2, ids=[1, 1])",
            "Template(3)",
            "Template(())",
            "Template(('a',))",
        ),
        *("template.canvas(model.tokenizer, [{'prompt': 'a'}], given=[{'answer': 3}])", "template.check_given(3)"),
        *(
            "template.canvas(model.tokenizer, [{'prompt': 'a'}], given=[{'none': 'a'}])",
            "template.row(model.tokenizer, 3)",
        ),
        *(
            "template.canvas(model.tokenizer, [{'prompt': 'a'}], given=[{'answer': 'aaaaa'}])",
            "template.row(3, {'prompt': 'a'})",
        ),
    ),
    "canvas": (
        *(
            f"canvas({name}={junk})"
            for name in ("tokens", "blank", "slot", "valid")
            for junk in ("None", "3", "[[1]]", "'ab'")
        ),
        *(f"canvas({name}=canvas().tokens.astype(float))" for name in ("tokens", "slot")),
        *(f"canvas({name}=canvas().{name}[:1])" for name in ("tokens", "blank", "slot", "valid")),
        *(f"canvas(names={junk})" for junk in ("None", "'ab'", "()", "(1, 2)", "['text', 'answer']")),
        *(
            f"canvas(ids={junk})"
            for junk in ("None", "3", "'ab'", "(1, 1)", "(1.5, 2)", "(None, 1)", "(True, [])", "()", "('\\ud800', 1)")
        ),
        *(
            "canvas(valid=~canvas().valid)",
            "canvas(blank=canvas().valid)",
            "canvas(slot=canvas().slot + 9)",
            "canvas(tokens=canvas().tokens[0])",
        ),
        *(
            "canvas().take('a')",
            "canvas().take([9])",
            "canvas().take(None)",
            "canvas().slot_length('none')",
            "Canvas.of_rows(3, 3, (), 0)",
        ),
        *(
            "Canvas.of_rows([[1]], [[0, 1]], ('a',), 0)",
            "Canvas.of_rows([[10**30]], [[0]], ('a',), 0)",
            "Canvas.of_rows([['a']], [[0]], ('a',), 0)",
        ),
    ),
    "sample": (
        *(f"sample(model, {junk}, template=template)" for junk in JUNK),
        *(f"sample({junk}, 'ab', template=template)" for junk in JUNK[:10:2]),
        *(f"sample(model, 'ab', template={junk})" for junk in JUNK[1:]),
        *(f"sample(model, 'ab', template=template, policy={junk})" for junk in JUNK[1:]),
        *(f"sample(model, 'ab', template=template, seed={junk})" for junk in JUNK[:9]),
        *(f"sample(model, ['ab'], template=template, batch_size={junk})" for junk in (*JUNK[:9], "0", "-1", "10**30")),
        *(
            f"sample(model, 'ab', template=template, given={junk})"
            for junk in ("3", "'ab'", "[3]", "{'answer': 3}", "{'none': 'a'}", "[{}, {}]")
        ),
        *(
            f"sample(model, ['ab'], template=template, ids={junk})"
            for junk in ("3", "'a'", "[None]", "[1.5]", "[]", "['\\ud800']", "{}")
        ),
        *(
            "sample(model, [['ab']], template=template)",
            "sample(model, nested(5000), template=template)",
            "sample('ab', model)",
        ),
        *(
            "sample(model, ['a', 3], template=template)",
            "sample(model, [0, 99], template=template)",
            "sample(model, [-1], template=template)",
        ),
        *(
            "sample(model, [10**400], template=template)",
            "sample(model, np.zeros((2, 2), int), template=template)",
            "sample()",
        ),
        *(
            "sample(model, {'prompt': 3}, template=template)",
            "sample(model, {'x': 'a'}, template=template)",
            "sample(model, 'zz', template=template)",
        ),
        *(
            "sample(model, [{'role': 'user', 'content': 'a'}], template=template)",
            "sample(model, [{'role': 3, 'content': 4}])",
        ),
        *(
            "sample(model, iter('ab'), template=template, ids=[0])",
            "sample(model, 'ab', template=template, polcy='med')",
            "sample(model, np.array([1.5]), template=template)",
        ),
    ),
    "stream and watch": (
        *(f"stream(model, {junk}, template=template)" for junk in JUNK[::2]),
        *(f"watch(model, {junk}, template=template)" for junk in JUNK[::2]),
        *(
            "watch(model, ['ab'], template=template)",
            "watch(model, 'ab', template=template, id=None)",
            "watch(model, 'ab', template=template, id=1.5)",
        ),
        *(
            "watch(model, 'ab', template=template, given=3)",
            "stream(model, ['ab'], template=template, batch_size='2')",
            "watch(None, 'ab')",
        ),
    ),
    "sampler": (
        *(f"Sampler({junk})" for junk in JUNK[:-1]),
        *(f"Sampler('med', seed={junk})" for junk in JUNK[:10:2]),
        *(f"Sampler('med').run(model, {junk})" for junk in JUNK[:10:2]),
        *(f"Sampler('med').run({junk}, canvas())" for junk in JUNK[:10:2]),
        *(
            "Sampler('med').run(canvas(), model)",
            "Sampler('med').run(model, canvas(), batch_size=0)",
            "Sampler('med').run(model, canvas(), batch_size='2')",
        ),
        *(
            "Sampler('med').step(model, 3)",
            "Sampler('med').start(model, None)",
            "Sampler('med').step(model, canvas())",
            "Sampler('med').plan(model, template)",
        ),
        *(
            "Sampler(\"early-exit(slot='none')\").run(model, canvas())",
            "Sampler('ban([\"zz\"])').run(model, canvas())",
            "Trace.load(None)",
            "Trace.load(3)",
        ),
        *(
            "Trace.load('absent')",
            "Trace.load('precious.txt')",
            "Trace.of(3)",
            "Trace.of(run()).save('absent/x')",
            "Trace.of(run()).save(3)",
            "Trace.load('.')",
            "Trace.load('a\\0b')",
        ),
    ),
    "score": (
        *(
            f"score(model, template, [{{'prompt': 'a'}}], 'answer', {junk})"
            for junk in (*JUNK, "[3]", "['a', 3]", "[['a'], ['b']]", "['a', 'a']", "['aaaaa']")
        ),
        *(f"score(model, template, {junk}, 'answer', ['a'])" for junk in JUNK),
        *(f"score(model, template, [{{'prompt': 'a'}}], {junk}, ['a'])" for junk in (*JUNK[:9], "'none'", "'prompt'")),
        *(
            f"score(model, template, [{{'prompt': 'a'}}], 'answer', ['a'], method={junk})"
            for junk in ("3", "'chain'", "ChainRule", "Entropy()")
        ),
        *(
            f"score(model, template, [{{'prompt': 'a'}}], 'answer', ['a'], batch_size={junk})"
            for junk in ("0", "-1", "'2'", "None", "1.5")
        ),
        *(
            "ChainRule(3)",
            "ChainRule(Lookahead())",
            "ChainRule(seed='x')",
            "MonteCarloBound(1)",
            "MonteCarloBound('x')",
            "MonteCarloBound(None)",
            "score(template, model, [], 'answer', [])",
        ),
        *(
            "score(model, template, [{'prompt': 'a'}], 'answer', ['a'], ids=[None])",
            "score(model, template, [{'prompt': 'a'}], 'answer', ['a'], given=[{'answer': 'b'}])",
            "score(model, '{prompt}{answer:2}', [{'prompt': 'a'}], 'answer', ['a'])",
        ),
    ),
}


def library() -> Iterator[Case]:
    """Calls with values of wrong types, out of range, or in wrong places."""
    for kind, calls in CALLS.items():
        for call in calls:
            yield Case(kind=f"library: {kind}", call=call)


GROUPS = (contradictions, paths, inputs, policies, recorded, models, library)

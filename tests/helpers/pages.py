"""The pages of the documentation, taken apart: shell commands with the output shown, and Python snippets with theirs.

    python tests/helpers/pages.py [--write] [PAGE …]

runs what can run here and says where a page shows something else; with `--write` the page shows what came out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: commands that a page shows and nobody can run here in seconds, by what they have in common, and why not
NOT_RUN = {
    r"^pip install": "changes the environment and needs the network; .ci/run does the README's",
    r"GSAI-ML/|llada-8b|\./my-lora": "needs a checkpoint of 16 GB",
    r"--model \./bert": "needs a checkpoint that is not here; tests/torch runs one like it",
    r"--task (gsm8k|math500|mbpp)": "needs the published problems",
    r"wrong\.jsonl|human\.jsonl|tuned": "goes on with what such a command wrote, or trains for minutes",
    r"benchmarks/gpu\.py( --compile)?\s*(#.*)?$": "needs a GPU",
    r"^mdsample serve": "goes on until it is stopped; tests/serve starts it",
    r"^mdsample (bench|calibrate|study) (?!--task problems\.jsonl )": "takes minutes",
    r"benchmarks/(exact_study|bounds)\.py|benchmarks/posterior\.py|recipes\.": "takes minutes to hours",
    r"--ray|ray-plan|ray_rows": "needs Ray, which .ci/run has in an environment of its own",
    r"\.parquet|squad/": "needs pyarrow, which .ci/run has in an environment of its own",
    r"--devices|benchmarks/rows\.py": "needs two devices, or takes minutes; tests/jobs runs one like it",
    r"lm-eval|benchmarks/harness\.py": "needs the harness, which .ci/run has in an environment of its own",
    r"^git show|^python - <<": "needs the history, or a file of the hub",
    r"benchmarks/training\.py": "trains for an hour",
}
#: how long one may take
SECONDS = 120
#: the files that commands read
FILES = {
    "problems.jsonl": [
        {"id": "a", "prompt": "Ann has 3 coins. Ben has 4 more than Ann. How many coins does Ben have?", "answer": "7"},
        {"id": "b", "prompt": "Ann has 12 coins. Ben has 5 more than Ann. How many coins does Ben have?", "answer": 17},
    ],
    "questions.jsonl": [
        {"prompt": "Ann has 3 coins. Ben has 4 more than Ann. How many has Ben?", "options": [" 7", " 12"]},
        {"prompt": "Ann has 5 coins. Ben has 4 more than Ann. How many has Ben?", "options": [" 9", " 20"]},
    ],
}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SNIPPET = re.compile(r"^```python\n(.*?)^```$(?:\n*^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
_SHELL = re.compile(r"(\$ |mdsample |python |pip |git |printf )")


@attrs.frozen
class Command:
    """A command as it is printed, and the output shown below it; `None` where none is."""

    text: str
    shown: str | None = None

    @property
    def why_not(self) -> str:
        """Why it is not run here; empty if it is."""
        line = " ".join(self.text.split())
        return next((why for what, why in NOT_RUN.items() if re.search(what, line)), "")


def words(text: str) -> list[str]:
    """The first command's words, without what follows a pipe or goes to a file."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if word in (">", "|", "&&", "||", ";"):
            break
        found.append(word)
    return found


def commands(page: Path) -> list[Command]:
    """The commands in the page's fenced blocks; a line with `…` stands for one that is not spelled out."""
    found: list[Command] = []
    for language, block in _FENCE.findall(page.read_text(encoding="utf-8")):
        if not language and _SHELL.match(block):
            found += _in_block(block)
    return found


def _in_block(block: str) -> list[Command]:
    lines, found = block.splitlines(keepends=True), list[Command]()
    prompts = block.startswith("$ ")
    while lines:
        text = lines.pop(0).removeprefix("$ ")
        while lines and _goes_on(text):
            text += lines.pop(0)
        shown = ""
        while prompts and lines and not lines[0].startswith("$ "):
            shown += lines.pop(0)
        if "…" not in text:
            found.append(Command(text.rstrip("\n"), shown if prompts else None))
    return found


def _goes_on(text: str) -> bool:
    if here := re.search(r"<<'(\w+)'", text):
        return not text.endswith(f"\n{here[1]}\n")
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return text.endswith("\\\n")


def snippets(page: Path) -> list[tuple[str, str | None]]:
    """Python snippets, with the block of `text` that follows them: what they print."""
    return [(code, shown or None) for code, shown in _SNIPPET.findall(page.read_text(encoding="utf-8"))]


def folder(where: Path) -> dict[str, str]:
    """Puts what commands need into an empty folder; the environment to run them in."""
    for name, rows in FILES.items():
        text = "".join(json.dumps({**row, "gold": row.get("answer", "")}) + "\n" for row in rows)
        (where / name).write_text(text, encoding="utf-8")
    structured = (ROOT / "docs" / "structured.md").read_text(encoding="utf-8")
    (where / "person.json").write_text(structured.split("```json\n")[1].split("```")[0], encoding="utf-8")
    for name in ("benchmarks", "recipes"):
        (where / name).symlink_to(ROOT / name)
    programs = where / "bin"
    programs.mkdir()
    for name, start in {"mdsample": " -m mdsample_cli", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{start} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends"), str(ROOT / "cli"), os.environ.get("PYTHONPATH", "")])
    width = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    search = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**width, "PATH": search, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}


def run(command: Command, where: Path, environment: dict[str, str]) -> tuple[int, str]:
    """What bash makes of it: the exit code, and all that was written."""
    asked = ["bash", "-c", command.text]
    done = subprocess.run(
        asked, cwd=where, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS
    )
    return done.returncode, done.stdout.decode()


def execute(code: str, page: Path, names: dict[str, object]) -> str:
    """Runs a snippet with the names of those before it; what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page.name, "exec", dont_inherit=True), names)
    return printed.getvalue()


def same(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed: `…` stands for anything, and how long something took is not compared."""
    pattern = ".*".join(map(re.escape, _plain(shown).split("…")))
    return re.fullmatch(pattern, _plain(printed), re.DOTALL) is not None


def _plain(text: str) -> str:
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return re.sub(r"\d+(\.\d+)? ?(s|ms|seconds|minutes|tokens/s)\b", r"0 \2", "\n".join(lines))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="default: all")
    parser.add_argument("--write", action="store_true", help="let pages show what came out")
    options = parser.parse_args()
    for page in options.pages or PAGES:
        text, names = page.read_text(encoding="utf-8"), dict[str, object]()
        with tempfile.TemporaryDirectory() as scratch:
            environment = folder(Path(scratch))
            for command in commands(page):
                if command.shown is not None and not command.why_not:
                    text = _told(page, text, command.text, command.shown, run(command, Path(scratch), environment)[1])
        for code, shown in snippets(page):
            printed = execute(code, page, names)
            if shown is not None:
                text = _told(page, text, code, shown, printed)
        if options.write:
            page.write_text(text, encoding="utf-8")


def _told(page: Path, text: str, asked: str, shown: str, printed: str) -> str:
    """The page's text with what was printed in place of what is shown, if they differ."""
    if same(shown, printed):
        return text
    print(f"{page.name}: {asked.strip().splitlines()[-1]}\n{printed}")
    start = text.index(shown, text.index(asked))
    return text[:start] + "\n".join(line.rstrip() for line in printed.splitlines()) + "\n" + text[start + len(shown) :]


if __name__ == "__main__":
    main()

"""How Markdown is written here: one sentence a line, no line over 140 characters, tables apart.

    python tests/helpers/prose.py [--write] [PAGE …]

says where a page is not; with `--write` its paragraphs are broken anew.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTH = 140
#: where pages are, besides the root
FOLDERS = (".github", "docs", "examples", "mdsample", "recipes", "serve", "tests")

#: what is one thing and is never broken: code, links and pictures
_WHOLE = re.compile(r"(`+)(?:(?!\1).)*?\1|!?\[[^]\[]*\](?:\([^)\s]*\))?")
#: between two sentences; not behind an abbreviation or a heading in bold
_BETWEEN = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][)\"]))(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bal\.)(?<!Trans\.)(?<!Inf\.)"
    r" +(?=[\"(*\[]*[A-Z`\0\d])"
)
_MARKER = re.compile(r"(\s*)([-*+]|\d+[.)])\s+(?=\S)")
#: what begins a block of its own
_BLOCK = re.compile(r"\s*(#|\||<|```|:::|---|===|!\[[^]]*\]\(\S+\)$|\[[^]]+\]: |$)")


def pages() -> list[Path]:
    """All pages of the repository; the list of changes is written release by release."""
    found = [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
    return sorted(page for page in found if page.name != "CHANGELOG.md")


def sentences(text: str) -> list[str]:
    """A paragraph's sentences; full stops in code and links end none."""
    whole: list[str] = []

    def hide(match: re.Match[str]) -> str:
        whole.append(match[0])
        return f"\0{len(whole) - 1}\0"

    hidden = _WHOLE.sub(hide, text)
    return [re.sub(r"\0(\d+)\0", lambda m: whole[int(m[1])], one) for one in _BETWEEN.split(hidden)]


def broken(sentence: str, width: int) -> Iterator[str]:
    """A sentence in lines: behind a comma or the like if there is one in the second half, else between words."""
    while len(sentence) > width:
        held = [(m.start(), m.end()) for m in _WHOLE.finditer(sentence)]
        spaces = [
            m.start()
            for m in re.finditer(r" (?![-+*>#|=] |\d+[.)] )", sentence)
            if not any(a < m.start() < b for a, b in held)
        ]
        fits = [place for place in spaces if 0 < place <= width]
        clauses = [place for place in fits if sentence[place - 1] in ",;:" and place > width // 3]
        cut = max(clauses or fits or spaces[:1], default=len(sentence))
        yield sentence[:cut]
        sentence = sentence[cut:].lstrip()
        if not sentence:
            return
    yield sentence


def blocks(text: str) -> Iterator[tuple[bool, list[str]]]:
    """The page's lines in groups, each with whether it is a paragraph or an item of a list."""
    fence, group = "", list[str]()
    for line in text.splitlines():
        mark = re.match(r"\s*(`{3,}|:{3,})", line)
        if fence or mark or _BLOCK.match(line) or line.startswith("    "):
            if group and not (line.startswith("    ") and not fence and not mark and _MARKER.match(group[0])):
                yield True, group
                group = []
            elif group:
                group.append(line)
                continue
            yield False, [line]
            if mark:
                fence = "" if fence and line.strip().startswith(fence) else fence or mark[1]
        elif _MARKER.match(line):
            if group:
                yield True, group
            group = [line]
        else:
            group.append(line)
    if group:
        yield True, group


def rewritten(text: str) -> str:
    """The page with every paragraph broken as it should be."""
    lines: list[str] = []
    for paragraph, group in blocks(text):
        if not paragraph or (len(group) == 1 and not wrong(group[0])):
            lines += group
            continue
        marker = _MARKER.match(group[0])
        first = marker[0] if marker else group[0][: len(group[0]) - len(group[0].lstrip())]
        rest = " " * len(first)
        joined = " ".join([group[0][len(first) :].strip(), *(line.strip() for line in group[1:])])
        pieces = [p for one in sentences(joined) for p in broken(one, WIDTH - len(first))]
        lines += [first + pieces[0], *(rest + piece for piece in pieces[1:])]
    return "\n".join(lines) + "\n"


def wrong(line: str) -> str:
    """What is wrong with a line of a paragraph; empty if nothing is."""
    if len(line) > WIDTH:
        return f"{len(line)} characters"
    return "two sentences" if len(sentences(_MARKER.sub("", line, count=1))) > 1 else ""


def faults(page: Path) -> Iterator[str]:
    """Lines of a page that are not as they should be."""
    number = 0
    for paragraph, group in blocks(page.read_text(encoding="utf-8")):
        for line in group:
            number += 1
            table = not paragraph and line.lstrip().startswith("|")
            if not table and (said := wrong(line) if paragraph else len(line) > WIDTH and f"{len(line)} characters"):
                yield f"{page.relative_to(ROOT)}:{number}: {said}: {line.strip()[:60]} …"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="default: all")
    parser.add_argument("--write", action="store_true", help="break paragraphs anew")
    options = parser.parse_args()
    for page in options.pages or pages():
        if options.write:
            page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
        for fault in faults(page.resolve()):
            print(fault)


if __name__ == "__main__":
    main()

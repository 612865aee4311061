"""Damages model folders at random and reads them: `python tests/helpers/fuzz_models.py --cases 20000 --seed 1`.

Every case is a tiny checkpoint of some family with a few faults in its configuration, tokenizer, chat template, header
or index. Whatever they are, it is read or refused with one sentence, in little time and memory. A case depends on the
seed and its number alone; `--only NUMBER` runs that one.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
from chats import PLAIN
from checkpoints import FAMILIES, LLADA_CHAT, as_dream_is_published, write_family
from damage import DAMAGE, header_of, write_header

import mdsample
from mdsample.errors import MdsampleError
from mdsample.models.families import read_config
from mdsample.models.text.tokenizer import FileTokenizer

#: what a case may take: seconds, and bytes beyond what the process had at its most
SECONDS, GROWTH = 2, 200 << 20
#: characters of an error
LONGEST = 3000

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENS = ("vocab.json", "added_tokens.json")
JSON_FILES = ("config.json", "config.json", "tokenizer.json", "tokenizer_config.json", INDEX, *TOKENS)
FILES = (*JSON_FILES, SINGLE, "merges.txt", "chat_template.jinja", "mdsample.toml", "special_tokens_map.json")

#: values that stand where another belongs
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**31, 2**32, 2**63, 2**64, 10**12, 10**19, 10**400, -(10**400)),
    *(0.0, -0.0, 0.5, 1e-300, 1e12, 1e300, float("inf"), float("-inf"), float("nan")),
    *("", "a", "\0", "\n", "\ud800", "é" * 300, "448", "[MASK]", "<|mdm_mask|>", "<|endoftext|>", "../../etc/passwd"),
    *("a" * 100_000, "{{ x }}", "{% for %}", "(a+)+$", "silu", "llama", "default", "full_attention", "9" * 5000),
    *([], {}, [[]], [0], [1, 2], [1] * 1000, [None], ["a"], {"a": 1}, {"content": "a"}, {"": {}}),
    *({"bits": 4}, {"rope_type": "yarn"}, {"rope_theta": 10**400}, {str(i): i for i in range(999)}),
)
NUMBERS = [value for value in STRANGE if isinstance(value, int | float)]

REGEXES = (
    "(a+)+$",
    "(?:a|aa)+$",
    "",
    ".",
    "(",
    "\\p{L}+|\\s",
    "(?=a)",
    "a{1,9999}",
    "[a-z",
    "(?<x>a)\\k<x>",
    "\\X",
    "$",
)
PARTS: dict[str, tuple[Callable[[random.Random], Any], ...]] = {
    "normalizer": (
        lambda _: None,
        lambda r: {"type": "Sequence", "normalizers": [_replace(r) for _ in range(r.randint(0, 40))]},
        lambda r: {"type": r.choice(["NFC", "NFKC", "NFD", "Lowercase", "StripAccents", "Nmt", "ByteLevel", "Zzz"])},
        lambda r: {"type": "Strip", "strip_left": True, "strip_right": r.choice([True, None])},
        lambda r: {"type": "Prepend", "prepend": r.choice(["", "x", "x" * 999])},
        lambda r: {"type": "Precompiled", "precompiled_charsmap": r.choice(["", "AAAA", "AAAAAAAA" * 9, "?"])},
        lambda r: _replace(r),
    ),
    "pre_tokenizer": (
        lambda _: None,
        lambda r: _split(r),
        lambda r: {"type": "Sequence", "pretokenizers": [_split(r) for _ in range(r.randint(0, 9))]},
        lambda r: {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": r.random() < 0.5},
        lambda r: {"type": r.choice(["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Zzz", "UnicodeScripts"])},
        lambda r: {"type": "Metaspace", "replacement": r.choice(["_", "", "__"]), "prepend_scheme": "first"},
        lambda r: {"type": "FixedLength", "length": r.choice([0, 1, 2**63, -1])},
    ),
    "decoder": (
        lambda _: None,
        lambda r: _replace(r),
        lambda r: {"type": r.choice(["Fuse", "ByteFallback", "BPEDecoder", "ByteLevel", "Zzz"])},
        lambda r: {"type": "Strip", "content": r.choice(["a", "", "aa"]), "start": r.choice(NUMBERS), "stop": 3},
        lambda r: {"type": "Sequence", "decoders": [{"type": "Fuse"}, _replace(r)]},
        lambda r: {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": True},
        lambda r: {"type": "WordPiece", "prefix": r.choice(["", "##"]), "cleanup": True},
    ),
    "model": (
        lambda r: {"type": "WordLevel", "vocab": {"a": 0, "b": r.choice(NUMBERS)}, "unk_token": r.choice(["a", "zz"])},
        lambda r: {"type": "WordPiece", "vocab": {"a": 0, "b": 1}, "unk_token": "zz", "max_input_chars_per_word": 9},
        lambda r: {
            "type": "Unigram",
            "vocab": [["a", r.choice([0, -1, 1e300])], ["b", 0]],
            "unk_id": r.choice(NUMBERS),
        },
        lambda r: {
            "type": "BPE",
            "vocab": {"a": 0, "b": 1, "ab": 2},
            "merges": r.choice([[["a", "b"]], ["a b"], ["a"]]),
        },
    ),
    "truncation": (lambda r: {"max_length": r.choice(NUMBERS), "strategy": "LongestFirst", "stride": 5},),
    "padding": (lambda r: {"strategy": {"Fixed": r.choice(NUMBERS)}, "pad_id": 0, "pad_token": "a"},),
    "post_processor": (lambda r: {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},),
}

JINJA = (
    *(
        "{{ messages }}",
        "{{ messages[0].content }}",
        "{% for m in messages %}",
        "{% endfor %}",
        "{% endif %}",
        "{% if x %}",
    ),
    *(
        "{% for i in range(N) %}",
        "{% set x = 'a' * N %}",
        "{% set x = x ~ x %}",
        "{% set n = namespace(x=[1]) %}",
        "{{ x }}",
    ),
    *(
        "{% set n.x = [n.x, n.x] %}",
        "{% set n.x = n.x + n.x %}",
        "{{ n.x }}",
        "{% set x = N ** N %}",
        "{{ lipsum(n=N) }}",
    ),
    *("{{ 'a' | center(N) }}", "{{ '%Nd' | format(1) }}", "{{ range(N) | list | sort | join }}", "{{ x | tojson }}"),
    *(
        "{% macro f(n) %}",
        "{{ f(N) }}",
        "{% endmacro %}",
        "{{ f }}",
        "{% block b %}",
        "{% endblock %}",
        "{{ self.b() }}",
    ),
    *(
        "{{ range(N) | batch(N) | list }}",
        "{{ x | replace('a', 'aaaa') }}",
        "{{ cycler(x) }}",
        "{{ dict(a=x) }}",
        "{{ 1 / 0 }}",
    ),
    *(
        "{{ x | indent(N) }}",
        "{{ x | wordwrap(1) }}",
        "{{ x | urlize }}",
        "{{ x | int }}",
        "{{ N | float }}",
        "{% raw %}",
    ),
    *(
        "{% generation %}",
        "{% endgeneration %}",
        "{% break %}",
        "{{ raise_exception(x) }}",
        "{{ strftime_now('%Y' * N) }}",
    ),
    *(
        "{{ " + "(" * 300,
        "{{ -" + "-" * 3000 + "1 }}",
        "{{ [" * 50,
        "\ud800",
        "{#",
        "{{ x.__class__ }}",
        "{{ '{0}'.format(x) }}",
    ),
)
SIZES = ("0", "3", "99", "9999", "99999", "999999999", "10**20")
TEXTS = ("", "the cat", " a  b\n", "a" * 60 + "b", "ééé \0 \U0001f600", "x" * 5000, "<|mdm_mask|>")


def _replace(r: random.Random) -> dict[str, Any]:
    pattern = {"Regex": r.choice(REGEXES)} if r.random() < 0.3 else {"String": r.choice(["a", " ", "", "aa"])}
    return {"type": "Replace", "pattern": pattern, "content": r.choice(["", "a", "aa", "▁", "a" * 999])}


def _split(r: random.Random) -> dict[str, Any]:
    pattern = {"Regex": r.choice(REGEXES)} if r.random() < 0.8 else {"String": r.choice(["a", " ", ""])}
    behavior = r.choice(["Isolated", "Removed", "MergedWithPrevious", "Contiguous", "Zzz"])
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": r.random() < 0.2}


# faults


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for key, inner in enumerate(value):
            yield from _places(inner, (*path, key))


def _changed(said: Any, r: random.Random) -> Any:
    """The same JSON but for one place."""
    said = copy.deepcopy(said)
    # every depth as often as another, or nearly all would be merges of the tokenizer
    by_depth: dict[int, list[tuple[Any, ...]]] = {}
    for path in _places(said):
        by_depth.setdefault(len(path), []).append(path)
    path = r.choice(by_depth[r.choice([depth for depth in by_depth if depth] or [0])])
    if not path:
        return r.choice(STRANGE)
    inner = said
    for key in path[:-1]:
        inner = inner[key]
    match r.randrange(5):
        case 0:
            del inner[path[-1]]
        case 1 if isinstance(inner, dict):
            inner[r.choice(["", "a", "\n", "x" * 300, "\ud800"])] = inner.pop(path[-1])
        case 2 if isinstance(inner[path[-1]], int):
            inner[path[-1]] = r.choice(NUMBERS)
        case _:
            inner[path[-1]] = r.choice(STRANGE)
    return said


def _change_json(folder: Path, r: random.Random) -> None:
    path = folder / r.choice([name for name in JSON_FILES if (folder / name).is_file()])
    try:
        path.write_text(json.dumps(_changed(json.loads(path.read_bytes()), r)))
    except (ValueError, RecursionError):  # an earlier fault has made it something else
        path.write_text(json.dumps(r.choice(STRANGE)))


def _change_number(folder: Path, r: random.Random) -> None:
    try:
        said = json.loads((folder / "config.json").read_bytes())
        said[r.choice(list(said))] = r.choice(NUMBERS)
        (folder / "config.json").write_text(json.dumps(said))
    except (ValueError, RecursionError, AttributeError, TypeError, IndexError, OSError):
        pass


def _change_bytes(folder: Path, r: random.Random) -> None:
    path = folder / r.choice([name for name in FILES if (folder / name).is_file()])
    data = bytearray(path.read_bytes())
    first = r.randrange(len(data) + 1) if r.random() < 0.5 else r.randrange(min(len(data), 600) + 1)
    match r.randrange(5):
        case 0:
            del data[first:]
        case 1:
            data[first : first + r.choice([1, 8, 100])] = b""
        case 2:
            data[first:first] = r.choice([b"\0", b"\xff", b"{", b"[" * 100_000, b'"', b"1" * 5000, b"\n", b"NaN"])
        case 3:
            data[first:first] = data[first : first + 200] * r.choice([1, 30])
        case _ if data:
            data[min(first, len(data) - 1)] = r.randrange(256)
    path.write_bytes(data)


def _change_header(folder: Path, r: random.Random) -> None:
    files = sorted(folder.glob("*.safetensors"))
    try:
        path = r.choice(files)
        header, body = header_of(path)
        write_header(path, _changed(header, r), body)
    except (ValueError, IndexError, OSError, RecursionError):
        pass


def _change_file(folder: Path, r: random.Random) -> None:
    path = folder / r.choice(FILES)
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    odd: tuple[Callable[[], object], ...] = (
        *(path.mkdir, path.touch, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")),
        *(lambda: path.symlink_to(path), lambda: path.write_text("[" * 50_000), lambda: None),
        lambda: os.truncate(path.write_text("x") and path, 1 << 40),
    )
    r.choice(odd)()


def _change_tokenizer(folder: Path, r: random.Random) -> None:
    path, part = folder / "tokenizer.json", r.choice(list(PARTS))
    with suppress(ValueError, RecursionError, TypeError, OSError):
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {part: r.choice(PARTS[part])(r)}))


def _change_chat(folder: Path, r: random.Random) -> None:
    pieces = [r.choice(JINJA).replace("N", r.choice(SIZES)) for _ in range(r.randint(1, 6))]
    source = "".join(r.sample([*pieces, PLAIN, LLADA_CHAT], r.randint(1, len(pieces) + 1)))
    path = folder / "tokenizer_config.json"
    try:
        said = json.loads(path.read_bytes())
        path.write_text(json.dumps(said | {"chat_template": source, "bos_token": r.choice(STRANGE)}))
    except (ValueError, RecursionError, TypeError, OSError):
        pass


def _change_card(folder: Path, r: random.Random) -> None:
    texts = (
        "template = ''",
        "template = '{a}{b:9}'",
        "template = '{a:99999999999}'",
        "description = 3",
        "[a",
        "a.b = 1",
    )
    if not (folder / "mdsample.toml").exists():
        (folder / "mdsample.toml").write_text("\n".join(r.sample(texts, r.randint(1, 2))), errors="replace")


def _known_damage(folder: Path, r: random.Random) -> None:
    # some are meant for another family, or for what an earlier fault has left of this one
    with suppress(AttributeError, KeyError, ValueError, OSError, RecursionError, TypeError, IndexError):
        DAMAGE[r.choice(list(DAMAGE))][0](folder)


FAULTS = (
    *(_change_json, _change_json, _change_number, _change_number, _change_bytes, _change_header, _change_file),
    *(_change_tokenizer, _change_tokenizer, _change_chat, _change_card, _known_damage),
)


# cases


class TooSlow(BaseException):
    """A case is over its time; no Exception, so that nothing takes it for an error of the folder."""


@attrs.frozen
class Found:
    """A case that went wrong."""

    case: int
    kind: str
    about: str


@contextmanager
def _timed() -> Iterator[None]:
    def stop(_: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _read(folder: Path, case: int) -> None:
    """What is done with a stranger's folder before a model runs."""
    with_chat = mdsample.inspect(folder).chat
    tokenizer = FileTokenizer.read(folder, read_config(folder))
    if with_chat:
        mdsample.chat(folder, "{q}{a:2}", system="Be brief." if case % 2 else None)
    text = TEXTS[case % len(TEXTS)]
    tokenizer.decode([*tokenizer.encode(text)[:50], *range(min(tokenizer.size, 400))])


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_case(seed: int, case: int, bases: list[Path], folder: Path) -> tuple[str, Found | None]:
    """How one case ends, and what is wrong with that."""
    r = random.Random(f"{seed} {case}")
    shutil.copytree(r.choice(bases), folder)
    # what is no file any more can only be the last fault
    for fault in sorted(r.choices(FAULTS, k=r.choice([1, 1, 2, 3])), key=lambda fault: fault is _change_file):
        fault(folder, r)
    before, started, end, wrong = _peak(), time.monotonic(), "read", ""
    try:
        with _timed():
            _read(folder, case)
    except MdsampleError as error:
        said = str(error)
        end = type(error).__name__
        wrong = f"not one sentence: {said[:300]!r}" if "\n" in said or not 0 < len(said) <= LONGEST else ""
    except TooSlow:
        wrong = f"over {SECONDS} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        wrong = f"{type(error).__name__}: {str(error)[:300]}"
    took, grown = time.monotonic() - started, _peak() - before
    if grown > GROWTH:
        wrong = wrong or f"{grown >> 20} MB more"
    return end, Found(case, wrong, f"{took:.2f} s") if wrong else None


def _bases(where: Path) -> list[Path]:
    """Whole folders: two of every family, and Dream's without `tokenizer.json`."""
    families = [write_family(where / f"{name}{n}", name, shards=n) for name in FAMILIES for n in (1, 2)]
    return [*families, *(as_dream_is_published(write_family(where / f"published{n}", "dream")) for n in (1, 2))]


def run_cases(seed: int, cases: range, tell: Callable[[Found], None] | None = None) -> tuple[Counter[str], list[Found]]:
    """How the cases ended, and those that went wrong."""
    ends, wrong = Counter[str](), list[Found]()
    with tempfile.TemporaryDirectory() as made:
        bases = _bases(Path(made))
        mdsample.inspect(bases[0])  # what is imported once is no growth
        for case in cases:
            folder = Path(made) / "case"
            end, found = run_case(seed, case, bases, folder)
            shutil.rmtree(folder)
            ends[end] += 1
            if found is not None:
                wrong.append(found)
                if tell is not None:
                    tell(found)
    return ends, wrong


def main() -> int:
    """Prints what went wrong; 1 if anything did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one case, whose traceback is shown")
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory() as made:
            bases = _bases(Path(made))
            print(*run_case(options.seed, options.only, bases, Path(made) / "case"))
            _read(Path(made) / "case", options.only)
        return 0
    # panics inside the tokenizers library are told on stderr, whoever catches them
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    started = time.monotonic()
    ends, wrong = run_cases(options.seed, range(options.cases), lambda found: print(found, flush=True))
    print(f"{options.cases} cases in {time.monotonic() - started:.0f} s: {dict(ends)}, {len(wrong)} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

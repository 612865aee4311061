"""How long an expression takes to become an automaton over the tokens of a large vocabulary, and how large that is.

    python benchmarks/constraints.py [--tokenizer tokenizer.json] [--size 126464] [--repeats 5] [--json]

Without `--tokenizer` a byte-level BPE of `--size` tokens is trained on the source of Python's own library, which takes
a minute or two. The first two lines are what a tokenizer costs once: the bytes of its tokens, and their tree.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from common import bootstrap, command_line, emit, print_head, progress, seconds, timed
from tokenizers import Tokenizer as Engine
from tokenizers.decoders import ByteLevel as Decoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from mdsample.constraints.compile import over_tokens
from mdsample.constraints.expression import byte_table
from mdsample.constraints.query import text_lengths
from mdsample.constraints.vocabulary import Vocabulary
from mdsample.core.tokens import spelling
from mdsample.models.text.tokenizer import FileTokenizer

SPECIAL = ["<|startoftext|>", "<|endoftext|>", "<|mask|>"]
#: bytes of source to train on
CORPUS = 40 << 20
EXPRESSIONS = {
    "an integer": r"-?(?:0|[1-9][0-9]{0,5})",
    "81 digits": "[1-9]{81}",
    "arithmetic": r"(?:-?[0-9]{1,3} [-+*/] ){1,8}-?[0-9]{1,3}",
    "an answer's tail": r"[\s\S]*#### -?[0-9,]{1,12}",
    "boxed": r"[^\\]*\\boxed\{[^}\\]{1,40}\}\.?",
    "JSON of three fields": r'\{"name": "[^"\\]{1,40}", "age": [0-9]{1,3}, "mail": "[a-z.]{1,20}@[a-z]{1,20}\.com"\}',
    "200 letters": r"[^\n]{0,200}",
    "anything": r"[\s\S]*",
}


def trained(size: int) -> Engine:
    """A byte-level BPE."""
    files, total = list[str](), 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        files, total = ([*files, str(path)], total + path.stat().st_size) if total < CORPUS else (files, total)
    engine = Engine(BPE())
    engine.pre_tokenizer, engine.decoder = ByteLevel(add_prefix_space=False), Decoder()
    alphabet = ByteLevel.alphabet()
    # a few files of the library are in other encodings, to test how they are read
    engine.train_from_iterator(
        (Path(file).read_text("utf-8", errors="ignore") for file in files),
        BpeTrainer(
            vocab_size=size,
            min_frequency=0,
            special_tokens=SPECIAL,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return engine


def tokenizer_of(path: str | None, size: int) -> FileTokenizer:
    """That of a file, or one trained now."""
    if path is None:
        progress(f"training a byte-level BPE of {size:,} tokens")
    return FileTokenizer(trained(size) if path is None else Engine.from_file(path), mask_id=2, end_id=1)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--tokenizer", help="a tokenizer.json")
    parser.add_argument("--size", type=int, default=126_464)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tokenizer = tokenizer_of(options.tokenizer, options.size)
    texts = spelling(tokenizer).texts
    known = Vocabulary.of(texts)
    once = {
        "bytes": seconds(lambda: spelling(tokenizer)),
        "tree": seconds(lambda: Vocabulary.of(texts)),
    }
    for name, spent in once.items():
        emit({"what": name, "tokens": tokenizer.size, "s": spent}, f"{name}: {spent:.2f} s", options.json)
    sides = {
        name: lambda pattern=pattern: over_tokens(byte_table(pattern), known, tokenizer.ends)
        for name, pattern in EXPRESSIONS.items()
    }
    spent = timed(sides, options.repeats)
    columns = ("language", "byte states", "states", "classes", "transitions", "tokens of a text", "seconds")
    if not options.json:
        print_head(columns)
    for name, pattern in EXPRESSIONS.items():
        automaton, took = sides[name](), bootstrap(spent[name])
        shortest, longest = text_lengths(automaton, tokenizer.ends)
        cells = [
            name,
            byte_table(pattern).size,
            len(automaton.accepting),
            int(automaton.classes.max()) + 1,
            len(automaton.source),
            f"{shortest} to {'any' if longest is None else longest}",
        ]
        record = dict(zip(columns, [*cells, took.value], strict=True)) | {"low": took.low, "high": took.high}
        emit(record, [*cells, f"{took.value:.2f} ({took.low:.2f} to {took.high:.2f})"], options.json)


if __name__ == "__main__":
    main()

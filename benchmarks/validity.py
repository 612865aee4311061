"""Is every text of a slot in its language? Schemas and expressions, presets, temperatures, backends and weights.

    python benchmarks/validity.py --out valid.jsonl                       # all 270 cells of 300 texts: hours of a core
    python benchmarks/validity.py --backend reference --weights random --only card --texts 90

Each of ten JSON schemas and twenty expressions is filled under every preset at temperatures 0, 1 and 2, `--texts` a
cell in all, on each backend and each kind of weights. The text is read off the canvas and judged by others: `json` and
`jsonschema` with its formats, or Python's `re`. *random* weights and *stubborn* ones, of which every blank wants one
and the same token with probability 1 − 1e-6 (the end token, a quote, a letter or a digit, which takes turns over the
languages), are those of a tiny trunk with a vocabulary of 300. `--out` holds the counts of each cell; the same command
goes on where it stopped, with more `--texts` too. Exit code 1 if any text is invalid.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import jsonschema
import numpy as np
from common import command_line, print_head, print_row, progress

import mdsample
from mdsample.core.template import Template
from mdsample.models.denoiser import Denoiser
from mdsample.policy.base import Policy
from mdsample.policy.presets import PRESETS
from mdsample.sampling.engine import Engine
from mdsample.sampling.prepared import prepare
from mdsample.sampling.structured import Structured

BACKENDS = ("reference", "torch", "mlx")
WEIGHTS = ("random", "tiny-gsm", "stubborn")
HEATS = ("greedy", "temperature(1)", "temperature(2)")
#: what each kind of stubborn weights wants; the first is the end token
WANTED = ("", '"', "q", "7")
#: the least that a model must want it by
DOUBT = 1e-6
#: they take as many passes as they are told to, however few blanks there are
SHORTER = {"p2": "p2(steps=16)", "diffusion-gemma": "diffusion-gemma(passes=8)"}
PROMPTS = ("Ann has 3 coins", "the cat", "Ben has 12 apples and", "sat on the mat")
SHORT = {"type": "string", "maxLength": 4}


def record(required: Mapping[str, object], **optional: object) -> dict[str, object]:
    """The schema of an object."""
    return {"type": "object", "properties": {**required, **optional}, "required": [*required]}


SCHEMAS: dict[str, dict[str, object]] = {
    "contact card": record({"name": SHORT}, phone={"type": "string", "pattern": r"^\+[0-9]{3,6}$"}),
    "function call": record(
        {
            "function": {"const": "move"},
            "arguments": record(
                {"steps": {"type": "integer", "minimum": 1, "maximum": 100}, "direction": {"enum": ["left", "right"]}}
            ),
        }
    ),
    "table row": {
        **{"type": "array", "items": False, "minItems": 3},
        "prefixItems": [SHORT, {"type": "number", "minimum": 0, "maximum": 99.99}, {"type": "boolean"}],
    },
    "email": record({"mail": {"type": "string", "format": "email"}}),
    "moment": record({"day": {"type": "string", "format": "date"}}, sure={"type": "boolean"}),
    "address": {"type": "array", "items": {"type": "string", "format": "ipv4"}, "minItems": 1, "maxItems": 1},
    "list of constants": {"type": "array", "items": {"enum": ["a", 1, None, 'q"\\é']}, "minItems": 1, "maxItems": 2},
    "set": record({"tags": {"type": "array", "items": {"enum": ["x", "y", "z"]}, "uniqueItems": True, "maxItems": 2}}),
    "kinds": record(
        {"x": {"anyOf": [{"type": "number", "exclusiveMinimum": 0.5, "maximum": 2}, SHORT, {"type": "null"}]}}
    ),
    "reference": {
        "$defs": {"p": record({"x": {"type": "integer", "multipleOf": 7, "minimum": -70, "maximum": 700}})},
        **record({"a": {"$ref": "#/$defs/p"}}, b={"$ref": "#/$defs/p"}),
    },
}
#: with `\d` and its like as ASCII; the slot has `LENGTH` tokens
EXPRESSIONS: dict[str, str] = {
    "integer": " -?[0-9]+",
    "decimal": r"-?(?:0|[1-9][0-9]{0,4})\.[0-9]{1,2}",
    "choice": "yes|no|maybe",
    "day": r"20[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])",
    "clock": "(?:[01][0-9]|2[0-3]):[0-5][0-9]",
    "words": "[a-z]{2,6}(?: [a-z]+)?",
    "letters beyond ASCII": "(?:é|日本)?[^0-9]{1,3}",
    "price": r"\$[0-9]{1,3}(?:,[0-9]{3})?\.[0-9]{2}",
    "colour": "#[0-9a-f]{6}",
    "sum": r"[0-9]{1,2}[-+*/][0-9] = -?[0-9]{1,3}",
    "boxed": r"\\boxed\{[^}\\]{1,6}\}",
    "identifier": r"[A-Za-z_]\w{0,8}",
    "numbers": r"\d(?:, \d){1,3}",
    "parity": "(?:[^a]*a[^a]*a)*[^a]*",
    "roman": "M{0,2}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{1,3})",
    "chess": "(?:[KQRBN]?[a-h]?x?[a-h][1-8](?:=[QRBN])?|O-O(?:-O)?)[+#]?",
    "marked": r"<b>[^<>]*</b>",
    "version": r"v(?:0|[1-9]\d?)(?:\.(?:0|[1-9]\d?)){2}",
    "lines": r"(?:- [a-z]+\n){1,2}",
    "exact length": ".{10}",
}
LENGTH = 10


@attrs.frozen
class Task:
    """A language in a template, the part that holds a slot to it, and who judges."""

    name: str
    template: Template
    structured: Structured | None
    pattern: str

    @staticmethod
    def of(name: str, model: Denoiser) -> Task:
        """By its name; what it stands in ends with a mark that no prompt has."""
        if name in SCHEMAS:
            structured = Structured.of(SCHEMAS[name], Template.parse("{prompt} >{answer:4}"), model.tokenizer, 8)
            return Task(name, structured.template, structured, "")
        return Task(name, Template.parse(f"{{prompt}} >{{answer:{LENGTH}}}{{other:2}}."), None, EXPRESSIONS[name])

    def policy(self, base: Policy) -> Policy:
        """Held to the language."""
        return base + mdsample.Regex(self.pattern) if self.structured is None else self.structured.policy(base)

    def fault(self, row: mdsample.Row) -> str:
        """What is wrong with a row's text; nothing if it is valid."""
        tokens, decode = row.tokens.tolist(), row.tokenizer.decode
        if row.unfilled or row.tokenizer.mask_id in tokens:
            return f"{row.unfilled} blanks left"
        if self.structured is None:
            places = np.flatnonzero(row.slot == 0).tolist()
            ends = (place for place in places if tokens[place] in row.tokenizer.ends)
            text = decode(tokens[places[0] : next(ends, places[-1] + 1)])
            return "" if re.fullmatch(self.pattern, text, re.ASCII) else f"{text!r} does not match"
        text = decode(tokens).partition(">")[2]
        try:
            check = jsonschema.Draft202012Validator(SCHEMAS[self.name], format_checker=jsonschema.FormatChecker())
            cast("Any", check).validate(json.loads(text))
        except (ValueError, jsonschema.ValidationError) as fault:
            return f"{text!r}: {fault}".partition("\n")[0]
        return ""


def run(task: Task, model: Denoiser, which: range) -> list[str]:
    """The fault of each text of a cell, by its number; all presets at all temperatures take turns."""
    engine = Engine(model, batch_size=4096)
    of: dict[int, str] = {}
    names = sorted(PRESETS)
    # each preset before any comes again, at temperatures that take turns
    ways = [(name, HEATS[(n + turn) % len(HEATS)]) for turn in range(len(HEATS)) for n, name in enumerate(names)]
    for way, (name, heat) in enumerate(ways):
        base = mdsample.parse(SHORTER.get(name, name)).without("draw") + mdsample.parse(heat)
        rows = [
            prepare(model, task.template, number, {"prompt": PROMPTS[number % len(PROMPTS)]})
            for number in which
            if number % len(ways) == way
        ]
        if rows:
            entered = engine.add(rows, mdsample.Sampler(task.policy(base)), task.template.slots)
            of |= dict.fromkeys(entered, f"{name} at {heat}")
    while engine.step():
        pass
    done = engine.finished()
    assert len(done) == len(of) == len(which)
    faults = [(of[number], row.id, task.fault(row)) for number, row in done]
    return [fault and f"{way}, row {id}: {fault}" for way, id, fault in faults]


def write_models(folder: Path) -> None:
    """The checkpoints with tiny trunks: `random`, and `stubborn-N` for each of `WANTED`."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
    from checkpoints import CONFIG, random_weights, write_checkpoint

    config = {**CONFIG, "max_sequence_length": 512}
    write_checkpoint(folder / "random", config=config)
    tokenizer = mdsample.load(folder / "random", "reference").tokenizer
    for number, wanted in enumerate(WANTED):
        weights = {
            # layers add nothing, so the mask token's own embedding is what the head sees
            name: np.ones_like(x) if x.ndim == 1 or ".wte." in name else np.zeros_like(x)
            for name, x in random_weights(config).items()
        }
        (token,) = tokenizer.encode(wanted) if wanted else [tokenizer.end_id]
        head = weights["model.transformer.ff_out.weight"]
        head[token] = (np.log(head.shape[0] / DOUBT) + 0.1) / head.shape[1]
        write_checkpoint(folder / f"stubborn-{number}", config=config, weights=weights)


def load(weights: str, backend: str, folder: Path, number: int) -> Denoiser:
    """The model of a cell; `number`: of the language, for what is wanted."""
    if weights == "tiny-gsm":
        return mdsample.load(weights, backend)
    turn = number % len(WANTED)
    model = mdsample.load(folder / (weights if weights == "random" else f"stubborn-{turn}"), backend)
    if weights == "stubborn":
        free = mdsample.sample(model, PROMPTS[0], template="{prompt}{text:4}", policy="random+top(1)")
        tokens = free.tokens[free.slot == 0].tolist()
        wanted = model.tokenizer.encode(WANTED[turn]) if WANTED[turn] else [model.tokenizer.end_id]
        assert {*tokens} == {*wanted} and all(commit.probability >= 1 - 1.1 * DOUBT for commit in free.commits)
    return model


def show(
    cells: Mapping[tuple[str, str, str], Sequence[int]], chosen: Sequence[str], columns: Sequence[tuple[str, str]]
) -> None:
    """The table: valid of all."""
    print_head(("language", *(f"{backend}, {weights}" for backend, weights in columns)))
    for name in chosen:
        print_row([name, *("{}/{}".format(*cells[name, *column]) for column in columns)])
    sums = [[sum(cells[name, *column][n] for name in chosen) for n in (0, 1)] for column in columns]
    print_row(["all", *(f"{valid}/{count}" for valid, count in sums)])


def main() -> int:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument(
        "--texts", type=int, default=300, help="of each cell; 90 are one of each preset and temperature"
    )
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="again for several; by default all")
    parser.add_argument("--weights", action="append", choices=WEIGHTS, help="again for several; by default all")
    parser.add_argument("--only", action="append", help="languages with this in their names; again for several")
    parser.add_argument("--out", type=Path, help="lines of JSON; texts that are counted there are not run again")
    told = parser.parse_args()
    names = [*SCHEMAS, *EXPRESSIONS]
    chosen = [name for name in names if not told.only or any(part in name for part in told.only)]
    columns = [(backend, weights) for weights in told.weights or WEIGHTS for backend in told.backend or BACKENDS]
    if not chosen:
        parser.error(f"no language is called so; there are: {', '.join(names)}")
    lines = told.out.read_text().splitlines() if told.out and told.out.exists() else []
    cells = {(name, *column): [0, 0] for name in chosen for column in columns}
    for line in map(json.loads, lines):
        if sums := cells.get((line["language"], line["backend"], line["weights"])):
            sums[0] += line["valid"]
            sums[1] += line["texts"]
    began, ran = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        for backend, weights in columns:
            for name in chosen:
                sums = cells[name, backend, weights]
                if sums[1] >= told.texts:
                    continue
                model = load(weights, backend, Path(folder), names.index(name))
                faults = run(Task.of(name, model), model, range(sums[1], told.texts))
                wrong = [fault for fault in faults if fault]
                line = {
                    **{"language": name, "backend": backend, "weights": weights, "texts": len(faults)},
                    **{"valid": len(faults) - len(wrong), "faults": wrong[:3]},
                }
                if told.out:
                    with told.out.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                sums[0] += line["valid"]
                sums[1] += line["texts"]
                ran += len(faults)
                rate = 60 * ran / (time.perf_counter() - began)
                progress(f"{name}, {weights} on {backend}: {sums[0]} of {sums[1]}; {rate:.0f} texts a minute")
                for fault in wrong[:3]:
                    progress(f"    {fault}")
    show(cells, chosen, columns)
    return int(any(valid < texts for name in chosen for valid, texts in [cells[name, *column] for column in columns]))


if __name__ == "__main__":
    raise SystemExit(main())

"""The golden set: jobs whose outputs are kept beside this file, so that any change of behaviour is seen.

Jobs use what users have (names of `mdsample`, `mdsample.exact` and `mdsample.testing`, and the command line), so they
outlive a move of everything inside. What cannot be the same twice (versions, times, paths) is left out, and so is what
a person reads (help, tables). `python tests/golden/jobs.py [GROUP ...]` writes the outputs anew; do that only where a
change is meant, and say in the commit which outputs changed and why.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import mdsample
from mdsample import Policy, exact, parse
from mdsample.testing import ScriptedDenoiser, Symbols

Json = Any
Job = Callable[[], Json]

FOLDER = Path(__file__).parent
#: floats are kept to so many digits; the last may be one off where a number rounds the other way
DIGITS = 6


def plain(value: object) -> Json:
    """The value as it is after JSON: floats rounded, tuples as lists, and words for what JSON has no number for."""
    match value:
        case float():
            return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else repr(value)
        case list() | tuple():
            return [plain(member) for member in value]
        case dict():
            return {str(name): plain(member) for name, member in value.items()}
        case None | bool() | int() | str():
            return value
        case _:
            raise TypeError(f"a job gives plain values; got {value!r}")


def refusal(attempt: Callable[[], object]) -> str:
    """The kind and the words of the error that an attempt ends in."""
    try:
        attempt()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


# Texts: a policy as it is written, short and in full

PARTS = """
whole | blocks | blocks(64) | blocks(size=1) | dilated | dilated(16) | dilated(8,base=4)
confidence | confidence(noise=0.5) | margin | margin(noise=1) | entropy | entropy(noise=1e-3)
position-biased | position-biased(0) | position-biased(decay=2.5)
lookahead | lookahead(4) | lookahead(2,own=0) | lookahead(k=1024,own=2.5)
left-to-right | right-to-left | random | fixed([0]) | fixed([2,0,1]) | fixed(permutation=[1,0])
top | top(4) | top(k=2147483647) | steps | steps(64) | below-entropy | below-entropy(0.3) | below-entropy(1,k=8)
entropy-bound | entropy-bound(0) | entropy-bound(0.05,k=3) | error-budget(2.5) | error-budget(total=0)
above-confidence | above-confidence(0.95) | above-confidence(1) | cumulative-confidence | cumulative-confidence(0.5)
factor | factor(1) | frechet | frechet(-0.5) | frechet(margin=0) | linear-time | linear-time(64)
remdm-reveal | remdm-reveal('loop') | remdm-reveal('rescale',eta=0.02,steps=128) | remdm-reveal(eta=none)
p2-reveal | p2-reveal(2) | p2-reveal(0.5,steps=64)
stable | stable(0.6) | stable(0.6,shift=0.015,looks=3)
greedy | temperature | temperature(0.7) | temperature(0.7,top_p=0.95) | temperature(t=1.5,top_k=40,min_p=0.05)
early-exit | early-exit(0.5) | early-exit(slot='reasoning') | early-exit(1e-9,slot="answer") | budget(8)
ended | ended('<end>') | ended("a")
ban([25]) | ban(['a','b',2]) | ban(tokens=['<end>']) | allow([0,'b','<end>']) | allow(['x','y'],slot='reasoning')
characters('abc') | characters('xyz',slot='reasoning') | choices(['yes','no']) | choices(["a"],slot='answer')
never | remdm-remask | remdm-remask('conf',limit=4) | remdm-remask('cap',eta=0.25,steps=32)
below-confidence | below-confidence(0.5) | below-confidence(0.75,limit=12) | p2-remask | p2-remask(0,steps=3,limit=1)
none | cfg | cfg(0) | cfg(2.5)
"""

PRESETS = """
llada | llada(64) | med | med(0.3) | med(0.3,k=8) | ar-med | ar-med(0.8) | ar-med(0.8,k=2) | eb | eb(0.05) | eb(1,k=4)
fast-dllm | fast-dllm(0.8) | fast-dllm-factor | fast-dllm-factor(1.5) | fast-dllm-pp | fast-dllm-pp(0)
dparallel | dparallel(0.45) | klass | klass(0.6) | klass(0.6,shift=0.015,looks=1,size=32) | dream | dream(256)
dream-entropy | dream-entropy(128) | dus | dus(64) | top-k-margin | top-k-margin(25) | top-k-margin(25,noise=0)
top-k-probability | top-k-probability(steps=10,noise=2) | remdm | remdm('rescale') | remdm('loop',steps=64)
remdm('conf',eta=0.5) | remdm(eta=0.02,steps=16) | p2 | p2(0) | p2(2,steps=64) | one-by-one
"""

SPACED = [
    "",
    "  ",
    " med ( entropy = 2e-1 , k = none )\n+ blocks ( ) ",
    "med(.5)",
    "top()",
    "early-exit(10e-1)",
    "fixed([ 1 , 0 ])",
    "whole+whole",
    r"""ended("\x41\u00e9\U0001f600\"\'\\\n\t\r")""",
    "early-exit+ended+budget(3)+ended+early-exit(0.2)",
    "ban([1])+ban([2])+ban([1])",
    "frechet(-0.0)",
    "below-entropy(1e16)",
    "entropy(noise=5e-324)",
    "position-biased(0.1000000000000000055)",
    "ban(['it\\'s'])",
]

#: for each seat what may stand there; composed policies take their parts from these
SEATS = [
    ["", "whole", "blocks(16)", "blocks(32)", "dilated(8,base=3)"],
    ["", "confidence", "margin(noise=0.5)", "entropy(noise=0.25)", "position-biased(1)", "random", "fixed([1,0,2])"],
    ["", "top(3)", "below-entropy(0.4,k=2)", "entropy-bound", "steps(7)", "stable(0.5)", "factor(2)", "linear-time(3)"],
    ["", "temperature", "greedy", "temperature(0.5,top_k=3)"],
    ["", "early-exit(0.25)", "budget(9)", "ended+early-exit", "early-exit(slot='reasoning')+budget(4)"],
    ["", "ban([2,'c'])", "choices(['a','bc'])", "characters('abc')+ban([1])", "allow([0,1,'<end>'],slot='reasoning')"],
    ["", "never", "below-confidence(0.8)", "", "remdm-remask('conf',steps=9)", "", "below-confidence(limit=3)"],
    ["", "", "cfg(0.5)", "none"],
]
COMPOSED = 150


def listed(text: str) -> list[str]:
    """The texts that `|` and line ends part."""
    return [one.strip() for one in re.split(r"[|\n]", text) if one.strip()]


def composed() -> list[str]:
    """Sums of parts of all seats, in changing order of the terms."""
    found: list[str] = []
    for number in range(COMPOSED):
        terms = [seat[number * (place + 1) % len(seat)] for place, seat in enumerate(SEATS)]
        first = number % len(terms)
        found.append("+".join(filter(None, [*terms[first:], *terms[:first]])))
    return list(dict.fromkeys(found))


def in_full(policy: Policy) -> str:
    """The policy as traces record it, or why none can be: a run of no rows takes no forward pass."""
    symbols = Symbols(26)
    canvas = mdsample.Template.parse("{reasoning:8}{answer:3}").canvas(symbols, [])
    try:
        result = mdsample.Sampler(policy).run(ScriptedDenoiser(symbols), canvas)
    except mdsample.PolicyError as error:
        return f"PolicyError: {error}"
    return saved(result)[0]["policy"]


def texts(some: Iterable[str]) -> Json:
    """Short and full text of each policy."""
    return {text: [str(parse(text)), in_full(parse(text))] for text in some}


# Errors: what is said of texts, settings and sums that mean nothing

MALFORMED = [
    *(
        "mde",
        "Early_Exit",
        "quixotic",
        "med+",
        "+med",
        "med++top",
        "med 0.2",
        "med)",
        "(",
        "med+Early_Exit(0.1)",
        "0.2",
    ),
    *(
        "med(0.2",
        "med(",
        "med(0.2,",
        "med(0.2 0.3)",
        "med[0.2]",
        "med(k=)",
        "med(=3)",
        "med(,)",
        "med(k 3)",
        "med(0.2))",
    ),
    *("med(entropy=2,kk=8)", "temperature(1,top-p=0.9)", "med+whole(size=3)", "med+whole(3)", "confidence(0.5)"),
    *("med(0.2,entropy=0.3)", "med(0.2,8)", "med(k=8,0.2)", "med(k=1,k=2)", "med+budget", "budget()", "fixed", "ban"),
    *("choices(slot='answer')", "below-entropy(-1)", "below-entropy(0)", "med(0.2,k=0)", "llada(0)", "top(2.0)"),
    *("top(true)", "blocks(2147483648)", "blocks('3')", "early-exit(0.1,slot=none)", "early-exit(0.1,slot='')"),
    *("early-exit(0.1,slot=answer)", 'early-exit(0.1,slot="answer)', "early-exit('0.1')", "early-exit(true)"),
    *(
        "fixed([1,1])",
        "fixed([])",
        "fixed([0,-1])",
        "fixed([0.0])",
        "fixed(3)",
        "ban([1,[2]])",
        "ban([1 2])",
        "ban([1,",
    ),
    *("ban([2.0])", "ban([''])", "ban(-1)", "characters('')", "choices('a')", "choices([1])", r"ended('a\q')"),
    *(r"ended('\UFFFFFFFF')", r"ended('\u12')", "ended(')", "med(1e999)", "top(" + "1" * 4400 + ")", "med(-0.2)"),
    *("med\t+\nmde", "med(٣)", "med(1_0)", "med(0x1)", "med(nan)", "med(inf)", "above-confidence(1.01)", "cfg(-1)"),
    *("above-confidence(0)", "lookahead(1)", "lookahead(1025)", "dilated(8,base=1)", "stable(0.9,looks=0)"),
    *("temperature(0)", "temperature(1,top_p=0)", "temperature(1,top_p=1.5)", "temperature(1,min_p=1)"),
    *("temperature(1,top_k=-1)", "remdm('kap')", "remdm-reveal(3)", "remdm(eta=2)", "remdm-remask(limit=0)"),
    *("p2(-1)", "p2-remask(steps=0)", "error-budget", "error-budget(-1)", "linear-time(0)", "position-biased(-0.1)"),
]

#: two parts for one seat; how much advice comes with the refusal may change
CLASHES = ["med+top(3)", "blocks(64) + ar-med", "whole+blocks", "greedy+temperature(0.5)", "cfg+none", "never+p2"]

UNFIT = [
    *("early-exit(slot='x')", "characters('abc',slot='x')", "choices(['a'],slot='x')", "allow([1],slot='x')"),
    *("fixed([1,0])", "ban(['ab'])", "ban([99])", "ban(['<none>'])", "ban([0,1,2,3,4,5,6])", "ended('xy')"),
    *("choices(['abcd'])", "choices(['a'])+choices(['b'])", "choices(['a','b'])+ban(['a','b'])", "characters('xyz')"),
    *("allow(['a'])+ban(['a'])", "allow([7])", "choices(['f'])+ban([6])", "choices(['a'])+characters('bc')"),
    *("p2-remask", "p2-remask(2)+p2-reveal", "p2+p2-remask", "choices(['ab'])+ended('a')", "choices(['z'])"),
]

TEMPLATES = [
    *("Q {prompt} {a:3", "Q {prompt}", "", "{a:0}", "{a:-1}", "{a:x}", "{a:}", "{:3}", "{a b:3}", "{1:2}", "a}b{c:1}"),
    *("{a:2}{a:3}", "{a}{a:3}", "x\ny {b:0} z", "{a:999999999}", "{{a:1}", "{a:1}}", "{}{a:1}"),
]

SETTINGS = [
    *(("Top", (0,), {}), ("Top", (2.0,), {}), ("Top", (True,), {}), ("Blocks", (2**31,), {}), ("Steps", ("3",), {})),
    *(("BelowEntropy", (-1,), {}), ("BelowEntropy", (0.2,), {"k": 0}), ("EntropyBound", (float("nan"),), {})),
    *(("Temperature", (float("inf"),), {}), ("Fixed", ([1, 1],), {}), ("EarlyExit", (0.1,), {"slot": 3})),
    *(("Choices", ("yes",), {}), ("Ban", ([],), {}), ("RemdmRemask", ("kap",), {}), ("Lookahead", (1,), {})),
    ("ChainRule", (mdsample.Lookahead(),), {}),
]


def malformed() -> Json:
    """The whole error, caret included."""
    return {text: refusal(partial(parse, text)) for text in MALFORMED}


def clashes() -> Json:
    """Only that it is an error, and its kind."""
    in_python = refusal(lambda: mdsample.Top(1) + mdsample.Steps(2))
    found = {text: refusal(partial(parse, text)) for text in CLASHES} | {"Top(1) + Steps(2)": in_python}
    return {text: said.partition(":")[0] for text, said in found.items()}


def unfit() -> Json:
    """Policies that can be read and do not fit the canvas or the model."""
    model = ScriptedDenoiser(Symbols(6))
    canvas = mdsample.Template.parse(LAYOUT).canvas(model.tokenizer, ROWS)
    return {text: refusal(partial(mdsample.Sampler(parse(text)).run, model, canvas)) for text in UNFIT}


def unread_templates() -> Json:
    """The whole error, caret included."""
    return {text: refusal(partial(mdsample.Template.parse, text)) for text in TEMPLATES}


def settings_in_python() -> Json:
    """What parts and methods say of settings that they do not take."""
    makers = [(name, partial(getattr(mdsample, name), *given, **more)) for name, given, more in SETTINGS]
    return [[name, refusal(maker)] for name, maker in makers]


# Canvases: texts, fields and given slots as tokens

#: texts of fields, and of given slots
TOLD: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"prompt": "abc", "more": ""}, {}),
    ({"prompt": "", "more": "de"}, {"answer": "a"}),
    ({"prompt": "fa<end>", "more": "<|endoftext|> 12"}, {}),
    ({"prompt": "abc"}, {"answer": "b"}),
    ({"prompt": "a"}, {"answer": "abcdefabcdef"}),
    ({"prompt": "a"}, {"prompt": "a"}),
    ({"prompt": "a", "reasoning": "b"}, {"other": "a"}),
    ({}, {}),
    ({}, {"answer": "ba"}),
]


def canvases() -> Json:
    """How templates and rows become tokens, and what rows they refuse."""
    gsm, toy = mdsample.load("tiny-gsm", "reference").tokenizer, Symbols(6)
    layouts = {
        "Question: {prompt}\nReasoning:{reasoning:9}\nAnswer:{answer:4}": gsm,
        "<|startoftext|>{prompt} {{and}} <|endoftext|>{prompt}{more}{answer:2} é {rest:3}": gsm,
        "{prompt}ab{reasoning:4}c{answer:2}def": toy,
        "{answer:2}": toy,
    }
    found: dict[str, Json] = {}
    for text, tokenizer in layouts.items():
        layout = mdsample.Template.parse(text)
        found[text] = [layout.slots, layout.fields, str(layout)]
        for fields, given in TOLD:
            made: list[mdsample.Canvas] = []
            said = refusal(lambda: made.append(layout.canvas(tokenizer, [fields], ["x"], [given])))  # noqa: B023
            arrays = [array[0].tolist() for one in made for array in (one.tokens, one.slot, one.blank.astype(int))]
            found[text].append([fields, given, said, *arrays])
    return found


# Runs on the scripted toy

POLICIES = """
top(2) | whole+steps(3) | blocks(4)+steps(5) | blocks(1) | blocks(3)+top(2)+temperature
llada(6) | med | med(0.6) | med(1.2,k=2) | ar-med(0.6) | eb | eb(0.7,k=3) | fast-dllm(0.75) | fast-dllm-factor
fast-dllm-factor(1.5) | fast-dllm-pp | fast-dllm-pp(-0.5) | dparallel | klass | klass(0.4,shift=1,looks=1,size=6)
klass(0.2,shift=2,looks=2) | dream(6) | dream-entropy(5) | dus(4) | top-k-margin(5) | top-k-probability(4,noise=1)
remdm(eta=0.3,steps=8) | remdm('rescale',eta=0.7,steps=8) | remdm('conf',steps=8) | remdm('loop',eta=0.3,steps=16)
p2(steps=14) | p2(3,steps=9)+temperature | p2(0,steps=6) | one-by-one
dilated(8)+eb(0.5) | dilated(9,base=3)+steps(1)+temperature
confidence(noise=0.5)+top(2)+temperature(0.7) | margin+top(3) | margin(noise=1)+below-entropy(0.5)
entropy(noise=0.3)+above-confidence(0.6) | position-biased(0.1)+top(2) | position-biased(2)+steps(4)
lookahead(3) | lookahead(4,own=0)+below-entropy(0.9) | lookahead(2,own=2)+steps(4)+temperature | lookahead(3)+cfg
left-to-right+cumulative-confidence(0.3) | right-to-left+above-confidence(0.4) | random+top(3)+temperature
error-budget(0.9) | error-budget(3)+temperature+whole | cumulative-confidence(0.3)+confidence | linear-time(4)
stable(0.35,shift=1.5,looks=1)+temperature | remdm-reveal(steps=5) | p2-reveal(0.5,steps=5)
temperature(0.5,top_k=3) | temperature(1.5,top_p=0.8)+steps(4) | temperature(2,min_p=0.2)
temperature(0.9,top_p=0.9,top_k=4,min_p=0.05)+top(2)
early-exit(1) | early-exit(2.5,slot='reasoning')+temperature | budget(3) | budget(6)+cfg(0.5)+temperature
ended+temperature(2)+top(2) | ended('a')+temperature | early-exit(0.8)+budget(4)+ended
ban([0,'b','<end>'])+temperature+top(2) | allow(['a','c','<end>'])+temperature | characters('abd',slot='reasoning')+eb
choices(['a','bc','cab'])+top(3)+temperature | choices(['bc','cab','e'])+ban(['e'])+steps(2)
choices(['a','f'])+early-exit
below-confidence+steps(4) | below-confidence(0.7,limit=3)+blocks(6)+top(3) | below-confidence(0.99)+linear-time(3)
remdm-remask('conf',steps=6)+med(0.8) | remdm-remask(eta=0.4,steps=20,limit=2)+top(2)+early-exit(0.7)
cfg(1)+med | cfg(0)+top(2) | cfg(2.5)+steps(4)+temperature
"""

#: policies that are also run where the default block ends before the row does
LONG = (
    "llada(20) | med(0.7) | klass(0.4,shift=1,looks=1) | dus | ended+temperature(1.5)+top(3) | p2(steps=12)+early-exit"
)
#: policies that are also run where all tokens that may stand are equally likely: two, one, or as they come. So places
#: tie, and statistics lie on the thresholds themselves: entropies ln 2 as float32 has it, or 0, probabilities 1
TWO = "allow(['a','b'])+allow(['d','e'],slot='reasoning')"
ONE = "allow(['b'])+allow(['c'],slot='reasoning')"
LN2, THRICE = 0.6931471824645996, 2.0794415473937988
EDGES = [
    *(f"below-entropy({LN2})+{TWO}", f"entropy-bound({LN2})+{TWO}", f"early-exit({THRICE})+{TWO}"),
    *(f"{rule}+{ONE}" for rule in ("above-confidence(1)", "cumulative-confidence(1)", "frechet(1)", "eb(0)")),
    *(f"{rule}+{ONE}" for rule in ("error-budget(0)", "below-confidence(1)+steps(3)", "klass(1,shift=1e-9,looks=1)")),
    *("confidence+top(3)", "margin+top(3)", "entropy+top(3)", "position-biased(0)+top(3)", "lookahead(4)+top(2)"),
    *("p2(steps=5)", "below-confidence(0.5)+steps(4)", "random+top(4)+temperature", "dilated(5)+steps(1)"),
]
#: every row has as many blanks as this order has members
FIXED = ["fixed([10,0,9,1,8,2,7,3,6,4,5])+top(2)", "fixed([0,2,4,6,8,10,1,3,5,7,9])+below-entropy(0.8)+temperature"]
LAYOUT = "{q}{reasoning:8}c{answer:3}"
ROWS = [{"q": "a"}, {"q": "bcda"}, {"q": ""}]
GIVEN = [{"answer": "b"}, {"reasoning": "abcab"}]


def ran(
    text: str,
    seed: int = 0,
    layout: str = LAYOUT,
    given: Sequence[dict[str, str]] | None = None,
    sharpness: float = 3.0,
) -> mdsample.Result:
    """A run of rows of unequal length, as many as bring a slot or else all; model and sampler have one seed."""
    model = ScriptedDenoiser(Symbols(6), seed=seed, sharpness=sharpness)
    number = len(given or ROWS)
    canvas = mdsample.Template.parse(layout).canvas(model.tokenizer, ROWS[:number], [0, "one", 2][:number], given)
    return mdsample.Sampler(parse(text), seed=seed).run(model, canvas)


def row(found: mdsample.Row, priced: bool) -> Json:
    """A row as far as a policy decides it; the forward passes unless their price is about to be corrected."""
    commits = found.commits
    return {
        "tokens": found.tokens.tolist(),
        **({"nfe": found.nfe} if priced else {}),
        "steps": found.steps,
        "outcome": f"{found.outcome.name}: {found.outcome.sentence}",
        "filled": [found.filled, found.unfilled],
        "bounds": [found.error_bound, found.tv_bound],
        "step": [commit.step for commit in commits],
        "position": [commit.position for commit in commits],
        "token": [commit.token for commit in commits],
        "probability": [commit.probability for commit in commits],
        "entropy": [commit.entropy for commit in commits],
        "ruled": [number for number, commit in enumerate(commits) if commit.by_rule],
    }


def run(text: str, number: int) -> Json:
    """A policy on rows with nothing given, and on rows that bring a slot; the policy's number is the seed."""
    priced = "lookahead" not in text
    free = [row(one, priced) for one in ran(text, number % 5).rows]
    if text in FIXED:
        return {"free": free}
    given = ran(text, number % 5 + 1, given=GIVEN)
    return {"free": free, "given": [briefly(row(one, priced)) for one in given.rows]}


def briefly(told: Json) -> Json:
    """A row without its commits' numbers, on which its bounds depend anyway."""
    return {name: value for name, value in told.items() if name not in ("token", "probability", "entropy")}


def long_run(text: str) -> Json:
    """A policy on 44 blanks, three slots parted by fixed text."""
    result = ran(text, 3, "{q}{reasoning:20}c{more:20}d{answer:4}")
    return [briefly(row(one, priced=True)) for one in result.rows]


def edge_run(text: str) -> Json:
    """A policy on the toy whose scores are all equal."""
    result = ran(text, 1, given=[{}, {"answer": "ab"}], sharpness=0)
    return [briefly(row(one, "lookahead" not in text)) for one in result.rows]


def texts_of_rows() -> Json:
    """What rows say of themselves beside their tokens."""
    found: list[Json] = []
    for text in ("med(0.6)", "temperature(2)+ended", "early-exit(1)"):
        result = ran(text, 1, "{q}{reasoning:5}<end>c{answer:4}", [{}, {"answer": "ab"}, {}])
        told = [[one.id, one.text, one.slots, one.slot.tolist(), one.tokens_per_forward] for one in result.rows]
        found.append([result.seed, result.model, result.backend, result.cache, result.approximate, told])
    return found


# Traces, as they are saved and as they replay

TRACED = """
med(0.6) | one-by-one | klass(0.4,shift=1,looks=1,size=6) | remdm(eta=0.3,steps=8) | p2(2,steps=9)
early-exit(1)+budget(5)+temperature | ended+temperature(2)+top(2) | choices(['a','bc','cab'])+top(3)+cfg
"""


def saved(result: mdsample.Result) -> list[Json]:
    """The lines of the result's trace, without the versions that made it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        mdsample.Trace.of(result).save(path)
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    del lines[0]["versions"]
    return lines


def replayed(lines: Sequence[Json]) -> Json:
    """What a trace of these lines replays to."""
    header, *rest = lines
    whole = [{**header, "versions": {"mdsample": mdsample.__version__, "numpy": np.__version__}}, *rest]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in whole), encoding="utf-8")
        trace = mdsample.Trace.load(path)
    last = trace.replay()
    return {
        "about": [trace.policy, trace.seed, trace.model, trace.backend, trace.cache, trace.mask_id],
        "rows": [list(trace.canvas.ids), list(trace.canvas.names), trace.canvas.slot.tolist()],
        "states": len(list(trace.states())),
        "tokens": last.tokens.tolist(),
        "blank": last.blank.astype(int).tolist(),
        "written": last.written.tolist(),
        "step": last.step.tolist(),
        "nfe": last.nfe.tolist(),
        "active": last.active.tolist(),
        "error_bound": last.error_bound.tolist(),
    }


def trace(text: str, number: int) -> Json:
    """The saved lines and the replay."""
    lines = saved(ran(text, number, given=GIVEN if number % 2 else None))
    return {"lines": lines, "replay": replayed(lines)}


# Exact laws

_CHAIN = [[0.7, 0.2, 0.1], [0.05, 0.05, 0.9], [0.25, 0.6, 0.15]]
WORLDS: dict[str, Callable[[], exact.Toy]] = {
    "coupled": lambda: exact.coupled(0.7, seed=13, length=4),
    "three": lambda: exact.coupled(0.7, seed=13, length=3),
    "chain": lambda: exact.MarkovChain([3, 2, 1], _CHAIN, 4),
    "hidden": lambda: exact.HiddenMarkov([2, 1], [[9, 1], [1, 6]], [[0.9, 0.08, 0.02], [0.05, 0.15, 0.8]], 4),
    "digits": lambda: exact.reasoning(3, 3, seed=7),
    "nae": lambda: exact.nae_sat(4, 2, seed=1),
    **{name: exact.TOYS[name] for name in ("coupled-weak", "coupled-strong", "same-word", "sudoku4", "reasoning-sum")},
}
LAWS = {
    "coupled": """
        whole+med(0.6)+temperature | whole+eb(0.5)+temperature | whole+fast-dllm(0.6)+temperature
        whole+fast-dllm-factor(1)+temperature | whole+steps(2)+temperature | whole+error-budget(0.5)+temperature
        whole+fast-dllm-pp+temperature | whole+cumulative-confidence(0.4)+temperature | one-by-one | llada(3) | dream(3)
        top-k-margin(3) | klass(0.5,shift=0.1,looks=1)+temperature | below-confidence(0.5,limit=2)+steps(2)+temperature
        p2(1,steps=5)+temperature | lookahead(3,own=0)+top(2)+temperature | temperature(0.5,top_p=0.9)+steps(2)
        temperature(2,top_k=2)+med(0.7) | ban([1])+steps(2)+temperature | budget(2)+temperature | dus(4)+temperature
    """,
    "three": """
        remdm(eta=0.3,steps=3) | remdm('rescale',eta=0.9,steps=3) | remdm-remask('conf',steps=4,limit=1)+temperature
        p2(2,steps=4)+temperature | below-confidence+whole+top(2)+temperature | remdm('loop',eta=0.5,steps=3)
    """,
    "chain": """
        one-by-one | ar-med(0.95)+temperature | entropy(noise=0.5)+top(2)+temperature | blocks(2)+eb(0.9)+temperature
        margin+top(2)+temperature | position-biased+top(2)+temperature | fixed([3,0,2,1])+top(2)+temperature
        right-to-left+steps(2)+temperature | ended('0')+temperature+top(2)
    """,
    "hidden": "med(0.8)+temperature | random+linear-time(2)+temperature | temperature(1,min_p=0.3)+eb(1)",
    "digits": """
        early-exit(0.3)+temperature | early-exit(0.6)+eb(0.3)+temperature | choices(['0','2'])+top(2)+temperature
        characters('01',slot='reasoning')+temperature+steps(2) | early-exit(0.9,slot='reasoning')+budget(2)+temperature
    """,
    "nae": "med(0.6)+temperature | eb(0.7)+temperature | left-to-right+steps(3)+temperature",
    "coupled-weak": "med(0.9)+temperature+whole",
    "coupled-strong": "eb(0.3)+temperature",
    "same-word": "steps(2)+temperature | med+temperature",
    "sudoku4": "eb+temperature | llada(4) | fast-dllm(0.6)+temperature | cfg(1.5)+top(2)+temperature",
    "reasoning-sum": "early-exit(0.5)+med(0.5)+temperature",
}
#: outcomes that are less likely may be rounding alone
_LEAST = 1e-6
_LIMIT = 200_000


def law(world: str, text: str) -> Json:
    """All that an exact law says; outcomes in the order of their tokens, `_` for a blank."""
    toy = WORLDS[world]()
    found = exact.law(parse(text), toy, limit=_LIMIT)
    return {
        **told_law(found, "lookahead" not in text),
        "kl": exact.kl(toy, found),
        "tv": exact.tv(toy, found),
    }


def told_law(found: exact.Law, priced: bool) -> Json:
    """The law, its expected forward passes unless their price is about to be corrected."""
    signs = {found.mask_id: "_"}
    rows = {"".join(signs.get(t, str(t)) for t in tokens): p for tokens, p in sorted(found.outcomes.items())}
    return {
        **({"expected_nfe": found.expected_nfe} if priced else {}),
        "kl_bound": found.kl_bound,
        "tv_bound": found.tv_bound,
        "left": dict(sorted(found.left.items())),
        "filled": found.filled.astype(int).tolist(),
        "outcomes": {tokens: p for tokens, p in rows.items() if p > _LEAST},
    }


def law_of_a_model() -> Json:
    """The law on a model that is no toy, so that nothing is promised of it."""
    model = ScriptedDenoiser(Symbols(2), seed=4)
    canvas = mdsample.Template.parse("b{reasoning:3}a{answer:1}").canvas(model.tokenizer, [{}])
    policies = ("one-by-one", "early-exit(0.8)+temperature", "ended+steps(2)+temperature", "cfg+med(0.7)+temperature")
    return {text: told_law(exact.law(parse(text), model, canvas, limit=_LIMIT), priced=True) for text in policies}


# Audits: rules against one another on the toys


def audits() -> Json:
    """Every toy under a few policies."""
    policies = ["one-by-one", "whole+med+temperature", "whole+eb(0.3)+temperature", "llada(2)"]
    found: dict[str, Json] = {}
    for name in ("product", "coupled", "coupled-strong", "sudoku4", "same-word", "nae-sat", "reasoning"):
        rows = exact.audit(policies, exact.TOYS[name](), limit=_LIMIT)
        found[name] = [[r.policy, r.kl, r.tv, r.expected_nfe, r.kl_bound, r.tv_bound] for r in rows]
    return found


def frontier() -> Json:
    """Points of some rules, and what their hulls reach; settings stand in the points' texts, so these are left out."""
    toy = exact.coupled(1.5, seed=3, length=4)
    rules = [rule for rule in exact.RULES if not rule.name.startswith("lookahead")]
    points = exact.frontier(toy, rules=rules, values=4, limit=_LIMIT)
    reached = exact.at_equal_nfe(points, [1.5, 2, 3])
    return {
        "rules": [rule.name for rule in exact.RULES],
        "points": [[point.rule, point.expected_nfe, point.kl, point.tv] for point in points],
        "reached": {name: values.tolist() for name, values in reached.items()},
        "hull": [part.tolist() for part in exact.hull([1, 2, 3, 4, 5], [9.0, 4.0, 3.5, 1.0, 2.0])],
    }


# Scores


def scores() -> Json:
    """Candidates in a slot by every method, on the scripted toy."""
    model = ScriptedDenoiser(Symbols(6), seed=6)
    layout = mdsample.Template.parse(LAYOUT)
    candidates = [["a", "bc", "cab", ""], ["b", "bca"], ["f", "ef", "def"]]
    methods = [
        None,
        *map(mdsample.ChainRule, (mdsample.Entropy(), mdsample.Margin(), mdsample.RightToLeft())),
        mdsample.ChainRule(mdsample.Random(), seed=5),
        mdsample.ChainRule(mdsample.Confidence(noise=0.5), seed=1),
        mdsample.MarginalProduct(),
        mdsample.MonteCarloBound(6, seed=2),
    ]
    found: dict[str, Json] = {}
    for number, method in enumerate(methods):
        given = [{}, {"reasoning": "abc"}, {}] if number % 2 else None
        told = mdsample.score(
            model, layout, ROWS, "answer", candidates, method=method, given=given, ids=[7, "x", 0], batch_size=4
        )
        found[f"{number} {method}"] = [
            {
                "row": [one.id, one.slot, one.nfe, one.best.text],
                "shares": one.shares,
                "candidates": [
                    [c.text, c.tokens, c.log_probability, c.standard_error, c.samples] for c in one.candidates
                ],
            }
            for one in told
        ]
    return found


def score_refusals() -> Json:
    """What cannot be scored."""
    model, layout = ScriptedDenoiser(Symbols(6)), mdsample.Template.parse(LAYOUT)

    def scored(slot: str = "answer", candidates: Any = ("a",), given: Any = None) -> object:
        return mdsample.score(model, layout, ROWS, slot, candidates, given=given)

    return {
        "no such slot": refusal(lambda: scored("x")),
        "a field": refusal(lambda: scored("q")),
        "too long": refusal(lambda: scored(candidates=["abcd"])),
        "one text": refusal(lambda: scored(candidates="abc")),
        "twice": refusal(lambda: scored(candidates=["a", "a"])),
        "none": refusal(lambda: scored(candidates=[])),
        "two lists": refusal(lambda: scored(candidates=[["a"], ["b"]])),
        "a mixture": refusal(lambda: scored(candidates=["a", ["b"]])),
        "given too": refusal(lambda: scored(given=[{"answer": "a"}, {}, {}])),
        "no rows for it": refusal(lambda: scored(given=[{}])),
    }


# The command line

Call = Sequence[str] | tuple[Sequence[str], str]
#: in one thread, since threads of several tests on few cores wait for one another
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: 15 blanks, so that quarters of a reasoning have to be rounded
GSM = "Question: {prompt}\nReasoning:{reasoning:15}\nAnswer:{answer:3}"
REFERENCE = ("--backend", "reference", "-t", GSM)
PROMPT = "Ann has 3 coins. Ben has 4 more than Ann. How many coins does Ben have?"
PROBLEMS = [
    {"id": "a", "prompt": PROMPT, "answer": " 7", "some": [" 7", " 12"], "start": " Ben has"},
    {
        "prompt": "Cem has 12 pens. Ida has twice as many as Cem. How many pens does Ida have?",
        "answer": 24,
        "some": ["2"],
    },
    {"id": 9, "prompt": "Leo has 5 apples. Gus has 30.", "answer": "35", "some": [" 35", " 25", " 6"], "start": ""},
]
INPUT = "".join(json.dumps(problem) + "\n" for problem in PROBLEMS)
#: exit code of a command that cannot mean anything
WRONG = 2
#: what no two runs have in common, and what records did not say when the set was made
LEFT_OUT = ("versions", "seconds", "input", "text_with_blanks")


def ask(*calls: Call, files: dict[str, str] | None = None, keep: Sequence[str] = ()) -> list[Json]:
    """What these commands give, one after the other in an empty folder and one process of their own.

    Each gives its exit code, its JSON lines, and, if it cannot mean anything, what it says of that. At last come the
    JSON lines of the files named in `keep`. A call is its arguments, or these and what it reads from standard input.
    """
    told = [call if isinstance(call, tuple) and isinstance(call[0], (list, tuple)) else (call, "") for call in calls]
    with TemporaryDirectory() as folder:
        for name, text in (files or {}).items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        # the same modules as here, wherever the process stands
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        process = subprocess.run(
            [sys.executable, __file__, "--serve"],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
        )
        if process.returncode:
            raise RuntimeError(process.stderr)
        found: list[Json] = []
        for code, out, err in json.loads(process.stdout):
            found.append([code, lines_of(out), *([err] if code == WRONG else [])])
        found += [lines_of((Path(folder) / name).read_text(encoding="utf-8")) for name in keep]
    return found


def lines_of(text: str) -> list[Json]:
    """JSON lines, without what no two runs have in common."""
    rows = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in one.items() if name not in LEFT_OUT} for one in rows]


def serve() -> None:
    """Runs the calls that stand in standard input, as `python -m mdsample_cli` would, and prints what they gave."""
    calls, found = json.load(sys.stdin), []
    for arguments, given in calls:
        out, err, code = io.StringIO(), io.StringIO(), 0
        sys.argv, sys.stdin = ["mdsample", *arguments], io.TextIOWrapper(io.BytesIO(given.encode()))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_module("mdsample_cli", run_name="__main__")
            except SystemExit as stop:
                code = stop.code
        found.append([code, out.getvalue(), err.getvalue()])
    json.dump(found, sys.stdout)


def run_of_a_prompt() -> Json:
    """The model's sample problem and a prompt, with the model's own template and policy and with others."""
    fill = ("--fill", "reasoning= Ben has 3 + 4 = 7.", "--seed", "3", "-p", "one-by-one")
    return ask(
        ["run", "--json", "--backend", "reference"],
        ["run", "--json", "--backend", "reference", PROMPT],
        ["run", "--json", *REFERENCE, "--steps", "5", PROMPT],
        ["run", "--json", *REFERENCE, *fill, PROMPT],
        ["run", "--json", *REFERENCE, "--policy-file", "policy.toml", PROMPT],
        ["run", "--json", *REFERENCE, "--watch", "answer", "-p", "steps(4)+whole", PROMPT],
        ["run", "--json", *REFERENCE[:2], "-t", "@layout.txt", "-p", "top(2)+choices([' cat',' dog'],slot='noun')"],
        files={
            "policy.toml": "[policy]\norder = 'random'\nselection = { top = { k = 3 } }\nstops = ['budget(4)']\n",
            "layout.txt": "The {noun:3} sat on {more:4}.\n",
        },
    )


def run_of_rows(policy: str) -> Json:
    """Three rows from a file, written to another; and once more two at a time, with the answer's slot watched."""
    run = ["run", *REFERENCE, "-i", "rows.jsonl", "-p", policy, "--seed", "2"]
    whole = ask([*run, "-o", "out.jsonl"], files={"rows.jsonl": INPUT}, keep=["out.jsonl"])
    first = sorted(whole[1], key=lambda record: str(record["id"]))
    watch = ["--json", "--batch-size", "2", "--watch", "answer", "--expect-from", "answer"]
    watched = ask([*run, *watch], files={"rows.jsonl": INPUT})
    return [whole[0], first, [[one["id"], one["text"], one["nfe"], one["along"]] for one in watched[0][1]]]


def run_that_resumes() -> Json:
    """Records are gone on with, and refused where they are another job's."""
    run = ["run", *REFERENCE, "-p", "steps(3)", "-i", "rows.jsonl", "-o", "out.jsonl"]
    two = "".join(json.dumps(problem) + "\n" for problem in PROBLEMS[:2])
    return ask(
        ["run", *REFERENCE, "-p", "steps(3)", "-i", "two.jsonl", "-o", "out.jsonl"],
        [*run, "--json"],
        [*run, "--seed", "1"],
        ["run", *REFERENCE, "-p", "steps(4)", "-i", "rows.jsonl", "-o", "out.jsonl"],
        ["run", *REFERENCE, "-p", "steps(3)", "-i", "other.jsonl", "-o", "out.jsonl"],
        files={"rows.jsonl": INPUT, "two.jsonl": two, "other.jsonl": INPUT.replace("Ann", "Eve")},
    )


def run_of_bad_rows() -> Json:
    """Rows that cannot be answered do not keep the others from it."""
    bad = '{"id": "a", "prompt": "Ann"}\nno json\n\n{"prompt": 3}\n{"text": "x"}\n[1]\n{"id": 1.5, "prompt": "x"}\n'
    bad += '{"id": "a", "prompt": "again"}\n{"id": 8, "prompt": "Ann", "start": " Ann has 3 + 4 + 5 + 6 + 7 + 8 + 9"}\n'
    run = ["run", *REFERENCE, "-p", "steps(2)", "-i", "-", "--json"]
    return ask(
        (run, bad), ([*run, "--fill-from", "reasoning=start"], bad), (run, "Ann has 3.\nBen has 4.\n"), (run, "\n")
    )


def traced_run() -> Json:
    """A run with a trace, its replay, and the judgement of its reasonings."""
    judge = ["judge", "trace.jsonl", "--backend", "reference", "--json"]
    return ask(
        ["run", *REFERENCE, "-i", "rows.jsonl", "-p", "med(0.5)+temperature(0.8)", "--trace", "trace.jsonl", "--json"],
        ["replay", "trace.jsonl", "--json"],
        ["replay", "trace.jsonl", "--row", "9", "--json"],
        ["replay", "trace.jsonl", "--row", "x"],
        judge,
        [*judge, "--by", "step", "--answer", " 7"],
        [*judge, "--by", "token", "--slot", "reasoning", "--answer", " Ben"],
        [*judge, "--by", "word"],
        files={"rows.jsonl": INPUT},
        keep=["trace.jsonl"],
    )


def command_scores() -> Json:
    """Every method of scoring."""
    one = ["score", *REFERENCE, "--json", PROMPT, "--choices", " 7, 12,7, 1"]
    rows = ["score", *REFERENCE, "--json", "-i", "rows.jsonl", "--choices-from", "some"]
    return ask(
        one,
        [*one, "--order", "entropy"],
        [*one, "--order", "random", "--seed", "4"],
        [*one, "--method", "marginals"],
        [*one, "--method", "bound", "--samples", "6"],
        [*one, "--fill", "reasoning= 3 + 4 = 7."],
        rows,
        [*rows, "--fill-from", "reasoning=start"],
        [*rows, "--method", "marginals", "--batch-size", "2"],
        files={"rows.jsonl": INPUT},
    )


def command_traces() -> Json:
    """Reasonings given the answer."""
    some = ["traces", *REFERENCE, "-i", "rows.jsonl", "-n", "2", "--seed", "1"]
    return ask(
        some,
        [*some, "--keep", "best:1", "--keep-by", "last", "-p", "steps(4)+temperature(2)", "-o", "out.jsonl"],
        [*some, "--keep", "best:1", "--min-score", "-0.5", "--answer-as", " {}"],
        files={"rows.jsonl": INPUT},
        keep=["out.jsonl"],
    )


def command_bench() -> Json:
    """Three problems under three policies, the answers that are kept, and the problems that were not solved."""
    bench = ["bench", *REFERENCE, "--limit", "3", "--json"]
    gold = ("--answer-field", "gold")
    three = ["-p", "entropy+top(1)", "-p", "med(0.4)+early-exit", "-p", "steps(4)"]
    return ask(
        [*bench, *three, "-o", "answers.jsonl"],
        [*bench, "-p", "steps(3)", "-o", "other.jsonl"],
        ["rows", "--limit", "4", "--wrong", "other.jsonl"],
        ["rows", "--limit", "4", "--wrong", "answers.jsonl"],
        ["bench", "--task", "sudoku6", "--limit", "1", "--json", "-p", "steps(3)", "--backend", "reference"],
        ["bench", "--task", "mine.jsonl", "-t", "{q}: {answer:3}", *gold, "-p", "med", "--json", *REFERENCE[:2]],
        files={"mine.jsonl": '{"q": "Ann", "gold": "x"}\n{"q": "Ben", "gold": 3}\n'},
        keep=["answers.jsonl"],
    )


def command_calibrate() -> Json:
    """Each kind of loss."""
    calibrate = ["calibrate", "med(?)", *REFERENCE, "--limit", "3", "--json", "-o", "answers.jsonl"]
    return ask(
        [*calibrate, "--error-bound", "2.5", "--values", "0.05,0.4,1.5"],
        [*calibrate, "--disagreement", "0.99", "--values", "0.05,0.4", "--confidence", "0.6"],
        [*calibrate, "--accuracy-loss", "0.8", "--values", "0.05", "--reference", "steps(4)"],
        [*calibrate, "--error-bound", "1e-9"],
    )


EXPLAINED = [
    *("", "med(0.2)+early-exit(0.1)", "eb(0.05)+blocks(64)+temperature(0.7,top_p=0.95)", "p2(2,steps=64)"),
    *("klass(0.6)+ban([3,'a'])+ban([5])+cfg", "remdm('loop')+budget(99)", "fixed([2,0,1])+choices(['yes','no'])"),
    *("lookahead(4)+below-entropy(0.2)+ended+allow(['a'])", "position-biased+error-budget(2)+below-confidence"),
]
#: sentences for people, which may be worded anew
PROSE = ("summary", "about", "sources", "description")


def without_prose(value: Json) -> Json:
    """The structure and the names in it."""
    if isinstance(value, dict):
        return {name: without_prose(member) for name, member in value.items() if name not in PROSE}
    return [without_prose(member) for member in value] if isinstance(value, list) else value


def command_menus() -> Json:
    """The menu, what policies mean, a task's rows, and what a checkpoint is: names and numbers."""
    policies, inspected, *others = ask(
        ["policies", "--json"],
        ["inspect", "tiny-gsm", "--json", "--backend", "reference"],
        *(["explain", "--json", text] for text in EXPLAINED),
        ["rows", "--limit", "2"],
        ["rows", "--task", "sudoku6", "--limit", "1", "--answer-as", "= {}."],
        ["audit", "--toy", "list", "--json"],
    )
    del inspected[1][0]["runs"]  # which devices there are
    return without_prose([policies, inspected, *others])


def command_audit() -> Json:
    """Exact numbers; policies without a draw are given one."""
    return ask(
        ["audit", "--json"],
        ["audit", "--json", "--toy", "same-word", "-p", "med", "-p", "whole+top(4)", "-p", "med+greedy"],
        [
            "audit",
            "--json",
            "--toy",
            "reasoning",
            "-p",
            "early-exit(0.3)",
            "-p",
            "steps(2)+whole",
            "-p",
            "remdm(steps=3)",
        ],
    )


REFUSED: list[list[str]] = [
    ["run", "-p", "med(0.2", "hi"],
    ["run", "-p", "mde", "hi"],
    ["run", "-p", "early-exit(slot='x')", "--backend", "reference", "hi"],
    ["run", "-p", "med", "--policy-file", "x", "hi"],
    ["run", "--policy-file", "wrong.toml", "hi"],
    ["run", "--policy-file", "absent", "hi"],
    ["run", "-t", "Q {prompt} {a:3", "hi"],
    ["run", "-t", "Q {prompt}", "hi"],
    ["run", "-t", "{a}{b}{answer:2}", "--backend", "reference", "hi"],
    ["run", "-t", "{prompt}{answer:900}", "--backend", "reference", "hi"],
    ["run", "--fill", "x=1", "--backend", "reference", "hi"],
    ["run", "--fill", "answer", "hi"],
    ["run", "--fill-from", "answer=gold", "hi"],
    ["run", "--watch", "x", "--backend", "reference", "hi"],
    ["run", "-i", "absent"],
    ["run", "-i", "-", "hi"],
    ["run", "-i", "-", "--live"],
    ["run", "-i", "rows.jsonl", "-o", "rows.jsonl"],
    ["run", "--trace", "wrong.toml", "hi"],
    ["run", "-o", "none/x", "--backend", "reference", "hi"],
    ["run", "--model", "none/", "--backend", "reference", "hi"],
    ["run", "--system", "x", "--no-chat", "hi"],
    ["score", "hi"],
    ["score", "hi", "--choices", "a", "--method", "x"],
    ["score", "hi", "--choices", "a", "--order", "med"],
    ["score", "hi", "--choices", "a,a", "--backend", "reference"],
    ["score", "hi", "--choices", "a", "--slot", "x", "--backend", "reference"],
    ["score", "hi", "--choices", "a", "--method", "bound", "--order", "entropy"],
    ["judge", "absent"],
    ["traces", "-i", "absent", "--keep", "best:0"],
    ["traces", "-i", "absent", "--answer-as", "x"],
    ["traces", "-i", "rows.jsonl", "--slot", "x", "--backend", "reference"],
    ["bench", "--task", "x"],
    ["bench", "--task", "gsm8k"],
    ["bench", "--task", "x.jsonl"],
    ["bench", "--limit", "1001", "--backend", "reference"],
    ["bench", "--limit", "1", "-p", "fast-dllm", "-p", "confidence+above-confidence(0.9)"],
    ["bench", "--plot", "x.gif"],
    ["bench", "--limit", "1", "-t", "{prompt}{reasoning:4}", "--backend", "reference"],
    ["calibrate", "med(?)"],
    ["calibrate", "med", "--disagreement", "0.1"],
    ["calibrate", "med(?)", "--disagreement", "0.1", "--values", "a"],
    ["calibrate", "steps(?)", "--disagreement", "0.1"],
    ["audit", "--toy", "x"],
    ["audit", "-p", "early-exit"],
    ["audit", "--plot", "x.pdf"],
    ["explain", "whole(3)"],
    ["rows", "--answer-as", "{} {}"],
    ["rows", "--wrong", "absent"],
    ["replay", "absent"],
    ["replay", "wrong.toml"],
    ["replay", "empty"],
    ["inspect", "none/", "--backend", "reference"],
]


def command_refusals() -> Json:
    """Exit code and message of commands that cannot mean anything."""
    files = {"rows.jsonl": INPUT, "wrong.toml": "[policy]\norder = 'blocks(2)'\n", "empty": ""}
    return {" ".join(call): told for call, told in zip(REFUSED, ask(*REFUSED, files=files), strict=True)}


#: group -> job -> how it is done; each group is one file
GROUPS: dict[str, dict[str, Job]] = {
    "texts": {
        "parts": lambda: texts(listed(PARTS)),
        "presets": lambda: texts(listed(PRESETS)),
        "spaced": lambda: texts(SPACED),
        "composed": lambda: texts(composed()),
    },
    "errors": {
        "malformed": malformed,
        "clashes": clashes,
        "unfit": unfit,
        "templates": unread_templates,
        "settings": settings_in_python,
        "scores": score_refusals,
        "canvases": canvases,
    },
    "runs": {
        **{text: partial(run, text, number) for number, text in enumerate([*listed(POLICIES), *FIXED])},
        **{f"long: {text}": partial(long_run, text) for text in listed(LONG)},
        **{f"edge: {text}": partial(edge_run, text) for text in EDGES},
        "texts of rows": texts_of_rows,
    },
    "traces": {text: partial(trace, text, number) for number, text in enumerate(listed(TRACED))},
    "laws": {
        **{f"{world}: {text}": partial(law, world, text) for world, some in LAWS.items() for text in listed(some)},
        "of a model": law_of_a_model,
    },
    "audits": {"toys": audits, "frontier": frontier, "command": command_audit},
    "scores": {"toy": scores},
    "commands": {
        "prompt": run_of_a_prompt,
        **{
            f"rows: {text}": partial(run_of_rows, text)
            for text in ("med+early-exit", "one-by-one", "klass(0.6,shift=0.5)")
        },
        "resume": run_that_resumes,
        "bad rows": run_of_bad_rows,
        "trace": traced_run,
        "score": command_scores,
        "traces": command_traces,
        "bench": command_bench,
        "calibrate": command_calibrate,
        "menus": command_menus,
        "refusals": command_refusals,
    },
}


# The files


def stored(group: str) -> dict[str, Json]:
    """The kept outputs of a group, by job."""
    return json.loads((FOLDER / f"{group}.json").read_text(encoding="utf-8"))


def written(value: Json, indent: str = "", width: int = 118) -> str:
    """JSON for readers: what fits stands on one line, plain members fill lines, others have lines of their own."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= width or not isinstance(value, (dict, list)):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        members = [f"{json.dumps(name, ensure_ascii=False)}: {written(v, inner, width)}" for name, v in value.items()]
    else:
        members = [written(member, inner, width) for member in value]
    nested = any(isinstance(member, (dict, list)) for member in (value.values() if isinstance(value, dict) else value))
    lines: list[str] = []
    for member in members:
        if lines and not nested and len(inner) + len(lines[-1]) + len(member) + 3 <= width:
            lines[-1] += f", {member}"
        else:
            lines.append(member)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{closing}"


def write(groups: Iterable[str]) -> None:
    """Does the jobs of these groups and keeps their outputs."""
    for group in groups:
        found = {name: plain(job()) for name, job in GROUPS[group].items()}
        (FOLDER / f"{group}.json").write_text(written(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        write(sys.argv[1:] or GROUPS)

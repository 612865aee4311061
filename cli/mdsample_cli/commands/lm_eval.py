"""`mdsample lm-eval`: the evaluation harness, with mdsample as the model."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import typer

from mdsample_cli.errors import UsageError

#: what the harness does besides running tasks
_OTHERS = ("ls", "validate")


def lm_eval(context: typer.Context) -> None:
    """Run lm-evaluation-harness with this model; options are the harness's own (see lm-eval run --help).

    As in: mdsample lm-eval --model_args "pretrained=tiny-gsm,policy=med+early-exit,template=own" --tasks gsm8k

    Tasks that people quote are there under mdsample_gsm8k, mdsample_math500, mdsample_humaneval, mdsample_mbpp,
    mdsample_countdown and mdsample_sudoku4, from their files: --metadata '{"problems": "test.jsonl"}'.

    What model_args takes: pretrained, backend, device, dtype, cache, adapter, revision, policy, template, seed,
    speculate, likelihood (auto, chain, product, bound), samples and max_length.
    """
    try:
        harness = import_module("lm_eval.__main__")
        ours = import_module("mdsample_integrations.lm_eval")  # which gives the model its name there
    except ImportError as fault:
        raise UsageError(f"the evaluation harness is missing ({fault}); pip install 'mdsample[eval]'") from None
    given = context.args
    if not given:
        raise UsageError("name the tasks, as in mdsample lm-eval --tasks gsm8k; see lm-eval run --help")
    if given[0] in _OTHERS:
        line = given
    else:
        quoted = str(Path(ours.__file__ or "").parent / "quoted")
        own = {("--model", "-M"): "mdsample", ("--batch_size", "-b"): "16", ("--include_path",): quoted}
        options = given[1:] if given[0] == "run" else given
        named = {option.partition("=")[0] for option in options}
        line = [
            "run",
            *(word for names, value in own.items() if not named & {*names} for word in (names[0], value)),
            *options,
        ]
    before, sys.argv = sys.argv, ["mdsample lm-eval", *line]
    try:
        harness.cli_evaluate()
    finally:
        sys.argv = before

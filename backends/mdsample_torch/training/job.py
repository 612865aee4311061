"""The folder of a training: what it is begun with, resumed from and finished by."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs
import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from mdsample._version import versions
from mdsample.core.files import Lock, mode, write_whole
from mdsample.errors import FinetuneError
from mdsample.jobs.examples import Example
from mdsample.models.convert import copy_rest
from mdsample.models.weights.checkpoint import Checkpoint
from mdsample.models.weights.piece import Piece
from mdsample_torch.trainable import TrainableTrunk
from mdsample_torch.training.settings import Report, Settings

CHECKPOINTS, LOSSES = "checkpoints", "loss.jsonl"
_JOB, _REPORT = "job.json", "report.json"
_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def lock(out: Path) -> Lock:
    """Keeps other trainings out of the folder; `FinetuneError` or `WriteError`."""
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise FinetuneError(f"{out} cannot be written: {fault.strerror or fault}") from fault
    return Lock(out.absolute(), out)


def begin(out: Path, source: Path, examples: Sequence[Example], settings: Settings) -> None:
    """Makes the folder, or checks that it holds a part of this job."""
    data = json.dumps([[example.tokens, example.slot] for example in examples]).encode()
    job = {"model": source.name, "data": hashlib.sha256(data).hexdigest(), **attrs.asdict(settings)}
    try:
        if mode(out):
            if not mode(out / _JOB):
                raise FinetuneError(f"{out} exists and is not a training; take another name")
            if json.loads((out / _JOB).read_text(encoding="utf-8")) != job:
                raise FinetuneError(f"{out} holds another training (see its {_JOB}); take another name, or remove it")
            if mode(out / _REPORT):
                raise FinetuneError(f"{out} is a finished training; take another name, or remove it")
            return
        out.mkdir(parents=True)
        write_whole(out / _JOB, (json.dumps(job, indent=2) + "\n").encode())
    except OSError as fault:
        raise FinetuneError(f"{out} cannot be written: {fault.strerror or fault}") from fault


def until(step: int, log: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a log up to a step; those of later steps, and one that was cut off, are done again."""
    return (line for line in log if line.endswith(b"\n") and json.loads(line)["step"] <= step)


def write_model(out: Path, source: Path, checkpoint: Checkpoint, model: TrainableTrunk) -> None:
    """The weights under their published names and in their types, with everything else that the source has."""
    named, published = model.named, dict[str, Tensor]()
    parts = dict[str, dict[int, Tensor]]()
    for ours, pieces in checkpoint.pieces.items():
        tensor = named[ours].detach()
        for number, piece in enumerate(pieces):
            assert isinstance(piece, Piece)
            share = tensor if len(pieces) == 1 else tensor[number]
            share = share.to("cpu", _STORED[piece.dtype]).reshape(piece.shape).clone()
            if not bool(torch.isfinite(share).all()):
                raise FinetuneError(f"{piece.name} is not finite after training; take a lower learning rate")
            if piece.rows is None:
                published[piece.name] = share
            else:
                parts.setdefault(piece.name, {})[piece.rows[0]] = share
    published |= {name: torch.cat([part[row] for row in sorted(part)]) for name, part in parts.items()}
    copy_rest(source, out)
    save_torch_state_dict(published, out)


def write_report(out: Path, name: str | Path, examples: int, report: Report, settings: Settings) -> None:
    """Writes `report.json` and removes the checkpoints: the training is finished."""
    record = {"model": str(name), "examples": examples, **report.record(), **attrs.asdict(settings)}
    record |= {"versions": versions()}
    write_whole(out / _REPORT, (json.dumps(record, indent=2) + "\n").encode())
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)

"""Training on finished texts: the masked-diffusion loss on the slots of a template, by transformers' `Trainer`.

For each row a level t is drawn from (0, 1) and every position of its slots is masked with probability t; the loss is
Σ cross-entropy / (t · slot positions), averaged over rows (LLaDA, arXiv 2502.09992, algorithm 2): a bound on −log p of
the slots, in nats a token. What a text leaves of its slot is trained as end tokens. Levels are stratified over a batch,
which makes the loss less noisy and changes no expectation.

With a block-causal trunk one block of a row is masked at a time, with clean blocks before it, as these are trained.
The balancing loss that some mixtures of experts are trained with is left out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import torch
import torch.nn.functional as F
from accelerate import PartialState  # pyright: ignore[reportMissingTypeStubs]
from huggingface_hub import save_torch_state_dict
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint  # pyright: ignore[reportUnknownVariableType]
from transformers.utils import logging as transformers_logging

from mdsample._version import versions
from mdsample.errors import FinetuneError
from mdsample.jobs.examples import Example
from mdsample.models.checkpoint import Checkpoint, Packed, open_checkpoint
from mdsample.models.convert import copy_rest
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Trunk
from mdsample.models.find import find
from mdsample.policy.settings import integer, real
from mdsample_torch.device import choose_device, free_memory
from mdsample_torch.trainable import MATRICES, TrainableTrunk
from mdsample_torch.weights import read_parts

#: the least level of masking; below it a row would teach nothing, with an enormous weight
LEAST = 1e-3
#: bytes of a trained weight: itself, its gradient and AdamW's two averages, float32
_TRAINED_BYTES = 16
_JOB, _CHECKPOINTS, _LOSSES, _REPORT = "job.json", "checkpoints", "loss.jsonl", "report.json"
_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@attrs.frozen(kw_only=True)
class Settings:
    """How to train."""

    name = "finetune"
    #: rank of the low-rank adapters on every matrix of attention and dense middle; `None`: all weights are trained
    lora: int | None = integer(None, at_least=1, optional=True)
    epochs: float = real(3.0, above=0)
    #: rows in a step, on each device
    batch_size: int = integer(16, at_least=1)
    #: steps whose gradients are added up
    accumulate: int = integer(1, at_least=1)
    #: AdamW's highest rate; it rises over the first 5 % of the steps, then falls to 0 as a cosine
    learning_rate: float = real(1e-4, above=0)
    #: whether products are computed in bfloat16, and the frozen weights under adapters kept in it
    bfloat16: bool = False
    #: whether activations are computed twice instead of being kept
    save_memory: bool = False
    #: steps between checkpoints
    save_every: int = integer(200, at_least=1)
    seed: int = 0


@attrs.frozen
class Report:
    """What came out."""

    folder: Path
    steps: int
    #: mean loss over the first and the last tenth of the steps, nats a token
    first_loss: float
    last_loss: float
    #: weights that were trained, and all
    trained: int
    parameters: int
    seconds: float

    def record(self) -> dict[str, object]:
        """A flat JSON object."""
        return {**attrs.asdict(self), "folder": str(self.folder)}


def finetune(
    name: str | Path,
    examples: Sequence[Example],
    out: Path,
    settings: Settings | None = None,
    *,
    revision: str | None = None,
    device: str | None = None,
    watch: Callable[[int, int, float], None] | None = None,
) -> Report:
    """Trains a model on finished texts and writes the trained model to the folder `out`; `name` as `load` takes it.

    `out` gets the layout of the source, safetensors and configuration, so that every backend reads it; besides,
    `loss.jsonl` and `report.json`. Adapters are merged into the weights. Called again with the same model, examples
    and settings after it was cut off, it goes on from the last checkpoint. `watch` is told steps, all steps and loss.
    Under `torchrun` or `accelerate launch` it trains on several devices; `batch_size` is that of each, and all get
    the same report.

    Raises `ModelError`; as `FinetuneError` if `out` holds something else or the model cannot be trained.
    """
    settings = settings or Settings()
    if not examples:
        raise FinetuneError("there are no examples to train on")
    source = _folder(name, revision)
    checkpoint = open_checkpoint(source, read_config(source))
    if any(isinstance(piece, Packed) for pieces in checkpoint.pieces.values() for piece in pieces):
        raise FinetuneError(f"{source.name} is quantised, which cannot be trained; take the model it was made from")
    where = choose_device(device)
    if where.type == "cuda" and device is not None and where.index:
        raise FinetuneError(f"training takes the first device it sees; show it {device} only: CUDA_VISIBLE_DEVICES")
    half = settings.bfloat16 and settings.lora is not None
    dtype = torch.bfloat16 if half else torch.float32
    checkpoint.check_memory(dtype.itemsize if settings.lora is not None else _TRAINED_BYTES, free_memory(where))
    processes = PartialState(cpu=where.type == "cpu")
    # the first process makes the folder, the others find it; if it fails they fail alike
    try:
        if first_process():
            _begin(out, source, examples, settings)
    finally:
        processes.wait_for_everyone()
    if not first_process():
        _begin(out, source, examples, settings)
    torch.manual_seed(settings.seed)  # pyright: ignore[reportUnknownMemberType]
    model = TrainableTrunk(checkpoint.trunk).to(dtype)
    model.load(read_parts(checkpoint, torch.device("cpu"), dtype))
    if settings.save_memory:
        model.save_memory()
    model, trained = _with_adapters(model, settings)
    report = _train(model, checkpoint, examples, out, settings, where, watch)
    report = attrs.evolve(report, trained=trained)
    whole = cast("TrainableTrunk", model.merge_and_unload() if isinstance(model, PeftModel) else model)
    if first_process():
        _write(out, source, checkpoint, whole)
        _tell(out, name, len(examples), report, settings)
    processes.wait_for_everyone()
    return report


def _tell(out: Path, name: str | Path, examples: int, report: Report, settings: Settings) -> None:
    told = {"model": str(name), "examples": examples, **report.record(), **attrs.asdict(settings)}
    told |= {"versions": versions()}
    (out / _REPORT).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)


def first_process() -> bool:
    """Whether this process is the only one of a training, or the one that writes and speaks for all."""
    return PartialState().is_main_process


def _folder(name: str | Path, revision: str | None) -> Path:
    found = find(name, revision)
    if isinstance(found, Path):
        return found
    # imported here, as in `load`
    from mdsample.models.hub import FACTS, WEIGHTS, download

    return download(found, revision, (*FACTS, *WEIGHTS))


def _begin(out: Path, source: Path, examples: Sequence[Example], settings: Settings) -> None:
    """Makes the folder, or checks that it holds a part of this job."""
    data = json.dumps([[example.tokens, example.slot] for example in examples]).encode()
    job = {"model": source.name, "data": hashlib.sha256(data).hexdigest(), **attrs.asdict(settings)}
    try:
        if out.exists():
            if not (out / _JOB).is_file():
                raise FinetuneError(f"{out} is there already and no training of ours; take another name")
            if json.loads((out / _JOB).read_text(encoding="utf-8")) != job:
                raise FinetuneError(f"{out} holds another training (see its {_JOB}); take another name, or remove it")
            if (out / _REPORT).is_file():
                raise FinetuneError(f"{out} is a finished training; take another name, or remove it")
            return
        out.mkdir(parents=True)
        (out / _JOB).write_text(json.dumps(job, indent=2) + "\n", encoding="utf-8")
    except OSError as fault:
        raise FinetuneError(f"{out} cannot be written: {fault.strerror or fault}") from fault


def _with_adapters(model: TrainableTrunk, settings: Settings) -> tuple[TrainableTrunk | PeftModel, int]:
    """The model as it is trained, and how many weights that changes."""
    if settings.lora is None:
        return model, sum(p.numel() for p in model.parameters() if p.requires_grad)
    config = LoraConfig(r=settings.lora, lora_alpha=2 * settings.lora, target_modules=list(MATRICES))
    adapted = get_peft_model(cast("Any", model), config)
    return cast("PeftModel", adapted), sum(p.numel() for p in adapted.parameters() if p.requires_grad)


class _Rows(Dataset[Example]):
    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


def collate(rows: Sequence[Example]) -> dict[str, Tensor]:
    """`tokens`, `slot` and `valid`, `[B, L]`, padded at the end."""
    length = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    slot = torch.full((len(rows), length), -1)
    valid = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        slot[i, : len(row.slot)] = torch.tensor(row.slot)
        valid[i, : len(row.tokens)] = True
    return {"tokens": tokens, "slot": slot, "valid": valid}


def corrupt(slot: Tensor, block: int | None) -> tuple[Tensor, Tensor]:
    """Which positions are masked, `[B, L]` bool, and what the cross-entropy of one of a row's weighs, `[B]`.

    `slot [B, L]`: −1 outside of slots. The weighted sum of a row is an unbiased estimate of the bound, a token.
    """
    rows = len(slot)
    level = (torch.randperm(rows) + torch.rand(rows)) / rows
    level = (LEAST + (1 - LEAST) * level).to(slot.device)
    trained = slot >= 0
    weight = 1 / (level * trained.sum(1).clamp(min=1))
    if block is not None:
        number = torch.arange(slot.shape[1], device=slot.device) // block
        there = F.one_hot(number).T.bool()[None] & trained[:, None]  # [B, blocks, L]
        some = there.any(2)
        chosen = torch.multinomial(some.float(), 1).squeeze(1)
        trained = trained & (number == chosen[:, None])
        weight = weight * some.sum(1)
    hidden = trained & (torch.rand(slot.shape, device=slot.device) < level[:, None])
    return hidden, weight


class _Trainer(Trainer):
    """Trainer with the masked-diffusion loss."""

    def __init__(self, trunk: Trunk, **settings: Any) -> None:
        super().__init__(**settings)  # pyright: ignore[reportUnknownMemberType]
        self.model_accepts_loss_kwargs = False  # so that the sum over accumulated steps is a mean
        self._trunk = trunk

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        tokens, slot, valid = inputs["tokens"], inputs["slot"], inputs["valid"]
        hidden, weight = corrupt(slot, self._trunk.block)
        logits = model(tokens.masked_fill(hidden, self._trunk.mask_id), valid, hidden)
        row = hidden.nonzero(as_tuple=True)[0]
        loss = (F.cross_entropy(logits.float(), tokens[hidden], reduction="none") * weight[row]).sum() / len(tokens)
        return (loss, logits) if return_outputs else loss


class _Told(TrainerCallback):
    """Writes the loss down, and tells it."""

    def __init__(self, path: Path, watch: Callable[[int, int, float], None] | None) -> None:
        self._path, self._watch = path, watch

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs or not state.is_world_process_zero:
            return
        said = {"step": state.global_step, "loss": logs["loss"], "learning_rate": logs.get("learning_rate", 0.0)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(said) + "\n")
        if self._watch is not None:
            self._watch(state.global_step, state.max_steps, logs["loss"])


def _train(
    model: TrainableTrunk | PeftModel,
    checkpoint: Checkpoint,
    examples: Sequence[Example],
    out: Path,
    settings: Settings,
    device: torch.device,
    watch: Callable[[int, int, float], None] | None,
) -> Report:
    transformers_logging.set_verbosity_error()
    arguments = TrainingArguments(
        output_dir=str(out / _CHECKPOINTS),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        max_grad_norm=1.0,
        weight_decay=0.0,
        bf16=settings.bfloat16,
        use_cpu=device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=settings.save_every,
        save_total_limit=2,
        seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
        average_tokens_across_devices=False,
        # of experts nobody may have been chosen in a step
        ddp_find_unused_parameters=checkpoint.trunk.experts is not None,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # pyright: ignore[reportPrivateUsage]; several only as several processes
    trainer = _Trainer(
        checkpoint.trunk,
        model=model,
        args=arguments,
        train_dataset=_Rows(examples),
        data_collator=collate,
        callbacks=[_Told(out / _LOSSES, watch)],
    )
    trainer.remove_callback(PrinterCallback)
    began = time.perf_counter()
    last = cast("str | None", get_last_checkpoint(str(out / _CHECKPOINTS)) if (out / _CHECKPOINTS).is_dir() else None)
    # the order of rows comes from the seed alone, masks from here: other ones on every device
    torch.manual_seed(settings.seed + arguments.process_index)  # pyright: ignore[reportUnknownMemberType]
    if last is not None and first_process():
        _forget(out / _LOSSES, int(last.rpartition("-")[2]))
    trainer.train(resume_from_checkpoint=last)  # pyright: ignore[reportUnknownMemberType]
    trainer.accelerator.wait_for_everyone()
    losses = [json.loads(line)["loss"] for line in (out / _LOSSES).read_text(encoding="utf-8").splitlines()]
    tenth = -(-len(losses) // 10)
    means = [sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:])]
    if not all(map(torch.isfinite, torch.tensor(means))):
        raise FinetuneError("the loss is not finite; take a lower learning rate")
    steps = int(trainer.state.global_step)
    return Report(out, steps, means[0], means[1], 0, checkpoint.parameters, time.perf_counter() - began)


def _forget(path: Path, step: int) -> None:
    """Takes lines of steps after `step` out of the log: they are done again."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step), encoding="utf-8")


def _write(out: Path, source: Path, checkpoint: Checkpoint, model: TrainableTrunk) -> None:
    """The weights under their published names and in their types, with everything else that the source has."""
    named, published = model.named, dict[str, Tensor]()
    parts = dict[str, dict[int, Tensor]]()
    for ours, pieces in checkpoint.pieces.items():
        tensor = named[ours].detach()
        for number, piece in enumerate(pieces):
            assert not isinstance(piece, Packed)
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

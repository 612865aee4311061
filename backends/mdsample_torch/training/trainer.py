"""`finetune`: the objective in transformers' `Trainer`, with adapters by peft, on one device or several."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from accelerate import PartialState  # pyright: ignore[reportMissingTypeStubs]
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint  # pyright: ignore[reportUnknownVariableType]
from transformers.utils import logging as transformers_logging

from mdsample.core.files import Growing, mode
from mdsample.errors import FinetuneError
from mdsample.jobs.examples import Example
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Trunk
from mdsample.models.fetch import fetch
from mdsample.models.weights.checkpoint import Checkpoint, open_checkpoint
from mdsample.models.weights.piece import Packed
from mdsample_torch.device import choose_device, free_memory
from mdsample_torch.trainable import MATRICES, TrainableTrunk
from mdsample_torch.training.job import (
    CHECKPOINTS,
    LOSSES,
    begin,
    lock,
    until,
    write_model,
    write_report,
)
from mdsample_torch.training.objective import collate, loss_and_logits
from mdsample_torch.training.settings import Report, Settings
from mdsample_torch.weights import read_parts

#: bytes of a trained weight: itself, its gradient and AdamW's two averages, float32
_TRAINED_BYTES = 16


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
    and settings after it was cut off, it resumes from the last checkpoint. `watch` gets the step, the number of steps
    and the loss. Under `torchrun` or `accelerate launch` it trains on several devices; `batch_size` is that of each,
    and all get the same report.

    Raises `WriteError`, and `ModelError`; as `FinetuneError` if `out` holds something else or the model cannot be
    trained.
    """
    settings = settings or Settings()
    if not examples:
        raise FinetuneError("there are no examples to train on")
    source = fetch(name, revision)
    checkpoint = open_checkpoint(source, read_config(source))
    if checkpoint.trunk.led:
        raise FinetuneError(
            f"{source.name} ({checkpoint.trunk.family}) is trained with a causal loss beside that of its blocks, which "
            "is not implemented; take a model of another family"
        )
    if any(isinstance(piece, Packed) for pieces in checkpoint.pieces.values() for piece in pieces):
        raise FinetuneError(f"{source.name} is quantised, which cannot be trained; take the model it was made from")
    where = choose_device(device)
    if where.type == "cuda" and device is not None and where.index:
        raise FinetuneError(f"training takes the first device it sees; show it {device} only: CUDA_VISIBLE_DEVICES")
    half = settings.bfloat16 and settings.lora is not None
    dtype = torch.bfloat16 if half else torch.float32
    checkpoint.check_memory(dtype.itemsize if settings.lora is not None else _TRAINED_BYTES, free_memory(where))
    processes = PartialState(cpu=where.type == "cpu")
    with lock(out) if first_process() else nullcontext():
        # the first process makes the folder, the others find it; if it fails they fail alike
        try:
            if first_process():
                begin(out, source, examples, settings)
        finally:
            processes.wait_for_everyone()
        if not first_process():
            begin(out, source, examples, settings)
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
            write_model(out, source, checkpoint, whole)
            write_report(out, name, len(examples), report, settings)
        processes.wait_for_everyone()
        return report


def first_process() -> bool:
    """Whether this process is the only one of a training, or the one that writes and speaks for all."""
    return PartialState().is_main_process


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


class _Trainer(Trainer):
    """Trainer with the masked-diffusion loss."""

    def __init__(self, trunk: Trunk, **settings: Any) -> None:
        super().__init__(**settings)  # pyright: ignore[reportUnknownMemberType]
        self.model_accepts_loss_kwargs = False  # so that the sum over accumulated steps is a mean
        self._trunk = trunk

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, logits = loss_and_logits(model, inputs, self._trunk)
        return (loss, logits) if return_outputs else loss


class _LossLog(TrainerCallback):
    """Writes the loss to a file, which the first process has, and passes it to `watch`."""

    def __init__(self, file: Growing | None, watch: Callable[[int, int, float], None] | None) -> None:
        self._file, self._watch = file, watch

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs or self._file is None:
            return
        record = {"step": state.global_step, "loss": logs["loss"], "learning_rate": logs.get("learning_rate", 0.0)}
        self._file.append(json.dumps(record).encode() + b"\n")
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
        output_dir=str(out / CHECKPOINTS),
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
        # some experts may not be chosen in a step
        ddp_find_unused_parameters=checkpoint.trunk.experts is not None,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # pyright: ignore[reportPrivateUsage]; several only as several processes
    trainer = _Trainer(
        checkpoint.trunk,
        model=model,
        args=arguments,
        train_dataset=_Rows(examples),
        data_collator=collate,
    )
    trainer.remove_callback(PrinterCallback)
    began = time.perf_counter()
    last = cast("str | None", get_last_checkpoint(str(out / CHECKPOINTS)) if mode(out / CHECKPOINTS) else None)
    # the order of rows comes from the seed alone, masks from here: other ones on every device
    torch.manual_seed(settings.seed + arguments.process_index)  # pyright: ignore[reportUnknownMemberType]
    done = 0 if last is None else int(last.rpartition("-")[2])
    with Growing(out / LOSSES, partial(until, done)) if first_process() else nullcontext() as file:
        trainer.add_callback(_LossLog(file, watch))
        trainer.train(resume_from_checkpoint=last)  # pyright: ignore[reportUnknownMemberType]
    trainer.accelerator.wait_for_everyone()
    losses = [json.loads(line)["loss"] for line in (out / LOSSES).read_text(encoding="utf-8").splitlines()]
    tenth = -(-len(losses) // 10)
    means = [sum(part) / len(part) for part in (losses[:tenth], losses[-tenth:])]
    if not all(map(torch.isfinite, torch.tensor(means))):
        raise FinetuneError("the loss is not finite; take a lower learning rate")
    steps = int(trainer.state.global_step)
    return Report(out, steps, means[0], means[1], 0, checkpoint.parameters, time.perf_counter() - began)

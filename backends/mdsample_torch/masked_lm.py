"""Models of other families: what `AutoModelForMaskedLM` of transformers opens (BERT, RoBERTa, ModernBERT, …).

A checkpoint's own code is never run, and weights are read from safetensors only. These models learned to read whole
sentences between a start token and an end token ([CLS] and [SEP], <s> and </s>). The start token stands before every
row, as for all models; the end token is written by the template, so that text can also go on behind a slot: the default
template has it at its end, and a template of your own should.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from mdsample.backend.setup import Setup
from mdsample.core.template import Field, Slot, Template, Text
from mdsample.errors import ModelError
from mdsample.models.card import read_card
from mdsample.models.families import read_fields, unsupported
from mdsample.models.families.fields import Fields
from mdsample.models.families.special import read_special
from mdsample.models.files import Files, FolderFiles
from mdsample.models.text.tokenizer import FileTokenizer, Named
from mdsample.models.weights.adapter import OTHERS
from mdsample.models.weights.checkpoint import read_stored, refuse_other_types, refuse_too_large
from mdsample.models.weights.headers import Stored
from mdsample_torch.denoiser import TorchDenoiser
from mdsample_torch.device import choose_dtype, free_memory
from mdsample_torch.module import from_module

#: blanks of the default template; these models were trained on few blanks at a time
BLANKS = 16
#: what stands in a folder is not run, and nothing is fetched
_SAFELY = {"trust_remote_code": False, "local_files_only": True}
#: rows that a model is tried on when it is opened: one of this length beside one of that, tokens
SHORT, LONG = 5, 24


@final
class Encoder(nn.Module):
    """A model of transformers as `from_module` takes it."""

    def __init__(self, model: Any) -> None:
        """`model`: an `AutoModelForMaskedLM`."""
        super().__init__()
        self.model: Any = model
        # models after RoBERTa number positions from the padding token's id on, and leave out where that token stands;
        # a row may hold it as text, so they are given their numbers
        paddings = (
            getattr(part, "padding_idx", None)
            for name, part in model.named_modules()
            if name.endswith("position_embeddings")
        )
        padding = next((number for number in paddings if number is not None), None)
        #: number of the first position; `None`: the model counts from 0 by itself
        self.first = None if padding is None else padding + 1

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Logits `[B, L, V]`, or states `[B, L, d]` once the head is taken off."""
        numbers: dict[str, Tensor] = {}
        if self.first is not None:
            count = torch.arange(tokens.shape[1], device=tokens.device) + self.first
            numbers["position_ids"] = count.expand_as(tokens)
        return self.model(input_ids=tokens, attention_mask=valid.long(), **numbers).logits


def open_masked_lm(folder: Path, device: torch.device, setup: Setup) -> TorchDenoiser:
    """The masked language model in a folder, on a device.

    Raises one `ModelError` if transformers is missing or does not have the model as a masked language model, if files
    are missing, pickled or do not fit, if a weight is missing, if it would need code of the checkpoint's own, if
    padding changes what it says, and for a cache and for `compile`, which are for our own families.
    """
    fields = read_fields(folder)
    config = _config(folder, fields)
    if setup.compile:
        raise ModelError(
            "compile is for the families of mdsample; a model that runs through transformers is not compiled, so leave "
            "it out"
        )
    if setup.adapter is not None:
        raise ModelError(OTHERS)
    if setup.cache is not None:
        raise ModelError(
            f"the cache {str(setup.cache)!r} is for the families of mdsample; a model that runs through transformers "
            "keeps nothing from look to look, so leave the cache out"
        )
    files = FolderFiles(folder)
    tokenizer, sizes, dtype = _described(files, config)
    card = read_card(folder, _template(tokenizer))
    chosen, vocab_size = choose_dtype(setup.dtype, device, dtype), sizes.count("vocab_size")
    _check_memory(folder, read_stored(files), chosen, device)
    encoder = Encoder(_model(folder, config, chosen)).to(device).eval()
    max_length = sizes.count("max_position_embeddings") - (encoder.first or 0)
    head = _fitted(str(fields["model_type"]), encoder, device, vocab_size, min(LONG, max_length))
    return from_module(
        encoder,
        tokenizer,
        max_length=max_length,
        head=head,
        vocab_size=vocab_size,
        name=card.name,
        template=card.template,
    )


def check(files: Files) -> None:
    """`ModelError` for a model that `open_masked_lm` refuses for what is known of it before its weights are here."""
    _described(files, _config(files.folder, read_fields(files.folder)))


def _described(files: Files, config: Any) -> tuple[FileTokenizer, Fields, str]:
    """The tokenizer, the sizes of the model, and the type that most of it is stored in."""
    folder, fields = files.folder, read_fields(files.folder)
    names = ("vocab_size", "max_position_embeddings")
    sizes = Fields(str(fields["model_type"]), {name: getattr(config, name, None) for name in names})
    tokenizer = FileTokenizer.read(folder, _named(folder, fields, *map(sizes.count, names)))
    stored = read_stored(files)
    refuse_other_types(folder, stored)
    return tokenizer, sizes, max(stored.values(), key=lambda tensor: tensor.bytes).dtype


def _config(folder: Path, fields: Mapping[str, object]) -> Any:
    """The configuration as transformers reads it; a masked language model that sees both sides, or `ModelError`."""
    path, kind = folder / "config.json", fields.get("model_type")
    if not isinstance(kind, str):
        raise unsupported(folder, fields)
    try:
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
    except ImportError as error:
        raise ModelError(
            f"{unsupported(folder, fields)}; transformers cannot be imported here ({error}): "
            "pip install 'mdsample[transformers]'"
        ) from error
    if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise unsupported(folder, fields)
    if fields.get("auto_map"):
        raise ModelError(
            f"{path} has auto_map: the model asks for Python code of its own, which is never run; if its weights fit "
            f"the {kind} of transformers, remove auto_map"
        )
    try:
        with _quiet():
            opener: Any = AutoConfig
            config: Any = opener.from_pretrained(folder, **_SAFELY)
    except Exception as error:  # whatever the library raises, a person gets one sentence
        raise ModelError(f"transformers cannot read {path}: {_line(error)}") from error
    for field in ("is_decoder", "is_encoder_decoder"):
        if getattr(config, field, False):
            raise ModelError(f"{path}: {kind} with {field} = True is not a masked language model; take an encoder")
    return config


def _named(folder: Path, fields: Mapping[str, object], vocab_size: int, positions: int) -> Named:
    """Special tokens: as `config.json` says, else by their role in the tokenizer's files, else by their usual text."""
    special = read_special(folder)

    def token(role: str, *texts: str) -> int | None:
        value = fields.get(f"{role}_token_id")
        return value if type(value) is int else special.id_of(f"{role}_token", *texts)

    mask = token("mask", "[MASK]", "<mask>")
    if mask is None:
        raise ModelError(
            f"{folder} names no mask token: config.json lacks mask_token_id, tokenizer_config.json mask_token, and "
            "tokenizer.json has neither [MASK] nor <mask>"
        )
    end, start = token("sep", "[SEP]", "</s>"), token("cls", "[CLS]", "<s>")
    return Named(vocab_size=vocab_size, mask_id=mask, end_id=end, start_id=start, max_length=positions)


def _template(tokenizer: FileTokenizer) -> str:
    """The template of a folder that names none: the end token stands where these models expect it."""
    end = [Text(text) for text in tokenizer.special if tokenizer.special_id(text) == tokenizer.end_id]
    return str(Template((Field("prompt"), Slot("answer", BLANKS), *end)))


def _check_memory(folder: Path, stored: Mapping[str, Stored], dtype: torch.dtype, device: torch.device) -> None:
    parameters = sum(tensor.count for tensor in stored.values())
    size = sum(tensor.bytes for tensor in stored.values())
    refuse_too_large(folder, parameters, size, parameters * dtype.itemsize, free_memory(device))


def _model(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    """The model with its weights, on the CPU; `ModelError` unless every one of them comes from the files."""
    from transformers import AutoModelForMaskedLM

    try:
        with _quiet():
            opener: Any = AutoModelForMaskedLM
            model, info = opener.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                **_SAFELY,
                ignore_mismatched_sizes=True,  # so that they are told below, by name
            )
    except Exception as error:  # as above
        raise ModelError(f"transformers cannot open {folder}: {_line(error)}") from error
    # transformers would have drawn these at random; what is there beyond (a pooler, another head) is not needed
    lost = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
    if lost:
        raise ModelError(
            f"the weights in {folder} do not make a {type(model).__name__}: {', '.join(lost[:3])}"
            f"{f' and {len(lost) - 3} more' if len(lost) > 3 else ''} are missing or of another shape; "
            "fetch it again, or take the checkpoint that has its language model head"
        )
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            kind = str(dtype).removeprefix("torch.")
            raise ModelError(f"{folder}: {name} is not finite in {kind}; fetch it again, or take another dtype")
    return model


@torch.inference_mode()
def _fitted(kind: str, encoder: Encoder, device: torch.device, vocab_size: int, long: int) -> nn.Module | None:
    """Tries the model on two rows, and takes its head off if that is the last thing it does; the head, or `None`.

    Raises `ModelError` if it cannot run them, or if the first row depends on padding or on the second.
    """
    tokens = (torch.arange(long, device=device) % vocab_size).expand(2, -1)
    short = min(SHORT, long)
    valid = torch.arange(long, device=device) < torch.tensor([[short], [long]], device=device)
    given: list[Tensor] = []
    head = _linear(encoder.model)
    hook = None
    if head is not None:

        def note(_: nn.Module, args: tuple[Tensor]) -> None:
            given.append(args[0])

        hook = head.register_forward_pre_hook(note)
    try:
        with _quiet():
            beside = encoder(tokens, valid)
            alone = encoder(tokens[:1, :short], valid[:1, :short])
    except Exception as error:  # as above
        raise ModelError(f"the {kind} of transformers cannot run here: {_line(error)}") from error
    finally:
        if hook is not None:
            hook.remove()
    extent = alone.max() - alone.min()
    tolerance = 1e-3 if alone.dtype == torch.float32 else 0.1
    if not bool((beside[0, :short] - alone[0]).abs().max() <= tolerance * extent):
        raise ModelError(
            f"what this {kind} says of a row depends on the padding, so rows would depend on their neighbours; "
            "such models are not run"
        )
    if head is None or len(given) != 2 or not torch.equal(head(given[0]), beside):
        return None
    # hidden states come out instead, and logits are made where they are wanted
    name = next(name for name, part in encoder.model.named_modules() if part is head)
    encoder.model.set_submodule(name, nn.Identity())
    return head


def _linear(model: Any) -> nn.Linear | None:
    """The matrix that gives the logits, where the model has one."""
    head: object = model.get_output_embeddings()
    return head if isinstance(head, nn.Linear) else None


@contextmanager
def _quiet() -> Generator[None]:
    """What transformers shows while it works is left out: what matters of it is an error here."""
    from transformers.utils import logging as shown

    level, bar = shown.get_verbosity(), shown.is_progress_bar_enabled()
    shown.set_verbosity(logging.CRITICAL)
    shown.disable_progress_bar()
    try:
        yield
    finally:
        shown.set_verbosity(level)
        if bar:
            shown.enable_progress_bar()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

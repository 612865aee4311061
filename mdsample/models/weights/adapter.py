"""Adapters in peft's layout: `adapter_config.json` and `adapter_model.safetensors`, read up to their headers.

What decides the merged weights is read, what only trained them is passed over, and everything else is refused by name.
Source: `LoraConfig` and `get_peft_model_state_dict` of peft 0.21.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import attrs

from mdsample.errors import ModelError
from mdsample.models.card import model_name
from mdsample.models.families import ADAPTER
from mdsample.models.families.special import read_object
from mdsample.models.files import Files, FolderFiles, read_bytes
from mdsample.models.weights.headers import Stored, read_header

#: the file of an adapter's weights
WEIGHTS = "adapter_model.safetensors"
#: what peft puts before the names of the model's modules
_PREFIX = "base_model.model."
#: what is read of the configuration
_READ = {"peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "init_lora_weights"}
#: what is passed over: it only trained the weights, or the tensors say it themselves. `fan_in_fan_out` is for GPT-2's
#: layers, which no family here has
_PASSED = {
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"),
    *("lora_bias", "fan_in_fan_out", "lora_dropout", "inference_mode", "task_type", "auto_mapping", "revision"),
    *("peft_version", "base_model_name_or_path", "runtime_config", "megatron_core", "qalora_group_size"),
    *("ensure_weight_tying", "eva_config"),
}
#: ways to begin a training that leave the model's own weights alone
_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")
_READABLE = ("F32", "F16", "BF16")
#: what to do with an adapter that is not read here
REMEDY = "merge it with peft (merge_and_unload, then save_pretrained) and give the merged folder as the model"
#: why an adapter is not merged into a model of none of our families
OTHERS = f"adapters are merged into the families of mdsample; for a model that runs through transformers, {REMEDY}"
_MOST_RANK = 1 << 16
#: what a pattern may consist of, and how often something in it may be repeated: it comes from a stranger, and
#: matching must end
_PATTERN, _REPEATED = re.compile(r"(?!.*\)[*+])[\w.\\^$()|*+\[\]-]{1,200}"), 2


@attrs.frozen(kw_only=True)
class Adapter:
    """A low-rank adapter, before its weights are read."""

    folder: Path
    #: the folder's name, or the hub id
    name: str
    #: the model that it was trained on, as it says; empty if it does not
    base: str
    rank: int
    alpha: float
    #: by pattern of the module's name, the first that matches
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    #: whether the scale is alpha / √rank rather than alpha / rank
    rslora: bool
    #: whether the rows of what comes of it have lengths of their own
    dora: bool
    #: its tensors, by their names without peft's prefix
    stored: Mapping[str, Stored]

    def rank_of(self, module: str) -> int:
        """The rank that the configuration gives a module."""
        return next((rank for pattern, rank in self.ranks.items() if _matches(pattern, module)), self.rank)

    def scale_of(self, module: str) -> float:
        """What the product of a module's two matrices is multiplied by."""
        alpha = next((alpha for pattern, alpha in self.alphas.items() if _matches(pattern, module)), self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_adapter(files: Files) -> Adapter:
    """An adapter by its files, of which the weights' header alone is read.

    Raises `ModelError` if a file is missing or malformed, and for what is not merged here.
    """
    folder, path = files.folder, files.folder / ADAPTER
    if read_bytes(path) is None:
        raise ModelError(
            f"{folder} holds no {ADAPTER}, so it is not an adapter; give the folder that peft's save_pretrained wrote"
        )
    fields = read_object(path)
    if fields.get("peft_type") != "LORA":
        raise ModelError(f"{path} has peft_type {fields.get('peft_type')!r:.40}, and LORA is read; {REMEDY}")
    _refuse_others(path, fields)
    base = fields.get("base_model_name_or_path")
    return Adapter(
        folder=folder,
        name=model_name(folder),
        base=base[:200] if isinstance(base, str) and base.isprintable() else "",
        rank=_rank(path, "r", fields.get("r", 8)),
        alpha=_alpha(path, "lora_alpha", fields.get("lora_alpha", 8)),
        ranks={key: _rank(path, f"rank_pattern of {key}", rank) for key, rank in _patterns(path, fields, "rank")},
        alphas={key: _alpha(path, f"alpha_pattern of {key}", a) for key, a in _patterns(path, fields, "alpha")},
        rslora=_flag(path, fields, "use_rslora"),
        dora=_flag(path, fields, "use_dora"),
        stored=_stored(files),
    )


def identity(folder: Path) -> str:
    """Twelve digits that tell an adapter here from any other: of the SHA-256 of its two files."""
    digest = hashlib.sha256()
    for name in (ADAPTER, WEIGHTS):
        with (folder / name).open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]


@attrs.frozen(kw_only=True)
class AdapterFacts:
    """What an adapter is, as far as its configuration and header tell."""

    name: str
    #: the model that it was trained on, as it says; empty if it does not
    base: str
    #: of its pairs of matrices, sorted
    ranks: tuple[int, ...]
    alpha: float
    rslora: bool
    dora: bool
    #: how many matrices it changes, by the last part of the module's name
    changed: Mapping[str, int]
    #: tensors that it has in the place of the model's
    replaced: tuple[str, ...]
    parameters: int
    bytes: int


def adapter_facts(adapter: Adapter) -> AdapterFacts:
    """The facts of an adapter, for people."""
    pairs = {name: tensor for name, tensor in adapter.stored.items() if re.search(r"\.lora_(embedding_)?A\b", name)}
    changed = Counter(name.partition(".lora_")[0].rpartition(".")[2] for name in pairs)
    return AdapterFacts(
        name=adapter.name,
        base=adapter.base,
        ranks=tuple(sorted({tensor.shape[0] for tensor in pairs.values() if tensor.shape})),
        alpha=adapter.alpha,
        rslora=adapter.rslora,
        dora=adapter.dora,
        changed=dict(changed.most_common()),
        replaced=tuple(sorted(name for name in adapter.stored if ".lora_" not in name)),
        parameters=sum(tensor.count for tensor in adapter.stored.values()),
        bytes=sum(tensor.bytes for tensor in adapter.stored.values()),
    )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").exists()


def _stored(files: Files) -> dict[str, Stored]:
    """The tensors by name, without the prefix and without the name of a training's only adapter."""
    folder = files.folder
    if files.size(WEIGHTS) is None:
        pickled = files.size(WEIGHTS.replace(".safetensors", ".bin")) is not None
        found = "; adapter_model.bin is a pickle, which is not read: save it as safetensors" if pickled else ""
        raise ModelError(f"{folder} holds {ADAPTER}, but no {WEIGHTS}{found or '; fetch it again'}")
    named = dict[str, Stored]()
    for name, tensor in read_header(files, WEIGHTS).items():
        plain = re.sub(r"\.default(?=\.|$)", "", name.removeprefix(_PREFIX))
        if plain in named:
            raise ModelError(f"{folder / WEIGHTS} has {plain} twice, as {name} too; save the adapter again with peft")
        if tensor.dtype not in _READABLE:
            raise ModelError(f"{folder / WEIGHTS} has {name} as {tensor.dtype}; F32, F16 and BF16 are read")
        named[plain] = tensor
    if not named:
        raise ModelError(f"{folder / WEIGHTS} holds no tensors, so the adapter changes nothing; save it again")
    return named


def _refuse_others(path: Path, fields: Mapping[str, object]) -> None:
    beginning = fields.get("init_lora_weights", True)
    if not any(beginning is known or beginning == known for known in _BEGINNINGS):
        raise ModelError(
            f"{path} has init_lora_weights {beginning!r:.40}, which changes the model's own weights too: save the "
            "adapter anew with path_initial_model_for_weight_conversion, which makes a plain one of it"
        )
    for key, value in fields.items():
        # peft writes what is not used as null, false or empty
        if key not in _READ | _PASSED and value not in (None, False, "", [], {}):
            raise ModelError(f"{path} has {key[:60]} = {value!r:.60}, which is not merged here; {REMEDY}")


def _patterns(path: Path, fields: Mapping[str, object], kind: str) -> list[tuple[str, object]]:
    key = f"{kind}_pattern"
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, dict):
        raise ModelError(f"{path}: {key} must be an object from a module's name to its {kind}; found {value!r:.60}")
    entries = list(cast("dict[str, object]", value).items())
    for pattern, _ in entries:
        if not _is_pattern(pattern):
            raise ModelError(
                f"{path}: {key} has {pattern!r:.60}, and of regular expressions only ., .*, [0-9] and (a|b) are read; "
                "write the names of the modules out"
            )
    return entries


def _is_pattern(text: str) -> bool:
    if not _PATTERN.fullmatch(text) or len(re.findall(r"[*+]", text)) > _REPEATED:
        return False
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _matches(pattern: str, module: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _rank(path: Path, what: str, value: object) -> int:
    if type(value) is not int or not 0 < value <= _MOST_RANK:
        raise ModelError(f"{path}: {what[:80]} must be a positive whole number; found {value!r:.60}")
    return value


def _alpha(path: Path, what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise ModelError(f"{path}: {what[:80]} must be a number; found {value!r:.60}")
    return float(value)


def _flag(path: Path, fields: Mapping[str, object], key: str) -> bool:
    value = fields.get(key)
    if not isinstance(value, bool | None):
        raise ModelError(f"{path}: {key} must be true or false; found {value!r:.60}")
    return value is True


def open_adapter(folder: Path) -> Adapter:
    """The adapter in a folder; see `read_adapter`."""
    return read_adapter(FolderFiles(folder))

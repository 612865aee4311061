"""Ways to damage a model folder, each with what the one line that refuses it must say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import CONFIG, random_weights, write_checkpoint, write_safetensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WTE = "model.transformer.wte.weight"


def header_of(file: Path) -> tuple[dict[str, Any], bytes]:
    whole = file.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + size]), whole[8 + size :]


def write_header(file: Path, header: object, body: bytes, size: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes((len(text) if size is None else size).to_bytes(8, "little") + text + body)


def entry(change: Callable[[dict[str, Any]], object], name: str = WTE) -> Callable[[Path], None]:
    """Damage that changes one tensor's entry in the header."""

    def damage(folder: Path) -> None:
        header, body = header_of(folder / SINGLE)
        change(header[name])
        write_header(folder / SINGLE, header, body)

    return damage


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found, body = header_of(folder / SINGLE)
        change(found)
        write_header(folder / SINGLE, found, body)

    return damage


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / SINGLE).write_bytes(change((folder / SINGLE).read_bytes())) and None


def weights(change: Callable[[dict[str, Any]], object], **more: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = random_weights()
        change(tensors)
        write_checkpoint(folder, weights=tensors, **more)

    return damage


def index(change: Callable[[dict[str, Any]], object], shards: int = 2) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / SINGLE).unlink()
        write_checkpoint(folder, shards=shards)
        said = json.loads((folder / INDEX).read_text())
        change(said)
        (folder / INDEX).write_text(json.dumps(said))

    return damage


def index_text(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / SINGLE).unlink() or ((folder / INDEX).write_text(text) and None)


def copy_tensor(folder: Path) -> None:
    """A tensor in both shards, the index naming one."""
    index(lambda said: None)(folder)
    second = folder / "model-00002-of-00002.safetensors"
    tensors = {name: x for i, (name, x) in enumerate(random_weights().items()) if i % 2 or name == WTE}
    write_safetensors(second, tensors)


def shard_of_another(folder: Path) -> None:
    index(lambda said: None)(folder)
    extra = {name: x for i, (name, x) in enumerate(random_weights().items()) if i % 2}
    write_safetensors(folder / "model-00002-of-00002.safetensors", {**extra, "other": np.ones(2, np.float32)})


def pickled(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "pytorch_model.bin")


def unindexed(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "model-00001-of-00001.safetensors")


def quantised(folder: Path) -> None:
    header(lambda h: h.update({WTE: {**h[WTE], "dtype": "U32"}, WTE.replace("weight", "scales"): h.pop(WTE)}))
    found, body = header_of(folder / SINGLE)
    found[WTE]["dtype"] = "U32"
    write_header(folder / SINGLE, found, body)


def config(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, **fields})) and None


MISSING, WHOLE = "model.transformer.ln_f.weight", "model.transformer.blocks.0.q_proj.weight"
OUT = "a shard must be a plain name that ends in .safetensors"
#: name: what is done to a good folder, and what the one line says of it
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (weights(lambda w: w.pop(MISSING)), rf"{MISSING} \[16\] is missing; fetch both again, of one commit$"),
    "surplus": (
        weights(lambda w: w.update(x=np.ones(2, np.float32))),
        r"x \[2\] is not a tensor of llada models; fetch both again, of one commit$",
    ),
    "shape": (
        weights(lambda w: w.update({WTE: w[WTE][:3]})),
        rf"{WTE} should be \[320, 16\]; found \[3, 16\]; fetch both again, of one commit$",
    ),
    "transposed": (
        weights(lambda w: w.update({WTE: w[WTE].T})),
        r"should be \[320, 16\]; found \[16, 320\]; fetch both again, of one commit$",
    ),
    "all-double": (
        weights(lambda w: None, dtype="F64"),
        "is stored as F64; F32, F16 and BF16 are read; .*; and 17 more; fetch both again, of one commit$",
    ),
    "quantised": (quantised, f"{WTE} is quantised, but .*wte.scales is missing; fetch both again, of one commit$"),
    "int8": (entry(lambda e: e.update(dtype="I8", shape=[320, 64])), "quantised in a way .* is stored as I8; take"),
    "float8": (entry(lambda e: e.update(dtype="F8_E4M3", shape=[320, 64])), "quantised in .* is stored as F8_E4M3"),
    "float4": (entry(lambda e: e.update(dtype="F4")), "quantised in a way .* is stored as F4"),
    "quantised-mode": (config(quantization={"bits": 4, "mode": "mxfp4"}), "has quantization with mode 'mxfp4': of"),
    "quantised-by": (
        config(quantization_config={"bits": 4, "quant_method": "gptq"}),
        "has quantization_config with quant_method 'gptq': of quantised weights only those that MLX calls affine",
    ),
    "quantised-somehow": (config(quantization_config={"quant_method": "fp8"}), "with quant_method 'fp8' and no bits"),
    "quantised-so": (config(quantization=True), "has quantization with True: of quantised"),
    "cut-in-the-data": (
        raw(lambda b: b[:-4]),
        r"is damaged: its tensors end at byte \d+, but the file at byte \d+; fetch",
    ),
    "trailing-bytes": (raw(lambda b: b + b"1234"), "is damaged: its tensors end at byte"),
    "cut-in-the-header": (raw(lambda b: b[:40]), r"damaged: it says that its header has \d+ bytes, but only 32 follow"),
    "cut-in-the-length": (raw(lambda b: b[:4]), "damaged: a safetensors file has at least 8 bytes, this one 4"),
    "empty": (raw(lambda b: b""), "damaged: a safetensors file has at least 8 bytes, this one 0"),
    "git-lfs-pointer": (
        raw(lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "model.safetensors is a pointer of git-lfs, not the file itself: run 'git lfs pull'",
    ),
    "header-length-lie": (
        raw(lambda b: (2**63).to_bytes(8, "little") + b[8:]),
        f"its header has {2**63} bytes, but only",
    ),
    "header-not-json": (raw(lambda b: b[:8] + b"[" + b[9:]), "damaged: its header is not valid JSON"),
    "header-not-utf8": (raw(lambda b: b[:8] + b"\xff" + b[9:]), "damaged: its header is not valid JSON"),
    "header-a-list": (lambda f: write_header(f / SINGLE, [], b""), "expected an object; found list"),
    "header-deep": (lambda f: write_header(f / SINGLE, b"[" * 200_000, b""), "not valid JSON .it is nested too deeply"),
    "name-of-two-lines": (header(lambda h: h.update({"a\nb": h.pop(WTE)})), r"'a\\nb' cannot be the name of a tensor"),
    "endless-name": (header(lambda h: h.update({"a" * 9999: h.pop(WTE)})), "damaged: 'a{80}' cannot be the name"),
    "index-strange-name": (
        index_text(json.dumps({"weight_map": {"a\tb": "a.safetensors"}})),
        r"'a\\tb' cannot be the name of a tensor",
    ),
    "key-twice": (lambda f: write_header(f / SINGLE, b'{"a":1,"a":1}', b""), "the key 'a' is there twice"),
    "entry-a-number": (header(lambda h: h.update({WTE: 3})), f"entry of {WTE} must have dtype, shape and data_offsets"),
    "entry-without-shape": (entry(lambda e: e.pop("shape")), "must have dtype, shape and data_offsets"),
    "negative-shape": (entry(lambda e: e.update(shape=[-320, -16])), "must have dtype, shape and data_offsets"),
    "fractional-shape": (entry(lambda e: e.update(shape=[320.0, 16])), "must have dtype, shape and data_offsets"),
    "true-shape": (entry(lambda e: e.update(shape=[True, 5120])), "must have dtype, shape and data_offsets"),
    "billion-rows": (entry(lambda e: e.update(shape=[10**9, 16])), "takes 64000000000 bytes, but 20480 are given"),
    "many-axes": (entry(lambda e: e.update(shape=[1] * 99)), "has 99 axes; at most 8 make sense"),
    "backward-offsets": (entry(lambda e: e.update(data_offsets=[8, 0])), "must have dtype, shape and data_offsets"),
    "three-offsets": (entry(lambda e: e.update(data_offsets=[0, 8, 9])), "must have dtype, shape and data_offsets"),
    "offset-too-far": (entry(lambda e: e.update(data_offsets=[0, 2**40])), f"{2**40} are given"),
    "overlap": (entry(lambda e: e.update(data_offsets=[0, 64]), MISSING), "overlaps another tensor"),
    "gap": (header(lambda h: h.pop(WTE)), "leaves 20480 bytes unused"),
    "pickle": (pickled, r"pickled weights only \(pytorch_model.bin\); unpickling runs code"),
    "nothing": (
        lambda f: (f / SINGLE).unlink(),
        f"holds neither {SINGLE} nor {INDEX}; its weights are not there; fetch them again$",
    ),
    "shards-without-index": (unindexed, "found model-00001-of-00001.safetensors: shards are read with their index"),
    "index-not-json": (index_text("{"), "must be JSON with an object weight_map"),
    "index-a-list": (index_text("[]"), "expected an object; found list"),
    "index-without-map": (index_text("{}"), "it lacks weight_map"),
    "index-map-a-list": (index_text('{"weight_map": []}'), r"from tensor to file: found \[\]"),
    "index-map-empty": (index_text('{"weight_map": {}}'), r"found \{\}"),
    "index-name-twice": (index_text('{"weight_map": {"a": "b", "a": "c"}}'), "the key 'a' is there twice"),
    "index-up": (index_text('{"weight_map": {"a": "../a.safetensors"}}'), OUT),
    "index-absolute": (index_text('{"weight_map": {"a": "/etc/a.safetensors"}}'), OUT),
    "index-down": (index_text('{"weight_map": {"a": "b/a.safetensors"}}'), OUT),
    "index-backslash": (index_text(r'{"weight_map": {"a": "..\\a.safetensors"}}'), OUT),
    "index-newline": (index_text('{"weight_map": {"a": "a.safetensors\\n"}}'), OUT),
    "index-number": (index_text('{"weight_map": {"a": 7}}'), "names the shard 7; a shard must be"),
    "index-absent-shard": (
        index(lambda s: s["weight_map"].update(x="gone.safetensors")),
        "'gone.safetensors', which is not in",
    ),
    "index-a-folder": (
        lambda f: (index_text('{"weight_map": {"a": "a.safetensors"}}')(f), (f / "a.safetensors").mkdir()),
        "not in the folder",
    ),
    "index-wrong-shard": (
        index(lambda s: s["weight_map"].update({WTE: "model-00002-of-00002.safetensors"})),
        f"{WTE} is not in model-00002",
    ),
    "index-silent": (
        index(lambda s: s["weight_map"].pop(WTE)),
        f"{WTE} in model-00001-of-00002.safetensors is not named; fetch them again, of one commit$",
    ),
    "shard-of-another": (
        shard_of_another,
        "other in model-00002-of-00002.safetensors is not named; fetch them again, of one commit$",
    ),
    "twice": (copy_tensor, f"{WTE} is there 2 times, in model-00001-of-00002.safetensors and model-00002-of"),
    "dangling-link": (lambda f: ((f / SINGLE).unlink(), (f / SINGLE).symlink_to(f / "gone")), "link to one that"),
    "nan": (weights(lambda w: w[WHOLE].__setitem__((3, 1), np.nan)), rf"damaged: {WHOLE} is nan at \[3, 1\]; fetch"),
    "inf": (weights(lambda w: w[WHOLE].__setitem__((0, 0), np.inf)), rf"damaged: {WHOLE} is inf at \[0, 0\]; fetch"),
}

"""What is the MLX backend's own: converted models from the command line, devices, memory, compiled passes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES, WIDE, family_weights, write_checkpoint, write_family
from queries import query

mx: Any = pytest.importorskip("mlx.core")

from mdsample_cli.main import main
from mdsample_mlx import backend, device, trunk
from mdsample_mlx.backend import open_model

import mdsample
from mdsample import testing
from mdsample.backend.installed import installed_backends, runs
from mdsample.backend.setup import Setup
from mdsample.errors import ModelError
from mdsample.models.cache import Cache, Dual, Exact
from mdsample.policy.guide import NoGuide

TEMPLATE = "Q {prompt} R{reasoning:6:blind} A{answer:3}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("bits", ["4", "8"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_converted_and_run_from_the_command(
    family: str, bits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quantised by the command, loaded again with the same words, and run with early exit."""
    source, out = write_family(tmp_path / "in", family, config=WIDE[family]), tmp_path / "out"
    assert main(["convert", str(source), str(out), "--bits", bits, "--group-size", "32"]) == 0
    capsys.readouterr()
    said: list[Any] = []
    for name in ("mlx", "reference"):
        options = ["--backend", name, "--device", "cpu", "--dtype", "float32", "--policy", "med+early-exit"]
        assert main(["run", "the cat", "--model", str(out), "--template", TEMPLATE, "--json", *options]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert [row["backend"] for row in said] == ["mlx", "reference"]
    assert said[0]["slots"] == said[1]["slots"] and said[0]["nfe"] == said[1]["nfe"] > 0


def test_two_ways_of_packing_in_one_model(tmp_path: Path) -> None:
    """Some converters give more bits to some matrices, experts among them."""
    from checkpoints import quantised

    plain = family_weights("llada2_moe", WIDE["llada2_moe"])
    four, eight = (quantised(plain, bits, 32)[0] for bits in (4, 8))
    mixed = dict(four)
    for name in plain:
        if ".v_proj." in name or ".experts.1.down_proj." in name or name.startswith("lm_head."):
            stem = name.removesuffix("weight")
            mixed |= {part: eight[part] for part in (name, stem + "scales", stem + "biases")}
    folder = write_family(tmp_path, "llada2_moe", config=WIDE["llada2_moe"], weights=mixed)
    found, expected = (mdsample.load(folder, name).predict(query(NoGuide())).marginals for name in ("mlx", "reference"))
    assert np.array_equal(found.token, expected.token)


def test_refusals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "is_available", lambda device: device == mx.cpu)
    with pytest.raises(ModelError, match="the mlx backend has no device 'cuda'; write gpu or cpu"):
        open_model(folder, Setup(device="cuda"))
    with pytest.raises(ModelError, match=r"device 'gpu' is not available to mlx [\d.]+ here; available: cpu"):
        open_model(folder, Setup(device="gpu"))
    with pytest.raises(ModelError, match="there is no dtype 'int8' here; there are: float32, bfloat16, float16"):
        open_model(folder, Setup(device="cpu", dtype="int8"))


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = mx.Device(mx.gpu), mx.Device(mx.cpu)
    assert device.choose_dtype(None, cpu, "BF16") == "float32"
    assert device.choose_dtype(None, gpu, "BF16") == "bfloat16"
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    assert device.is_gpu(device.choose_device(None)) and not device.is_gpu(device.choose_device("cpu"))


def test_a_gpus_memory_is_what_the_system_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    wired: list[int] = []
    info = {"max_recommended_working_set_size": 5000, "memory_size": 9000, "device_name": "Apple M0"}
    monkeypatch.setattr(mx, "device_info", lambda device: info)
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1000)
    monkeypatch.setattr(mx, "set_wired_limit", wired.append)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    device.wire(mx.Device(mx.cpu))
    assert not wired
    device.wire(mx.Device(mx.gpu))
    assert wired == [5000] and device.free_memory(mx.Device(mx.gpu)) == 4000
    first, second = backend.devices()
    assert (first.name, first.available, first.about, second.name) == ("gpu", 4000, "Apple M0", "cpu")


def test_packed_weights_need_less(tmp_path: Path) -> None:
    from checkpoints import quantised

    packed, _ = quantised(family_weights("llada", WIDE["llada"]), 4, 32)
    folder = write_family(tmp_path, "llada", config=WIDE["llada"], weights=packed, dtype="BF16")
    facts = mdsample.inspect(folder)
    [mlx], [torch] = runs(facts, folder, "mlx", device="cpu"), runs(facts, folder, "torch", device="cpu")
    assert mlx.memory == facts.memory_packed["float32"] and torch.memory == facts.memory["float32"]
    assert 3 * facts.memory_packed["float32"] < facts.memory["float32"]
    opened = open_model(folder, Setup(device="cpu"))
    held = [a for layer in opened.trunk._matrices for matrix in layer.values() for a in matrix.arrays]
    held += [a for layer in opened.trunk._vectors for a in layer.values()]
    held += [*opened.trunk._embed.arrays, *opened.trunk._head.arrays, opened.trunk._norm]
    # embedding and head are filled up to whole blocks of the vocabulary
    assert 0 <= sum(a.nbytes for a in held) - facts.memory_packed["float32"] < 2 * 512 * (16 + 8 + 8)


def test_is_listed() -> None:
    [found] = (found for found in installed_backends() if found.name == "mlx")
    assert found.fault == "" and found.devices[-1].name == "cpu"


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"model.safetensors") as caught:
        open_model(folder, Setup(device="cpu"))
    assert "\n" not in str(caught.value)


def no_compiler() -> bool:
    return shutil.which("g++") is None


@pytest.mark.slow
@pytest.mark.skipif(no_compiler(), reason="MLX compiles by g++ on a CPU, and there is none")
@pytest.mark.parametrize(("family", "cache"), [("llada", None), ("dream", Dual(2)), ("llada2_moe", Exact())])
def test_compiled_passes_give_the_same(family: str, cache: Cache | None, tmp_path: Path) -> None:
    folder = write_family(tmp_path, family)
    plain, compiled = (open_model(folder, Setup(device="cpu", cache=cache, compile=yes)) for yes in (False, True))
    texts = [{"prompt": "Ann has 12 coins"}, {"prompt": "the cat"}, {"prompt": ""}]
    canvas = mdsample.Template.parse(TEMPLATE).canvas(plain.tokenizer, texts)
    traced: list[int] = []
    own = trunk.MlxTrunk._layer

    def layer(self: Any, *rest: Any) -> Any:
        traced.append(rest[0])
        return own(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        for policy in ("med", "one-by-one", "random+top(2)+temperature(0.7)"):
            expected = testing.run(mdsample.parse(policy), plain, canvas)
            patch.setattr(trunk.MlxTrunk, "_layer", layer)
            found = testing.run(mdsample.parse(policy), compiled, canvas)
            patch.setattr(trunk.MlxTrunk, "_layer", own)
            for row in range(len(texts)):
                testing.same_row(expected, row, found, row)
    # Python walks through the first layers once for each shape, and through the last one in every look
    assert 0 < traced.count(0) < 0.7 * traced.count(plain.trunk.spec.layers - 1)


def test_without_a_compiler_compile_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("[Compile::eval_cpu] Failed to compile")

    monkeypatch.setattr(device, "evaluate", fails)
    with pytest.raises(ModelError, match=r"compile=True does not work here: .* leave it out"):
        open_model(folder, Setup(device="cpu", compile=True))

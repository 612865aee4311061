"""What is told of a checkpoint without reading its weights: the right facts, from headers alone, here and on a hub."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import huggingface_hub
import huggingface_hub.constants
import pytest
from checkpoints import END, FAMILIES, START, family_shapes, write_checkpoint, write_family
from damage import DAMAGE, write_header
from hubs import Hub, serving
from hypothesis import given
from hypothesis import strategies as st
from mdsample_cli.main import main
from published import PUBLISHED

import mdsample
from mdsample.backend import load as loading
from mdsample.backend.installed import Backend, Run, installed_backends, runs
from mdsample.backend.load import GROUP
from mdsample.backend.reference import backend as reference
from mdsample.backend.reference.backend import open_model
from mdsample.backend.setup import Choice, Device, Setup
from mdsample.errors import ModelError
from mdsample.models import find, hub
from mdsample.models.denoiser import Denoiser
from mdsample.models.families import FAMILIES as READERS
from mdsample.models.families import published, read_config
from mdsample.models.families.special import Special
from mdsample.models.inspect import Facts, File, Token
from mdsample.models.menu import families_menu

SINGLE = "model.safetensors"


def counts(shapes: Mapping[str, tuple[int, ...]], chosen: int) -> tuple[int, int]:
    """All weights, and those that a token meets if it goes through the first `chosen` experts, by published names."""
    total = sum(map(math.prod, shapes.values()))
    expert = re.compile(r"\.mlp\.experts\.(\d+)\.")
    idle = (math.prod(shape) for name, shape in shapes.items() if (at := expert.search(name)) and int(at[1]) >= chosen)
    return total, total - sum(idle)


# the facts


@pytest.mark.parametrize("family", FAMILIES)
def test_facts_of_every_family(family: str, tmp_path: Path) -> None:
    config, mask = FAMILIES[family]
    facts = mdsample.inspect(write_family(tmp_path / "tiny", family, dtype="BF16", shards=2))
    assert facts.trunk == read_config(tmp_path / "tiny") and facts.name == "tiny"
    total, active = counts(family_shapes(family), int(str(config.get("num_experts_per_tok", 0))))
    assert (facts.parameters, facts.active_parameters) == (total, active)
    assert (active < total) == (facts.trunk.experts is not None)
    assert (facts.mask, facts.end) == (Token(2, mask), Token(1, END))
    assert facts.start == (Token(0, START) if family == "llada" else None)
    assert (facts.dtype, facts.stored) == ("BF16", {"BF16": total})
    assert facts.memory == {"float32": 4 * total, "bfloat16": 2 * total, "float16": 2 * total}
    files = sorted((tmp_path / "tiny").glob("*.safetensors"))
    assert facts.files == tuple(File(file.name, file.stat().st_size) for file in files) and len(files) == 2
    assert facts.bytes == sum(file.bytes for file in facts.files) > 2 * total
    of_four = ("sdar", "sdar_moe", "fast_dllm", "dream_reasoner", "stable_diffcoder", "nemotron")
    block = {"llada2_moe": 32, **dict.fromkeys(of_four, 4)}.get(family)
    assert (facts.trunk.block, facts.trunk.shifted) == (block, family in ("dream", "rnd1", "fast_dllm"))
    assert facts.trunk.led == (family == "nemotron")


def test_scaled_positions_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_family(tmp_path, "sdar", config={"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})
    assert main(["inspect", str(folder), "--backend", "reference"]) == 0
    assert "length      48 tokens at most; positions scaled by 4 (yarn)\n" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--backend", "reference", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["trunk"]["rope_scaling"]
    assert (told["kind"], told["factor"], told["original"]) == ("yarn", 4.0, 48.0)


@given(st.sampled_from(["llada_moe", "llada2_moe", "sdar_moe"]), st.data())
def test_counts_of_experts(family: str, data: st.DataObject) -> None:
    few = st.integers(1, 5)
    chosen = data.draw(few)
    changes: dict[str, object] = {
        **{"num_experts_per_tok": chosen, "num_experts": data.draw(st.integers(chosen, 8)), "n_group": 1},
        **{"topk_group": 1, "moe_intermediate_size": data.draw(few), "expert_intermediate_size": data.draw(few)},
        **{"num_shared_experts": data.draw(few), "mask_token_id": 2, "hidden_size": 8 * data.draw(few)},
    }
    known = {name: value for name, value in changes.items() if name in FAMILIES[family][0] or name == "mask_token_id"}
    trunk = READERS[family]({**FAMILIES[family][0], **known}, Special())
    assert (trunk.parameters, trunk.active_parameters) == counts(family_shapes(family, changes), chosen)


def test_types_are_counted_by_weights(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, dtype="F16", shards=2)
    whole = mdsample.inspect(folder)
    write_checkpoint(tmp_path / "b", shards=2)
    name = "model-00002-of-00002.safetensors"
    (tmp_path / "b" / name).rename(folder / name)
    mixed = mdsample.inspect(folder)
    assert whole.stored == {"F16": whole.parameters} and mixed.stored.keys() == {"F16", "F32"}
    assert sum(mixed.stored.values()) == whole.parameters and list(mixed.stored.values()) == sorted(
        mixed.stored.values(), reverse=True
    )


def test_every_embedded_model() -> None:
    for name in find.embedded_models():
        facts = mdsample.inspect(name)
        assert facts.name == name and facts.description and facts.mask.text


# only headers are read


def enormous(folder: Path) -> Path:
    """A checkpoint of half a terabyte that takes a few kilobytes: holes stand where the weights would be."""
    write_checkpoint(folder, config={"vocab_size": 2**32, "embedding_size": 2**32}, weights={})
    spec = read_config(folder)
    header: dict[str, Any] = {}
    end = 0
    for ours, source in spec.layouts[0].items():
        size = 4 * math.prod(spec.shapes[ours])
        header[getattr(source, "name")] = {  # noqa: B009
            **{"dtype": "F32", "shape": spec.shapes[ours], "data_offsets": [end, end + size]}
        }
        end += size
    write_header(folder / SINGLE, header, b"")
    os.truncate(folder / SINGLE, (folder / SINGLE).stat().st_size + end)
    return folder


def test_no_weight_is_read(tmp_path: Path) -> None:
    facts = mdsample.inspect(enormous(tmp_path))
    assert facts.memory["float32"] == 4 * facts.parameters > 2**39
    assert facts.bytes == os.path.getsize(tmp_path / SINGLE)
    [run] = runs(facts, tmp_path, "reference")
    assert run.fault.startswith("too little memory; ") and run.memory == facts.memory["float32"]


# the two left out show in the weights alone
@pytest.mark.parametrize("name", [name for name in DAMAGE if name not in ("nan", "inf")])
def test_damage_is_told_as_loading_tells_it(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    damage, said = DAMAGE[name]
    damage(folder)
    told: list[str] = []
    for read in (mdsample.load, mdsample.inspect):
        with pytest.raises(ModelError, match=said) as caught:
            read(folder)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_other_refusals_are_those_of_loading(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    with pytest.raises(ModelError, match="there is no model 'no such model': "):
        mdsample.inspect("no such model")
    with pytest.raises(ModelError, match="revision='main' is for models on the hub"):
        mdsample.inspect(folder, revision="main")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer.json"):
        mdsample.inspect(folder)


# the hub


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(tmp_path / "served", tmp_path / "cache", monkeypatch) as hub:
        yield hub


@pytest.mark.parametrize("head", [3, 1 << 17])
@pytest.mark.parametrize("shards", [1, 3])
def test_the_hub_gives_the_same_facts(shards: int, head: int, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_HEAD", head)
    folder = write_family(server.folder, "llada2_moe", shards=shards)
    (folder / "chat_template.jinja").write_text("User: {{ messages[0].content }} Assistant: ")
    here = mdsample.inspect(folder)
    assert here.chat == "chat_template.jinja" and here.template == "User: {prompt} Assistant: {answer:128}"
    there = mdsample.inspect("org/tiny", revision="v1")
    assert there == attrs.evolve(here, name="org/tiny")
    if head == 3:
        assert server.sent < server.folder.joinpath(here.files[0].name).stat().st_size, "headers alone were sent"


def test_of_enormous_weights_only_the_beginning_is_fetched(server: Hub, tmp_path: Path) -> None:
    facts = mdsample.inspect(enormous(server.folder) and "org/tiny")
    assert facts.bytes > 2**38 and server.sent <= 1 << 17
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_damage_on_the_hub_and_other_failures_are_one_line(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(server.folder)
    server.ranges = False
    with pytest.raises(ModelError, match=r"^org/tiny at .* hub: no part of model.safetensors can be had, only all of"):
        mdsample.inspect("org/tiny")
    server.ranges = True
    with pytest.raises(ModelError, match=r"^org/gone is not a folder here .* there is no such model, or it is private"):
        mdsample.inspect("org/gone")
    (server.folder / SINGLE).write_bytes((server.folder / SINGLE).read_bytes()[:-4])
    with pytest.raises(ModelError, match=r"is damaged: its tensors end at byte \d+, but the file at byte \d+; fetch"):
        mdsample.inspect("org/tiny")
    (server.folder / SINGLE).rename(server.folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds pickled weights only \(pytorch_model.bin\)"):
        mdsample.inspect("org/tiny")


def test_of_a_model_on_the_hub_only_what_it_needs_is_fetched(server: Hub, tmp_path: Path) -> None:
    folder = write_family(server.folder, "llada2_moe", shards=3)
    for name in ("consolidated.safetensors", "modeling.py", "pytorch_model.bin", "a.md"):
        (folder / name).write_bytes(b"?")
    model = mdsample.load("org/tiny", backend="reference")
    assert server.whole == {file.name for file in mdsample.inspect(folder).files}
    fetched = {path.name for path in (tmp_path / "cache").rglob("*") if not path.is_dir()}
    assert not fetched & {"consolidated.safetensors", "modeling.py", "pytorch_model.bin", "a.md"}
    same = {"policy": "med", "template": "{prompt}{answer:4}"}
    here = mdsample.sample(mdsample.load(folder, backend="reference"), "Ann", **same)
    assert mdsample.sample(model, "Ann", **same).tokens.tolist() == here.tokens.tolist()


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: change_config(folder, model_type="wedlm"), "has model_type 'wedlm'; supported: "),
        (lambda folder: change_config(folder, n_layers=3), "the weights in .* do not fit config.json"),
        (lambda folder: change_config(folder, mask_token_id=310), "the mask token is 310 by config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% if"), "the chat template in "),
        (lambda folder: (folder / SINGLE).rename(folder / "pytorch_model.bin"), "holds pickled weights only"),
        (lambda folder: (folder / "mdsample.toml").write_text("x = 1"), "unknown key 'x'"),
    ],
)  # fmt: skip
def test_nothing_but_facts_is_asked_for_before_a_refusal(
    damage: Callable[[Path], object], told: str, backend: str, server: Hub, tmp_path: Path
) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    damage(write_checkpoint(server.folder))
    with pytest.raises(ModelError, match=told):
        mdsample.load("org/tiny", backend=backend)
    assert not server.whole and not list((tmp_path / "cache").rglob("*.safetensors"))


def test_what_does_not_fit_is_refused_before_a_weight_is_fetched(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(server.folder)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "available_memory", lambda: 1000)
        with pytest.raises(ModelError, match=r"^org/tiny: too little memory; take a smaller dtype"):
            mdsample.load("org/tiny", backend="reference")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9))
        with pytest.raises(
            ModelError, match=r"would take [\d.]+ KiB more, but 0.0 KiB are free there; free some, or set"
        ):
            mdsample.load("org/tiny", backend="reference")
    assert not server.whole
    mdsample.load("org/tiny", backend="reference")
    assert server.whole == {SINGLE}


def test_offline_the_cache_is_looked_at_and_nothing_is_asked(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(server.folder)
    facts = mdsample.inspect("org/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(Hub, "answer", None)
    with pytest.raises(ModelError, match=r"holds neither model\.safetensors nor "):
        mdsample.inspect("org/tiny")
    cached = Path(huggingface_hub.constants.HF_HUB_CACHE, "models--org--tiny", "snapshots", server.commit)
    (server.folder / SINGLE).rename(cached / SINGLE)
    assert mdsample.inspect("org/tiny") == facts


# backends and families


def pretend(monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    found = tuple(EntryPoint(name, value, GROUP) for name, value in entries.items())
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: found)  # pyright: ignore[reportUnknownLambdaType]


def silent(folder: Path, *, device: str | None, dtype: str | None) -> Denoiser:
    """The opener of a backend that does not say what it runs on."""
    return open_model(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return mdsample.inspect(write_checkpoint(tmp_path_factory.mktemp("models") / "tiny", dtype="BF16"))


def test_backends(monkeypatch: pytest.MonkeyPatch, tiny: Facts) -> None:
    fault = "No module named 'no_such_framework'; install what it needs"
    pretend(monkeypatch, other="no_such_framework:open_model", quiet=f"{__name__}:silent")
    other, quiet, reference = installed_backends()
    assert (other, quiet) == (Backend("other", fault, ()), Backend("quiet", "", ()))
    assert reference.name == "reference" and [device.name for device in reference.devices] == ["cpu"]
    first, *rest = runs(tiny, "tiny")
    assert first.backend == "reference" and not first.fault and first.memory == tiny.memory["float32"]
    assert first.choice == Choice(Device("cpu", first.choice.device.available if first.choice else 0), "float32")
    assert rest == [Run("other", fault), Run("quiet")]
    with pytest.raises(ModelError, match=r"'other' cannot be imported \(No module named .*\); install what it needs"):
        runs(tiny, "tiny", "other")
    with pytest.raises(ModelError, match=r"there is no backend 'jax'; installed: quiet, reference"):
        runs(tiny, "tiny", "jax")
    with pytest.raises(ModelError, match="the reference backend runs on the cpu only, not on 'cuda'"):
        runs(tiny, "tiny", "reference", device="cuda")


def test_what_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    [entry] = (entry for entry in entry_points(group=GROUP) if entry.name == "torch")
    assert entry.dist is not None

    def load(self: EntryPoint) -> Callable[..., Denoiser]:
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(EntryPoint, "load", load)
    assert loading.missing(entry) == "No module named 'torch'; pip install 'mdsample[torch]'"


def test_memory_decides(monkeypatch: pytest.MonkeyPatch, tiny: Facts) -> None:
    def choose(stored: str, setup: Setup) -> Choice:
        assert stored == "BF16"
        return Choice(Device("cuda:0", available, "a GPU"), setup.dtype or "bfloat16")

    def beside(_: object, function: str) -> object:
        return choose if function == "choose" else None

    monkeypatch.setattr(loading, "beside", beside)
    available: int | None
    for available, fits in ((tiny.memory["bfloat16"], True), (tiny.memory["bfloat16"] - 1, False), (None, True)):
        [run] = runs(tiny, "tiny", "reference", device="cuda")
        assert (not run.fault, run.memory) == (fits, tiny.memory["bfloat16"])
        [run] = runs(tiny, "tiny", "reference", dtype="float32")
        assert bool(run.fault) == (available is not None) and run.memory == tiny.memory["float32"]


def test_torch_says_what_it_would_take(tiny: Facts) -> None:
    torch = pytest.importorskip("torch")
    [backend] = (backend for backend in installed_backends() if backend.name == "torch")
    assert not backend.fault and "cpu" in {device.name for device in backend.devices}
    [run] = runs(tiny, "tiny", "torch", device="cpu", dtype="float16")
    assert run.choice is not None and (run.choice.device.name, run.choice.dtype) == ("cpu", "float16")
    [run] = runs(tiny, "tiny", "torch")
    assert run.choice is not None and run.choice.device.name == backend.devices[0].name
    with pytest.raises(ModelError, match="there is no dtype 'int8' here; there are: float32, bfloat16, float16"):
        runs(tiny, "tiny", dtype="int8")
    assert torch.cuda.is_available() == any(device.name.startswith("cuda") for device in backend.devices)


def test_published_checkpoints_have_their_published_sizes() -> None:
    known, sizes = {name: trunk.parameters for name, trunk in published().items()}, set[int]()
    for _, _, count in PUBLISHED.values():
        sizes.add(count)
    # DiffusionGemma's shapes are those of transformers, tests/backend/test_gemma.py
    sizes.add(25_250_986_812)
    assert set(known.values()) <= sizes and known["GSAI-ML/LLaDA-8B-Instruct"] == 8_015_581_184
    for entry in (entry for family in families_menu() for entry in family.published):
        # 8B, A1B, 0.6B: what their names say, rounded; Nemotron's 3B leaves out embedding and head
        total = re.search(r"(\d+(?:\.\d)?)B\b", entry.name)
        if total and "A1B" not in entry.name:
            trunk = published()[entry.name]
            apart = 2 * trunk.vocab_size * trunk.d_model if trunk.led else 0
            assert (entry.parameters - apart) / 1e9 == pytest.approx(float(total[1]), rel=0.12)
        assert entry.memory == 2 * known[entry.name] and entry.quantised(4) == 4.5 / 8 * known[entry.name] // 1
    assert published()["inclusionAI/LLaDA2.0-mini"].active_parameters == pytest.approx(1.4e9, rel=0.03)


def test_every_family_is_told_once() -> None:
    families = families_menu()
    assert sorted(kind for family in families for kind in family.types) == sorted(READERS)
    assert all(family.about and "model_type" not in family.about for family in families)

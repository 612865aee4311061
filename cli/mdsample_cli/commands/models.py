"""`mdsample models` and `inspect`: which models there are and what they run on, and what one of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer
from typer import Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError
from mdsample_cli.groups import grouped
from mdsample_cli.plan import PlanOptions, rows_of_plan

if TYPE_CHECKING:
    from mdsample.backend.installed import Backend, Device, Run
    from mdsample.models.families.trunk import Trunk
    from mdsample.models.inspect import Facts, Token
    from mdsample.models.menu import FamilyEntry
    from mdsample.models.weights.adapter import AdapterFacts


def models(json: options.JsonObject = False) -> None:
    """Embedded models, families that can be read, backends and devices."""
    from rich.text import Text

    from mdsample.backend.installed import installed_backends
    from mdsample.models import menu
    from mdsample.models.weights.checkpoint import size_text
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line

    embedded, families, backends = menu.models_menu(), menu.families_menu(), installed_backends()
    if json:
        sections = {"models": embedded, "families": families, "backends": backends}
        typer.echo(line({name: [attrs.asdict(entry) for entry in entries] for name, entries in sections.items()}))
        return
    out = render.console()
    published = render.table(out, ["weights", "bfloat16", "8 bits", "4 bits"], _published(families), first="on the hub")
    render.show(
        out,
        render.listing(
            [
                *(
                    (entry.name, render.plain(f"{entry.description}\n{size_text(entry.bytes)} on disk"))
                    for entry in embedded
                ),
                ("also", "a folder in a published layout, or a hub id: --model organisation/model"),
            ]
        ),
        Text.assemble("\n", ("families", "bold"), ": model_type in config.json, and which models have it"),
        render.listing((", ".join(entry.types), entry.about) for entry in families),
        Text.assemble("\n", ("memory", "bold"), ": what the weights take, as published and as convert packs them"),
        published,
        Text.assemble("\n", ("backends", "bold"), ": what is installed, and its devices"),
        render.listing((backend.name, render.plain(_devices(backend))) for backend in backends),
    )


@grouped
def inspect(
    plan: PlanOptions,
    model: options.ModelArgument,
    revision: options.Revision = None,
    adapter: options.Adapter = None,
    backend: Annotated[
        str, Option(metavar="NAME", help="What it would run on; auto answers for every backend.")
    ] = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.JsonObject = False,
) -> None:
    """What a checkpoint is, and whether it can run here; no weight is read, and none is fetched from the hub.

    Memory is that of the weights alone; a forward pass takes more, the more rows and tokens it has. Of an adapter alone
    it says what it changes and in which model. A plan is arithmetic on the model's sizes: what each pass must read and
    multiply, over what the device does in a second; real passes take longer.
    """
    from mdsample.backend.installed import runs
    from mdsample.errors import ModelError
    from mdsample.models import inspect as facts
    from mdsample.models.find import facts_folder
    from mdsample.models.weights.adapter import is_adapter
    from mdsample_cli.show import render
    from mdsample_cli.show.json_line import line

    plan.check()
    try:
        checkpoint = facts.inspect(model, revision=revision, adapter=adapter)
    except ModelError:
        if adapter is not None or not is_adapter(facts_folder(model, revision)):
            raise
        if plan.plan:
            raise UsageError(
                "an adapter alone has no passes to plan; name its model, and the adapter with --adapter"
            ) from None
        alone = facts.inspect_adapter(model, revision=revision)
        if json:
            typer.echo(line(attrs.asdict(alone)))
            return
        rows = [*_adapter(alone), ("run it", f"mdsample run --model {alone.base or 'MODEL'} --adapter {model}")]
        render.show(render.console(), render.listing((label, render.plain(text)) for label, text in rows))
        return
    verdicts = runs(checkpoint, model, backend, device=device, dtype=dtype)
    kind = next((run.choice.dtype for run in verdicts if run.choice is not None), "float32")
    predicted = plan.predicted(checkpoint.trunk, facts.SIZES[dtype or kind]) if plan.plan else None
    if json:
        # without the tensors' places in the files, which are internal
        record = attrs.asdict(checkpoint, filter=attrs.filters.exclude("layouts", "optional_tensors", "passed_over"))
        record |= {"runs": [attrs.asdict(run) for run in verdicts]}
        typer.echo(line(record if predicted is None else {**record, "plan": predicted}))
        return
    rows = [*_sizes(checkpoint), *_tokens(checkpoint), *_storage(checkpoint)]
    rows += [] if checkpoint.adapter is None else _adapter(checkpoint.adapter)
    rows += [("here", _verdict(run)) for run in verdicts]
    if predicted is not None:
        rows.append(("plan", _planned(predicted)))
    out = render.console()
    render.show(out, render.listing((label, render.plain(text)) for label, text in rows))
    if predicted is not None:
        passes, texts = rows_of_plan(predicted, predicted["batch"])
        render.show(out, "", render.table(out, ["ms", "of one", "bound by"], passes, first="a pass, predicted"))
        render.show(out, "", render.table(out, ["rounds", "NFE", "s", "texts/s"], texts, first="texts, predicted"))


def _planned(predicted: dict[str, Any]) -> str:
    machine = predicted["machine"]
    rates = f"{machine['bandwidth'] / 1e9:.4g} GB/s, {machine['rate'] / 1e12:.3g} TFLOP/s"
    texts = f"{predicted['length']:,} tokens, {predicted['blanks']:,} blanks, {predicted['window']} places a pass"
    return f"{rates}, {predicted['item']} bytes a weight; {texts}: predicted, not measured"


def _read_at(trunk: Trunk) -> str:
    if trunk.led and trunk.gemma is None:
        return "not shifted, but for the first position of an empty block"
    return "shifted: read one position to the left" if trunk.shifted else "not shifted"


def _sizes(facts: Facts) -> list[tuple[str, str]]:
    trunk = facts.trunk
    gate = "SwiGLU" if trunk.gemma is None else "GEGLU beside the experts"
    mlp = f", {gate} {trunk.mlp_size:,}" if trunk.gemma is not None or not trunk.sparse(0) else ""
    attention = "full" if trunk.block is None else f"block-causal, blocks of {trunk.block}"
    if trunk.led:
        attention = f"causal up to a block of {trunk.block}, counted from the end of the prompt"
    scaling = trunk.rope_scaling
    scaled = "" if scaling is None else f"; positions scaled by {scaling.factor:g} ({scaling.kind})"
    heads = f"{trunk.heads} heads of {trunk.head_dim}, {trunk.kv_heads} for keys and values"
    if trunk.gemma is not None:
        kv, size = trunk.heads_of(trunk.layers - 1)
        near = sum(trunk.gemma.near)
        heads += f", in {near} layers that see {trunk.gemma.window:,} positions; elsewhere of {size}, {kv} for both"
    shown = "" if trunk.noise == "mask" else "; blanks are shown as random tokens"
    if trunk.conditioned:
        shown += f"; {'a block' if trunk.led else 'each token'} sees its last prediction"
    return [
        ("model", f"{facts.name}\n{facts.description}".strip()),
        ("family", trunk.family),
        ("weights", f"{facts.parameters:,}"),
        ("layers", f"{trunk.layers}, {trunk.d_model:,} wide{mlp}"),
        ("experts", _experts(trunk, facts.active_parameters)),
        ("attention", f"{attention}; {heads}{shown}"),
        ("length", f"{trunk.max_length:,} tokens at most{scaled}"),
        ("vocabulary", f"{trunk.vocab_size:,} tokens"),
        ("logits", _read_at(trunk)),
    ]


def _adapter(adapter: AdapterFacts) -> list[tuple[str, str]]:
    from mdsample.models.weights.checkpoint import size_text

    ranks = ", ".join(map(str, adapter.ranks)) or "none"
    kind = "".join((", DoRA" * adapter.dora, ", rank-stabilised" * adapter.rslora))
    changed = ", ".join(f"{count} {name}" for name, count in adapter.changed.items())
    replaced = f"; in the place of {', '.join(adapter.replaced)}" if adapter.replaced else ""
    return [
        ("adapter", f"{adapter.name}, of {adapter.base or 'a model that it does not name'}"),
        ("rank", f"{ranks}, alpha {adapter.alpha:g}{kind}"),
        ("changes", f"{changed or 'no matrix'}{replaced}"),
        ("its weights", f"{adapter.parameters:,}, {size_text(adapter.bytes)}"),
    ]


def _experts(trunk: Trunk, active: int) -> str:
    experts = trunk.experts
    if experts is None:
        return "none"
    shared_one = f" and a shared one {experts.shared_size:,} wide" if experts.shared_size else ""
    dense = f"; {experts.first} dense before them" if experts.first else ""
    return (
        f"{experts.count} a layer, {experts.size:,} wide{dense}; "
        f"a token goes through {experts.chosen} of them{shared_one}, and meets {active:,} weights"
    )


def _tokens(facts: Facts) -> list[tuple[str, str]]:
    def shown(token: Token | None) -> str:
        return "none" if token is None else f"{token.text}  {token.id}"

    others = [token for token in facts.ends if token != facts.end]
    return [
        ("mask", shown(facts.mask)),
        ("end", shown(facts.end)),
        *((("also ends", ", ".join(map(shown, others))),) if others else ()),
        ("start", shown(facts.start)),
        ("chat", f"template in {facts.chat}" if facts.chat else "none"),
        ("template", facts.template),
        ("policy", f"{facts.policy}, as published" if facts.policy else "none published"),
    ]


def _storage(facts: Facts) -> list[tuple[str, str]]:
    from mdsample.models.weights.checkpoint import size_text

    kinds = facts.stored
    types = next(iter(kinds)) if len(kinds) == 1 else ", ".join(f"{kind} ({count:,})" for kind, count in kinds.items())
    first, last = facts.files[0].name, facts.files[-1].name
    files = first if len(facts.files) == 1 else f"{len(facts.files)} files, {first} to {last}"
    memory = ", ".join(f"{size_text(needed)} in {dtype}" for dtype, needed in facts.memory.items())
    return [
        ("stored", f"{types}, {size_text(facts.bytes)}: {files}"),
        ("memory", f"{memory}: the weights alone; a forward pass takes more"),
        *(("left out", told) for told in facts.passed_over),
    ]


def _verdict(run: Run) -> str:
    from mdsample.models.weights.checkpoint import size_text

    if run.choice is None or run.memory is None:
        return f"{run.backend}: {run.fault or 'installed; it does not say where it would run'}"
    device = run.choice.device
    memory = size_text(run.memory)
    memory += "" if device.available is None else f" of {size_text(device.available)} available"
    return f"{run.backend}: {run.fault or 'fits'}; {run.choice.dtype} on {_named(device)}, {memory}"


def _published(families: tuple[FamilyEntry, ...]) -> list[tuple[str, ...]]:
    from mdsample.models.weights.checkpoint import size_text

    entries = sorted((entry for family in families for entry in family.published), key=lambda entry: entry.parameters)
    return [
        (
            entry.name,
            f"{entry.parameters / 1e9:.2f}e9",
            *(size_text(memory) for memory in (entry.memory, entry.quantised(8), entry.quantised(4))),
        )
        for entry in entries
    ]


def _devices(backend: Backend) -> str:
    from mdsample.models.weights.checkpoint import size_text

    if backend.fault:
        return f"not usable: {backend.fault}"
    free = (
        f"{_named(device)}{'' if device.available is None else f', {size_text(device.available)} available'}"
        for device in backend.devices
    )
    return "; ".join(free) or "usable; it does not list its devices"


def _named(device: Device) -> str:
    return f"{device.name} ({device.about})" if device.about else device.name

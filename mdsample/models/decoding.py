"""How checkpoints are published to be decoded: the policy that a model takes where nobody names another."""

from __future__ import annotations

from pathlib import Path

from mdsample.core.template import Template
from mdsample.models.card import Card, read_card
from mdsample.models.families import read_config
from mdsample.models.families.trunk import Trunk
from mdsample.models.find import facts_folder

#: by family, as policy text; each preset says where it was read
DECODING = {
    "Dream": "dream-entropy",
    "diffusion_gemma": "diffusion-gemma",
    "Fast_dLLM_Qwen": "fast-dllm-v2",
    "llada": "llada(none)+blocks(32)",
    "llada2_moe": "llada2",
    "llada_moe": "llada-moe",
    "nemotron_labs_diffusion": "nemotron",
    "rnd1": "rnd1",
    "sdar": "sdar",
    "sdar_moe": "sdar",
    "stable_diffcoder": "stable-diffcoder",
}
#: checkpoints of a family that only their names tell apart, and are decoded otherwise
_BY_NAME = {("Dream", "dream-coder"): "dream-coder", ("Dream", "diffucoder"): "diffucoder"}


def published_policy(trunk: Trunk, card: Card) -> str:
    """The text of the policy that a checkpoint is published with; empty: none is known.

    A folder that names a template of its own has slots that the published decoding knows nothing of, and one without an
    end token is not what was published: they get none. Nor do models that other authors made in a family's layout,
    DreamReasoner (Dream in blocks) and I-DLM (SDAR, causal and shifted): their decoding was not read, or is no policy.
    """
    stranger = {"Dream": trunk.block is not None, "sdar": trunk.shifted}.get(trunk.family, False)
    if card.own_template or trunk.end_id is None or stranger:
        return ""
    family, name = trunk.family, card.name.lower()
    named = (text for (kind, part), text in _BY_NAME.items() if kind == family and part in name)
    return next(named, DECODING.get(family, ""))


def default_text(published: str, template: Template) -> str:
    """The policy where nobody names one: `published`, else `med+early-exit`; without a slot `answer`, `med`."""
    return published or ("med+early-exit" if "answer" in template.slots else "med")


def default_of(name: str | Path, revision: str | None = None) -> tuple[str, str]:
    """The policy that a model takes where nobody names one, and a sentence why; no weight is read or fetched.

    Raises `ModelError` where the model is not there or cannot be read.
    """
    folder = facts_folder(name, revision)
    trunk, card = read_config(folder), read_card(folder)
    published = published_policy(trunk, card)
    text = default_text(published, Template.parse(card.template))
    if published:
        return text, f"{card.name} is a model of the family {trunk.family}, which is published with it."
    return text, f"Nothing is published for {card.name}; this is the default for its template."

"""The rest of our own surface: scores, the menu, what a policy means, and how the server is."""

from __future__ import annotations

from typing import Any

import attrs
from fastapi import APIRouter
from starlette.responses import Response

from mdsample.core.template import Template
from mdsample.jobs.scores import decided
from mdsample.models.decoding import default_text
from mdsample.models.denoiser import Denoiser
from mdsample.policy import menu
from mdsample.policy.base import MANY
from mdsample.policy.complete import in_full
from mdsample.policy.language import Language
from mdsample.policy.parsing import parse
from mdsample.sampling.prepared import prepare
from mdsample.scoring.decide import check_labels, decide
from mdsample.scoring.methods import ChainRule, MarginalProduct
from mdsample_serve import asking, bodies
from mdsample_serve.errors import Refused, about, as_json, wrong
from mdsample_serve.service import Service
from mdsample_serve.wishes import laid_out, parsed


def routes(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["mdsample's"])

    @router.post("/v1/score")
    async def score(body: bodies.Score) -> Response:
        """How probable labels are in slots, all of them in one pass, and what is none of them."""
        hosted = service.hosted(body.model)
        count = sum(map(len, body.labels.values()))
        if count > service.limits.labels:
            raise wrong(f"the request has {count} labels; {service.limits.labels} are the most", "labels")
        return as_json(await service.exclusively(hosted, lambda model: _scored(body, model)))

    @router.get("/v1/policies")
    async def policies() -> Response:
        """The menu: every part by the seat it fills, and the presets."""
        seats = [
            {
                "seat": seat,
                "question": menu.QUESTIONS[seat],
                "many": seat in MANY,
                "parts": [_entry(entry) for entry in entries],
            }
            for seat, entries in menu.parts_menu().items()
        ]
        return as_json({"seats": seats, "presets": [_entry(entry) for entry in menu.presets_menu()]})

    @router.post("/v1/explain")
    async def explain(body: bodies.Explain) -> Response:
        """What a policy does, or the one that a model takes where nobody names another."""
        why = ""
        hosted = service.hosted(body.model)
        model = hosted.worker.model
        if body.policy is None or not body.policy.strip():
            template = laid_out(body.template) if body.template else Template.parse(model.template)
            policy = parse(default_text(model.policy, template))
            why = f"It is what {hosted.name} takes here where nobody names a policy."
        else:
            policy = parsed(body.policy)
        if any(isinstance(part, Language) for part in policy.parts):
            parts = await service.compiled(hosted, lambda: list(menu.explain(policy, model.tokenizer)))
        else:
            parts = list(menu.explain(policy))
        empty = menu.empty_seats(policy)
        told = "\n\n".join(
            f"{part.seat}: {part.part}{'' if part.given else ' (by default)'}\n{part.told}" for part in parts
        )
        return as_json(
            {
                "policy": str(policy),
                "in_full": in_full(policy),
                "why": why,
                "text": told + "".join(f"\n\n{seat}: nothing" for seat in empty),
                "parts": [attrs.asdict(part, filter=_known) for part in parts],
                "empty": empty,
            }
        )

    @router.get("/healthz")
    async def healthz() -> Response:
        """Whether the server lives."""
        dead = [name for name, hosted in service.models.items() if not hosted.worker.alive]
        if dead:
            raise Refused(500, f"the worker of {dead[0]} has ended")
        return as_json({"status": "alive"})

    @router.get("/readyz")
    async def readyz() -> Response:
        """Whether it takes requests."""
        if service.stopping:
            raise Refused(503, "the server is stopping")
        for hosted in service.models.values():
            _: Denoiser = hosted.worker.model
        return as_json({"status": "ready"})

    @router.get("/metrics")
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _known(field: attrs.Attribute[Any], value: Any) -> bool:
    """A part without a language has none."""
    return field.name != "language" or value is not None


def _entry(entry: menu.Entry) -> dict[str, Any]:
    """A line of the menu; what a setting accepts, in words, stands under `domain`."""
    return {**attrs.asdict(entry), "signature": entry.signature, "doc": entry.about}


def _scored(body: bodies.Score, model: Denoiser) -> dict[str, Any]:
    template = Template.parse(model.template) if body.template is None else laid_out(body.template)
    texts = asking.fields_of(template, body.prompt, body.fields)
    given = body.given or {}
    with about("labels"):
        check_labels(model, template, body.labels, given)
    prepare(model, template, 0, texts, given)
    method = MarginalProduct() if body.method == "marginals" else ChainRule()
    decisions = decide(model, template, [texts], body.labels, method=method, given=[given])[0]
    return {
        **decided(decisions),
        "method": str(method),
        "nfe": decisions.nfe,
        "model": model.name,
        "template": str(template),
        "backend": model.backend,
    }

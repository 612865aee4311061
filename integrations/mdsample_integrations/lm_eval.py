"""lm-evaluation-harness: mdsample as a model of it, under the name `mdsample`.

`mdsample lm-eval …` takes the harness's own options and works with every release from 0.4.13 on; later ones also find
the model by its entry point, so that `lm_eval --model mdsample` does. `model_args` are the arguments of `Mdsample`.
"""

# pyright: basic
# the harness has no types of its own
from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

import mdsample
from mdsample.core.tokens import parted, until_end
from mdsample.errors import ModelError, PolicyError, TemplateError
from mdsample.models.decoding import default_text
from mdsample.models.denoiser import Denoiser
from mdsample.models.text.chat_template import ChatTemplate, read_chat_template
from mdsample.policy.draw import Temperature
from mdsample.policy.language import Language
from mdsample.policy.stop import Until
from mdsample.sampling.arguments import as_policy
from mdsample.sampling.engine import BATCH_SIZE, fill
from mdsample.sampling.prepared import Prepared, prepare
from mdsample.scoring.continuations import Asked, Continuation, continuations
from mdsample.scoring.methods import ChainRule, MarginalProduct, Method, MonteCarloBound

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_LOG = logging.getLogger(__name__)
#: tokens to generate where a task names no number, as the harness has it for its own models
_GENERATED = 256
_LIKELIHOODS = ("auto", "chain", "product", "bound")
#: what a task may say of generating, and with which value it means nothing
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "top_p": (None, 1, 1.0),
    "top_k": (None, 0, -1),
    "num_beams": (None, 1),
    "repetition_penalty": (None, 1, 1.0),
    "num_return_sequences": (None, 1),
}


@register_model("mdsample")
class Mdsample(LM):
    """A model on a backend of mdsample, with a policy.

    `pretrained`: an embedded model, a folder or a hub id, or one that is loaded; `backend`, `dtype`, `cache`,
    `adapter`, `revision` and `device` as `mdsample.load` takes them. `policy`: text, by default the model's own
    decoding. `template`: puts the context into its one field and generates its slots, whose lengths count then in place
    of the task's; `own` is the model's. Without one a slot `answer` follows the context, as long as the task allows.
    `seed` and a document's name fix every random number. `speculate`: how many steps to guess.

    `likelihood`: `chain` (chain rule from left to right: as many passes as tokens), `product` (of marginals: one
    pass), `bound` (LLaDA's Monte Carlo bound of `samples` passes; the choices of a question see the same masks) or
    `auto`, the chain rule where it takes no more passes than the bound. For a continuation of one token all of them but
    the bound are one pass, and exact.

    Each document's passes and error bounds are written beside its arguments in `--log_samples`, under `mdsample`.
    """

    def __init__(
        self,
        pretrained: str | Denoiser = "tiny-gsm",
        *,
        backend: str = "auto",
        device: str | None = None,
        dtype: str | None = None,
        cache: str | None = None,
        adapter: str | None = None,
        revision: str | None = None,
        policy: str | None = None,
        template: str | None = None,
        seed: int = 0,
        speculate: int | str | None = None,
        likelihood: str = "auto",
        samples: int = 128,
        max_length: int | None = None,
        batch_size: int | str = BATCH_SIZE,
        max_batch_size: int | None = None,
    ) -> None:
        """Opens the model. Raises `ModelError`, `PolicyError` or `TemplateError`."""
        super().__init__()
        if likelihood not in _LIKELIHOODS:
            raise ModelError(f"likelihood is one of {', '.join(_LIKELIHOODS)}; got {likelihood!r}")
        if max_batch_size is not None and not str(batch_size).startswith("auto"):
            raise ModelError("max_batch_size has no meaning beside a batch_size; leave it out")
        self._processes = _processes()
        if self._processes is not None:
            self._rank, self._world_size = self._processes.process_index, self._processes.num_processes
        self._model = (
            mdsample.load(
                pretrained,
                backend=backend,
                device=self._placed(device),
                dtype=dtype,
                cache=cache,
                adapter=adapter,
                revision=revision,
            )
            if isinstance(pretrained, str)
            else pretrained
        )
        self._device = None if self._processes is None else self._processes.device
        own = template == "own"
        self._template = mdsample.Template.parse(self._model.template if own else template) if template else None
        if self._template is not None and len(self._template.fields) != 1:
            raise TemplateError(
                "the context fills the one field of a template, but this one has: "
                f"{', '.join(self._template.fields) or 'none'}"
            )
        shape = self._template or mdsample.Template.parse(f"{{prompt}}{{answer:{_GENERATED}}}")
        self._policy = as_policy(default_text(self._model.policy, shape) if policy is None else policy)
        self._seed, self._speculate = seed, speculate
        self._likelihood, self._bound = likelihood, MonteCarloBound(samples, seed=seed)
        self._longest = min(max_length or self._model.max_length, self._model.max_length)
        self._batch_size = BATCH_SIZE if str(batch_size).startswith("auto") else int(batch_size)
        self._chat = False

    # what a task generates

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text after each context, up to the first of its stop strings."""
        names, texts = _names(requests), dict[str, str]()
        groups: dict[tuple[object, ...], list[int]] = {}
        asked = [self._generation(request) for request in requests]
        for number, (_, ends, length, temperature) in enumerate(asked):
            groups.setdefault((ends, length, temperature), []).append(number)
        facts: dict[str, dict[str, Any]] = {}
        jobs = [(self._sampler(*key), numbers) for key, numbers in groups.items()]  # type: ignore[arg-type]
        rows_of = [[self._prepared(names[n], asked[n][0], asked[n][2]) for n in numbers] for _, numbers in jobs]
        slots = ("answer",) if self._template is None else self._template.slots
        for (sampler, numbers), rows in zip(jobs, rows_of, strict=True):
            ends = {names[n]: asked[n][1] for n in numbers}
            for row in fill(sampler, self._model, slots, rows, batch_size=self._batch_size, speculate=self._speculate):
                name = str(row.id)
                texts[name] = _cut(self._text(row), ends[name])
                shown = row.to_dict()
                facts[name] = {key: shown[key] for key in ("nfe", "rounds", "outcome", "error_bound", "tv_bound")}
        for request, name in zip(requests, names, strict=True):
            context, options = _arguments(request)[:2]
            self.cache_hook.add_partial("generate_until", request.args, texts[name])
            before = options.get("mdsample", [])
            request.arguments = (context, {**options, "mdsample": [*before, facts[name]]})
        return [texts[name] for name in names]

    def _generation(self, request: Instance) -> tuple[str, tuple[str, ...], int, float]:
        """Context, stop strings, tokens and temperature; `PolicyError` for what cannot be done."""
        context, options = _arguments(request)[0], dict(_arguments(request)[1])
        options.pop("mdsample", None)
        ends = options.pop("until", None) or ()
        length = int(options.pop("max_gen_toks", None) or options.pop("max_new_tokens", None) or _GENERATED)
        drawn = options.pop("do_sample", None)
        temperature = float(options.pop("temperature", None) or 0)
        for name, value in options.items():
            if name not in _NEUTRAL or value not in _NEUTRAL[name]:
                raise PolicyError(
                    f"task {request.task_name} asks for {name}={value!r} in generating, which the model mdsample does "
                    "not take; set it to nothing with --gen_kwargs, or say it in the policy, as in cooling(1,top_p=0.9)"
                )
        ends = (ends,) if isinstance(ends, str) else tuple(ends)
        return context, tuple(end for end in ends if end), length, 0.0 if drawn is False else temperature

    def _sampler(self, ends: tuple[str, ...], length: int, temperature: float) -> mdsample.Sampler:
        policy = self._policy
        # a slot's language says itself where a text ends; the stop strings are cut off afterwards
        spoken = any(isinstance(part, Language) for part in policy.parts)
        if ends and self._model.tokenizer.end_id is not None and not spoken:
            policy = policy + Until(ends)
        if temperature > 0 and not policy.at("draw"):
            policy = policy + Temperature(temperature)
        return mdsample.Sampler(policy, seed=self._seed)

    def _prepared(self, name: str, context: str, length: int) -> Prepared:
        if self._template is not None:
            if self._chat:
                raise TemplateError("a template takes plain contexts; leave out the template or --apply_chat_template")
            return prepare(self._model, self._template, name, {self._template.fields[0]: context})
        tokens = self._fitted(self._encode(context), length, name)
        blanks = [False] * len(tokens) + [True] * length
        mask = self._model.tokenizer.mask_id
        return Prepared(name, [*tokens, *[mask] * length], [*[-1] * len(tokens), *[0] * length], blanks)

    def _text(self, row: mdsample.Row) -> str:
        """What the model wrote; with a template also the fixed text between slots."""
        if self._template is not None:
            return row.text
        written = row.tokens[(row.slot == 0) & ~row.blank].tolist()
        return self._model.tokenizer.decode(until_end(written, self._model.tokenizer))

    # how probable a text is

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, nats, and whether greedy decoding from left to right writes it.

        The second is known under the chain rule only, and false elsewhere, as in LLaDA's own evaluation.
        """
        asked = [self._asked(request) for request in requests]
        found = self._scored(asked)
        for request, one in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, (one.log_probability, bool(one.greedy)))
            request.arguments = (*_arguments(request)[:2], {"mdsample": _facts(one)})
        return [(one.log_probability, bool(one.greedy)) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each text, nats, in windows as long as the model allows."""
        totals: list[float] = []
        for request in requests:
            (text,) = _arguments(request)[:1]
            start = self._model.tokenizer.start
            tokens = self._model.tokenizer.encode(text)
            # the harness's windows begin with one token that is not scored; where a model has none, it is cut off again
            windows = get_rolling_token_windows(
                tokens, start[-1] if start else -1, self._longest - max(1, len(start)), 1
            )
            question = f"{request.task_name}/{request.doc_id}"
            asked = [
                Asked(tuple(token for token in context if token >= 0), tuple(continuation), f"{question}/{number}")
                for number, (context, continuation) in enumerate(map(make_disjoint_window, windows))
            ]
            found = self._scored(asked)
            total = sum(one.log_probability for one in found)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
            request.arguments = (text, {"mdsample": {"nfe": sum(one.nfe for one in found)}})
            totals.append(total)
        return totals

    def _asked(self, request: Instance) -> Asked:
        """The pair as the harness's own models part it: a space at the context's end belongs to the continuation."""
        context, continuation = _arguments(request)[:2]
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        whole, before = self._encode(kept + continuation), self._encode(kept)
        tokens = tuple(whole[len(before) :])
        name = f"{request.task_name}/{request.doc_id}"
        return Asked(tuple(self._fitted(before, len(tokens), name)), tokens, name)

    def _scored(self, asked: Sequence[Asked]) -> list[Continuation]:
        """Each by the method that suits its question."""
        longest: dict[int | str, int] = {}
        for one in asked:
            longest[one.question] = max(longest.get(one.question, 0), len(one.continuation))
        groups: dict[Method, list[int]] = {}
        for number, one in enumerate(asked):
            groups.setdefault(self._method(longest[one.question]), []).append(number)
        found: dict[int, Continuation] = {}
        for method, numbers in groups.items():
            scored = continuations(self._model, [asked[n] for n in numbers], method, batch_size=self._batch_size)
            found |= dict(zip(numbers, scored, strict=True))
        return [found[number] for number in range(len(asked))]

    def _method(self, length: int) -> Method:
        if self._likelihood == "product":
            return MarginalProduct()
        if self._likelihood == "chain" or (self._likelihood == "auto" and length <= self._bound.samples):
            return ChainRule()
        return self._bound

    # texts and tokens

    def _encode(self, text: str) -> list[int]:
        """Token ids after those that stand before every text; a chat's special tokens mean themselves."""
        tokenizer = self._model.tokenizer
        pieces = parted(text, tokenizer.special) if self._chat else iter([text])
        tokens: list[int] = []
        for piece in pieces:
            special = self._chat and piece in tokenizer.special
            tokens += [tokenizer.special_id(piece)] if special else tokenizer.encode(piece)
        begun = tuple(tokens[: len(tokenizer.start)]) == tuple(tokenizer.start)
        return tokens if begun else [*tokenizer.start, *tokens]

    def _fitted(self, tokens: list[int], length: int, name: str) -> list[int]:
        """The context's end where context and `length` more tokens are too long for the model; says so."""
        room = self._longest - length
        if room < 0:
            raise TemplateError(f"{name} asks for {length} tokens; {self._model.name} takes at most {self._longest}")
        if len(tokens) > room:
            _LOG.warning(
                "%s: the first %d of %d tokens of the context are left out", name, len(tokens) - room, len(tokens)
            )
        return tokens[len(tokens) - min(room, len(tokens)) :]

    # chats, and what the harness wants to know

    @cached_property
    def _chats(self) -> ChatTemplate:
        folder = getattr(self._model.tokenizer, "folder", None)
        found = None if folder is None else read_chat_template(folder)
        if found is None:
            raise ModelError(f"{self._model.name} has no chat template; leave out --apply_chat_template")
        return found

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The chat as the checkpoint writes it."""
        self._chat = True
        return self._chats.text(chat_history, prompt=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Its source, for the harness's records."""
        if isinstance(chat_template, str):
            raise ModelError(f"there is one chat template, and no choice of them by name; got {chat_template!r}")
        return self._chats.source if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        """What the harness's caches of requests tell models apart by."""
        return self._model.name.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What made the numbers, for the harness's records."""
        return {"model": self._model.name, "backend": self._model.backend, "policy": str(self._policy)}

    # several processes

    def _placed(self, device: str | None) -> str | None:
        """The harness says cuda:0 where nobody says anything; with several processes each has a device of its own."""
        if device is None or not device.startswith("cuda"):
            return device
        if self._processes is not None and self._processes.device.type == "cuda":
            return str(self._processes.device)
        return device if device != "cuda:0" or _has_cuda() else None

    def all_gather(self, tensor: Any) -> Any:
        """A tensor of every process, one after another."""
        return tensor if self._processes is None else self._processes.gather(tensor.reshape(1))

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """A value of every process, at one of them."""
        if self._processes is None:
            return [obj]
        import torch.distributed  # pyright: ignore[reportMissingImports]

        found = [None] * self._world_size if self._rank == dst else None
        torch.distributed.gather_object(obj, found, dst=dst)
        return found

    def barrier(self) -> None:
        """Waits for all processes."""
        if self._processes is not None:
            self._processes.wait_for_everyone()


def _processes() -> Any:
    """What `accelerate launch` started, `None` for a process alone."""
    try:
        from accelerate import Accelerator  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    found = Accelerator()
    return found if found.num_processes > 1 else None


def _has_cuda() -> bool:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _names(requests: Sequence[Instance]) -> list[str]:
    """Task, document and repeat of each request: its row's id, whichever process it runs in."""
    seen: Counter[str] = Counter()

    def names() -> Iterator[str]:
        for request in requests:
            name = f"{request.task_name}/{request.doc_id}/{request.idx}"
            seen[name] += 1
            yield f"{name}/{seen[name] - 1}"

    return list(names())


def _arguments(request: Instance) -> tuple[Any, ...]:
    return request.args


def _cut(text: str, ends: Sequence[str]) -> str:
    """Up to the first of the stop strings."""
    return text[: min((at for end in ends if (at := text.find(end)) >= 0), default=len(text))]


def _facts(one: Continuation) -> dict[str, float]:
    return {"nfe": one.nfe, "standard_error": one.standard_error}

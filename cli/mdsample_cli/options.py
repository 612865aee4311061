"""What several commands share: their options, and how names on the command line become values."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, overload

import attrs
from typer import Argument, Option

from mdsample_cli.errors import UsageError
from mdsample_cli.files import read_source, read_text, text_or_file
from mdsample_cli.groups import OptionGroup

if TYPE_CHECKING:
    from mdsample.core.template import Template
    from mdsample.core.tokens import Tokenizer
    from mdsample.jobs.requests import Requests
    from mdsample.models.chat import Chats
    from mdsample.models.denoiser import Denoiser
    from mdsample.policy.base import Policy
    from mdsample.sampling.speculate import Speculation

MODEL = "tiny-gsm"
#: a policy, for errors
_EXAMPLE = "med(0.2)+early-exit"
#: after an interrupt
RESUME = "finished rows are written; run the same command again to resume"

ModelArgument = Annotated[
    str, Argument(metavar="MODEL", help="An embedded model, a folder, or a hub id (organisation/model).")
]
Revision = Annotated[str | None, Option(metavar="REV", help="Branch, tag or commit of a model on the hub.")]
Device = Annotated[
    str | None, Option(metavar="NAME", help="cpu, cuda, cuda:1 or mps; with MLX gpu or cpu. Default: best.")
]
Dtype = Annotated[
    str | None, Option(metavar="NAME", help="float32, bfloat16 or float16. Default: float32 on a CPU, else as stored.")
]
Adapter = Annotated[
    str | None,
    Option(
        "--adapter",
        metavar="NAME",
        help="A low-rank adapter in peft's layout, a folder or a hub id (@ and a revision after it), to be merged in.",
    ),
]
Prompt = Annotated[str | None, Argument(metavar="PROMPT", help="Text for the template's field.")]
Records = Annotated[
    Path | None,
    Option("--output", "-o", metavar="FILE", help="Append one JSON line per row as it finishes; run again to resume."),
]
AnswersFile = Annotated[
    Path | None, Option("--output", "-o", metavar="FILE", help="Keep every answer as a JSON line; run again to resume.")
]
AnswerAs = Annotated[
    str, Option(metavar="TEXT", help="How the right answer is written, {} being the answer, as in ' {}'.")
]
Seed = Annotated[int, Option(metavar="N", help="Seed; with the ids of the rows it fixes every random number.")]
BatchSize = Annotated[
    int, Option(metavar="N", min=1, help="Rows in one forward pass; changes the time, never the results.")
]
Speculate = Annotated[
    str | None,
    Option(
        metavar="K",
        help="Guess K steps, or KxW with W guesses of each: fewer passes follow one another, and the results stay "
        "what they are.",
    ),
]
JsonRows = Annotated[bool, Option("--json", metavar="", help="Print JSON lines on stdout, in the input's order.")]
JsonLines = Annotated[bool, Option("--json", metavar="", help="Print JSON lines on stdout.")]
JsonObject = Annotated[bool, Option("--json", metavar="", help="Print one JSON object.")]


@attrs.frozen(kw_only=True)
class ModelOptions(OptionGroup):
    """A model and what it runs on."""

    panel: ClassVar = "Model"

    model: Annotated[
        str,
        Option("--model", "-m", metavar="NAME", help="An embedded model, a folder, or a hub id (organisation/model)."),
    ] = MODEL
    revision: Revision = None
    adapter: Adapter = None
    backend: Annotated[
        str, Option(metavar="NAME", help="torch, mlx, reference or another one installed; auto chooses.")
    ] = "auto"
    device: Device = None
    dtype: Dtype = None
    cache: Annotated[
        str,
        Option(
            metavar="NAME",
            help="exact, for block-causal models; prefix or dual, both approximate; "
            "dual(8) recomputes everything every 8 passes.",
        ),
    ] = "none"
    compile: Annotated[
        bool, Option("--compile", metavar="", help="Let torch or MLX compile layers: seconds for each new shape.")
    ] = False

    def load(self) -> Denoiser:
        """The model, ready to predict."""
        from mdsample.backend.load import load

        return load(
            self.model,
            self.backend,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            cache=self.cache,
            compile=self.compile,
            adapter=self.adapter,
        )


@attrs.frozen(kw_only=True)
class TemplateOptions(OptionGroup):
    """The text around the slots."""

    panel: ClassVar = "Template"

    template: Annotated[
        str | None,
        Option(
            "--template",
            "-t",
            metavar="TEXT",
            help="Text with {fields} and {slots:length}, or @FILE. Default: the model's, or the task's.",
        ),
    ] = None
    chat: Annotated[
        bool | None,
        Option(
            "--chat/--no-chat",
            metavar="",
            help="Put the template into the model's chat template; the text before the first slot is the user's "
            "message. Default: yes for the model's own template, no for --template.",
        ),
    ] = None
    system: Annotated[
        str | None, Option(metavar="TEXT", help="A system message; the template then goes into the chat template.")
    ] = None

    @cached_property
    def _text(self) -> str | None:
        """What --template says; a file is read once, as it may be standard input."""
        return None if self.template is None else text_or_file(self.template)

    @overload
    def open(self, model: str, revision: str | None, default: str) -> Template: ...
    @overload
    def open(self, model: str, revision: str | None, default: None = None) -> Template | None: ...
    def open(self, model: str, revision: str | None, default: str | None = None) -> Template | None:
        """The template given as text or `@file`, else `default`, in the chat template of `model` if that is asked for.

        `None` if nothing is asked for: the template is the one that suits the model.
        """
        from mdsample.core.template import Template
        from mdsample.models.card import read_card
        from mdsample.models.chat import chat as in_chat
        from mdsample.models.find import facts_folder

        if self.system is not None and self.chat is False:
            raise UsageError("--system is a message of the chat that --no-chat leaves out; give one of them")
        text = default if self._text is None else self._text
        if self.chat or self.system is not None:
            return in_chat(model, text, system=self.system, revision=revision)
        if text is None and self.chat is False:
            card = read_card(facts_folder(model, revision))
            text = None if card.plain == card.template else card.plain
        return None if text is None else Template.parse(text)

    def open_with(self, model: ModelOptions, loaded: Denoiser | None = None) -> tuple[Template, Denoiser, Chats]:
        """The template to fill, the model, and where messages go; a wrong template is refused before loading.

        `loaded`: what is known of the model, where a crew has it.
        """
        from mdsample.core.template import Template

        chosen = self.open(model.model, model.revision)
        denoiser = model.load() if loaded is None else loaded
        layout = chosen or Template.parse(denoiser.template)
        return layout, denoiser, self.chats(denoiser.tokenizer, denoiser.name, denoiser.template)

    def chats(self, tokenizer: Tokenizer, name: str, own: str, default: str | None = None) -> Chats:
        """Where messages of rows go: around the template as it is outside of a chat.

        `name`, `own`: of the model, and its template's text. `default` as for `open`.
        """
        from mdsample.core.template import Template
        from mdsample.models.chat import Chats

        text = default if self._text is None else self._text
        plain = None if text is None or text == own else Template.parse(text)
        barred = "messages of a row go into the chat template that --no-chat leaves out; leave out one of them"
        return Chats(tokenizer, name, plain, system=self.system, barred=barred if self.chat is False else "")


@attrs.frozen(kw_only=True)
class InputOptions(OptionGroup):
    """Rows, and texts of slots that are given rather than sampled."""

    panel: ClassVar = "Input"

    input: Annotated[
        str | None,
        Option(
            "--input",
            "-i",
            metavar="FILE",
            help="JSON lines (fields by name or messages, id; other keys go into the record) or a prompt a line; - is "
            "stdin.",
        ),
    ] = None
    fill: Annotated[
        list[str] | None,
        Option(
            metavar="SLOT=TEXT",
            help="Pre-fill a slot with TEXT in every row (verbatim; the model does not change it). May be repeated.",
        ),
    ] = None
    fill_from: Annotated[
        list[str] | None,
        Option(metavar="SLOT=KEY", help="Pre-fill a slot from a key of each row of --input. May be repeated."),
    ] = None

    @property
    def in_every_row(self) -> dict[str, str]:
        """Slot to text."""
        return _by_slot(self.fill, "--fill")

    @property
    def from_rows(self) -> dict[str, str]:
        """Slot to key of a row."""
        return _by_slot(self.fill_from, "--fill-from")

    def check(self) -> None:
        """Refuses options that contradict each other, or need rows where there are none."""
        if self.from_rows and self.input is None:
            raise UsageError("--fill-from takes keys of the rows of --input; give one, or say --fill SLOT=TEXT")
        if both := sorted(self.in_every_row.keys() & self.from_rows.keys()):
            raise UsageError(f"slot {both[0]!r} is given by --fill and by --fill-from; leave one of them out")

    def read(self, template: Template, choices: str | None = None, expected: str | None = None) -> Requests | None:
        """The rows of --input, `None` without; the keywords as for `Requests`."""
        from mdsample.jobs.requests import Requests

        if self.input is None:
            return None
        return Requests(
            read_source(self.input),
            template,
            name=self.input,
            keys=self.from_rows,
            fixed=self.in_every_row,
            choices=choices,
            expected=expected,
        )


@attrs.frozen(kw_only=True)
class PolicyOptions(OptionGroup):
    """One policy, as text or from a file."""

    panel: ClassVar = "Policy"

    policy: Annotated[
        str | None,
        Option(
            "--policy",
            "-p",
            metavar="POLICY",
            help="For example 'med(0.2)+early-exit(0.1)'. Default: what the model is published with (explain "
            "--model), else med+early-exit; in a chat, and without a slot 'answer', med.",
        ),
    ] = None
    policy_file: Annotated[str | None, Option(metavar="FILE", help="Read the policy from a TOML file.")] = None
    steps: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help="Add steps(N) to the policy: all blanks in N steps, but at least one for each block.",
        ),
    ] = None

    def label(self, opened: Policy) -> str:
        """The policy as it was typed, for people; `opened`: what it was read as."""
        if self.policy_file is not None:
            return str(opened) or "the defaults"
        steps = "" if self.steps is None else f"steps({self.steps})"
        return "+".join(filter(None, (self.policy or "", steps))) or "the defaults"

    def open(self) -> Policy | None:
        """The policy, or `None` if no option is given."""
        from mdsample.errors import SpecError
        from mdsample.policy.base import Policy
        from mdsample.policy.parsing import parse
        from mdsample.policy.toml import from_toml

        text, file, steps = self.policy, self.policy_file, self.steps
        if text is not None and file is not None:
            raise UsageError("--policy and --policy-file are two policies; give one of them")
        if text is None and file is None and steps is None:
            return None
        try:
            if text is not None:
                policy = policy_of(text, "--policy", "leave the option out for the default")
            else:
                policy = Policy() if file is None else from_toml(read_text(file))
        except SpecError as error:
            raise UsageError(f"{file}: {error}" if file is not None else str(error)) from error
        if file is not None and not policy.parts:
            raise UsageError(f"{file} holds no part of a policy; write one, as in: policy = {_EXAMPLE!r}")
        try:
            return policy if steps is None else parse("+".join(filter(None, (str(policy), f"steps({steps})"))))
        except SpecError as error:
            raise UsageError(f"--steps {steps} is short for '+steps({steps})': {error}") from error


def policy_of(text: str, option: str, otherwise: str = "") -> Policy:
    """The policy that a text means; `SpecError` for a wrong one, `UsageError` for none.

    `option`: where it was given, for the error. `otherwise`: what else one may do.
    """
    from mdsample.policy.parsing import parse

    if not text.strip():
        raise UsageError(
            f"{option} is empty; write a policy, such as {_EXAMPLE!r}" + (otherwise and f", or {otherwise}")
        )
    return parse(text)


def speculation_of(text: str | None) -> Speculation | None:
    """What --speculate says."""
    from mdsample.sampling.speculate import read_speculation

    try:
        return None if text is None else read_speculation(text)
    except ValueError as error:
        raise UsageError(f"--speculate: {error}") from error


def check_answer_as(text: str) -> None:
    """Refuses an `AnswerAs` without a place for the answer."""
    if text.count("{}") != 1:
        raise UsageError(f"--answer-as needs {{}} once, where the answer goes; got {text!r}")


def _by_slot(pairs: list[str] | None, option: str) -> dict[str, str]:
    """`SLOT=TEXT`, or `SLOT=KEY`, once for each slot."""
    texts: dict[str, str] = {}
    for pair in pairs or []:
        slot, equals, text = pair.partition("=")
        if not slot or not equals:
            raise UsageError(f"{option} takes the name of a slot, = and what goes into it; got {pair!r}")
        if slot in texts:
            raise UsageError(f"{option} sets slot {slot!r} twice; keep one")
        texts[slot] = text
    return texts

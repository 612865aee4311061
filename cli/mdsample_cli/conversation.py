"""A conversation with a model: its messages, how replies are made, and its transcript."""

from __future__ import annotations

import stat
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import attrs

import mdsample
from mdsample.core.files import mode, write_whole
from mdsample.core.template import Template
from mdsample.jobs.job import Job
from mdsample.jobs.lines import line, parsed
from mdsample.models.chat import plain_template
from mdsample.models.denoiser import Denoiser
from mdsample.models.text.chat_template import ROLES, read_chat_template
from mdsample.policy.complete import as_run
from mdsample.sampling.prompts import Message
from mdsample.sampling.speculate import Speculation
from mdsample.sampling.structured import Structured
from mdsample.sampling.trace import versions
from mdsample_cli.errors import UsageError

#: that of a conversation if none is given and none published: all of a reply is there to be read
POLICY = "med"
#: a transcript is read whole
_LARGEST = 1 << 26  # bytes


@attrs.define
class Conversation:
    """Messages so far, and what the next reply is made with.

    A model without a chat template answers each message by itself, in its own template.
    """

    model: Denoiser
    #: text of the template around the last message and the reply; `None`: the model's own
    template: str | None = None
    #: as it was typed
    policy: str = POLICY
    seed: int = 0
    #: JSON of this schema is what each reply says; `None`: any text
    schema: object = None
    #: how many steps are guessed, see `mdsample.sampling.speculate`
    speculate: Speculation | None = None
    messages: list[Message] = attrs.field(factory=list[Message])
    #: what each reply was made with, and what it cost
    replies: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]])
    #: whether the model has a chat template, so that it sees the turns before
    is_chat: bool = attrs.field(init=False, default=attrs.Factory(lambda talk: _is_chat(talk.model), takes_self=True))

    @property
    def system(self) -> str | None:
        """The system message, the first one if there is one."""
        first = self.messages[0] if self.messages else None
        return None if first is None or first["role"] != "system" else first["content"]

    def check(self) -> None:
        """Refuses a policy or a template that does not suit the model; the errors of `mdsample.sample`."""
        layout = self._layout
        if len(layout.fields) != 1:
            raise UsageError(
                "a message fills the one field of a template, but this one has: "
                f"{', '.join(layout.fields) or 'none'}; give --template '{{prompt}}{{answer:128}}', say"
            )
        if self.system is not None and not self.is_chat:
            raise UsageError(f"{self.model.name} has no chat template, so no place for a system message; leave it out")
        Job(self.model, layout, mdsample.Sampler(self._policy, seed=self.seed), speculate=self.speculate)

    @property
    def _layout(self) -> Template:
        """What a reply stands in; with a schema, outside of the chat."""
        if self.structured is not None:
            return self.structured.template
        return Template.parse(self.model.template if self.template is None else self.template)

    @property
    def structured(self) -> Structured | None:
        """The schema in the template, if there is one."""
        if self.schema is None:
            return None
        if self.template is None and self.is_chat:
            plain = plain_template(self.model.tokenizer)
        else:
            plain = Template.parse(self.model.template if self.template is None else self.template)
        return Structured.of(self.schema, plain, self.model.tokenizer)

    @property
    def _policy(self) -> mdsample.Policy:
        policy, structured = mdsample.parse(self.policy), self.structured
        return policy if structured is None else structured.policy(policy)

    def text(self, row: mdsample.Row) -> str:
        """What a reply says."""
        return row.text if self.structured is None else self.structured.text(row)

    def say(self, text: str) -> Iterator[mdsample.Row]:
        """The reply to a message after each step; when it is complete, both are part of the conversation."""
        asked: list[Message] = [*self.messages, {"role": "user", "content": text}]
        began, row = time.perf_counter(), None
        for step in mdsample.watch(
            self.model,
            asked if self.is_chat else text,
            policy=self._policy,
            template=self.template if self.structured is None else self.structured.template,
            seed=self.seed,
            id=len(self.replies),  # so that a question asked twice is drawn anew
            speculate=self.speculate,
        ):
            row = step.row
            yield row
        if row is None:
            return
        self.messages = [*asked, {"role": "assistant", "content": self.text(row)}]
        details = row.to_dict()
        made = {
            "policy": as_run(self._policy, self.model.block),
            "seed": self.seed,
            "seconds": time.perf_counter() - began,
            **({} if self.speculate is None else {"speculate": str(self.speculate)}),
        }
        self.replies.append({**{name: details[name] for name in _DETAILS}, **made})

    @contextmanager
    def unless_it_fails(self) -> Generator[None]:
        """What changes in it is undone if it ends with an error or an interrupt."""
        before = attrs.asdict(self, recurse=False) | {"messages": [*self.messages], "replies": [*self.replies]}
        try:
            yield
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise

    def take_back(self) -> str:
        """Removes the last message and its reply; the message, empty if there is none."""
        if not self.replies:
            return ""
        self.replies.pop()
        *self.messages, message, _ = self.messages
        return message["content"]

    def begin(self, system: str | None) -> None:
        """Forgets what was said, and starts with a system message if there is one."""
        self.replies.clear()
        self.messages = [] if system is None else [{"role": "system", "content": system}]

    def save(self, path: Path) -> None:
        """Writes the transcript, one JSON object on one line."""
        record = {
            "id": 0,
            "messages": self.messages,
            "replies": self.replies,
            "model": self.model.name,
            "backend": self.model.backend,
            "versions": versions(),
        }
        write_whole(path, line(record).encode() + b"\n")

    def resume(self, path: Path) -> None:
        """Goes on with the conversation in a file, if there is one; `UsageError` for a file of another kind."""
        if not stat.S_ISREG(mode(path)) or not path.stat().st_size:
            return
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path} is there and is not a transcript; give another name, or remove it")
        try:
            record = parsed(path.read_bytes()) or {}
            messages, replies = cast("list[Message]", record["messages"]), record["replies"]
            spoken = [message["role"] for message in messages if message["role"] != "system"]
            right = all(message["role"] in ROLES and type(message["content"]) is str for message in messages)
            alternating = spoken == ["user", "assistant"] * len(replies)
        except (TypeError, KeyError):
            right = alternating = False
            messages, replies = [], []
        if not (right and alternating):
            raise UsageError(f"{path} is there and is not a transcript; give another name, or remove it")
        self.messages, self.replies = messages, replies


def _is_chat(model: Denoiser) -> bool:
    folder: Path | None = getattr(model.tokenizer, "folder", None)
    return folder is not None and read_chat_template(folder) is not None


#: of a row, what a transcript keeps
_DETAILS = ("nfe", "steps", "rounds", "tokens_per_forward", "unfilled", "outcome", "error_bound")

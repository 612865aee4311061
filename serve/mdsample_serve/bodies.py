"""Bodies: what requests may say. A field that is not here is refused by name, and so is one that cannot be honoured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from mdsample_serve.errors import half_letter

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]


class Body(BaseModel):
    """Strict: a number is no text, true is no number, and there are no other fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Request(Body):
    """The whole body of a request: valid unicode, in whatever is nested in it."""

    @field_validator("*", mode="before")
    @classmethod
    def _valid_unicode(cls, value: Any) -> Any:
        if half := half_letter(value):
            raise PydanticCustomError(
                "not_unicode", "it holds {half}, half of a surrogate pair, which is not valid unicode", {"half": half}
            )
        return value


class SlotWish(Body):
    """What one slot is to hold."""

    length: Annotated[int, Field(ge=1)] | None = None
    regex: str | None = None
    choices: list[str] | None = None


class Layout(Request):
    """Fields of ours that all requests for texts take; OpenAI's clients send them as `extra_body`."""

    model: str | None = Field(None, description="A name from /v1/models; by default the first.")
    policy: str | None = Field(None, description="As in `med(0.2)+early-exit`; by default the model's own.")
    template: str | None = Field(None, description="Text with {fields} and {slots:length}.")
    given: dict[str, str] | None = Field(None, description="Texts of slots that are given, not sampled.")
    slots: dict[str, int | SlotWish] | None = Field(
        None, description="Lengths of slots, or what they hold: length, regex, choices."
    )
    regex: str | None = Field(None, description="An expression of the last slot's whole text.")
    speculate: int | str | None = Field(None, description="Steps to guess, as in 8 or '8x2'.")
    trace: bool = Field(False, description="Also tell every step: positions, tokens, probabilities.")
    seed: Seed | None = Field(None, description="With the row's number it fixes every random number.")
    n: Annotated[int, Field(ge=1)] | None = Field(None, description="Rows for each prompt.")
    stream: bool | None = None


class StreamOptions(Body):
    """Of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class OpenAI(Layout):
    """What both of OpenAI's endpoints take."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="Adds greedy, for 0, or temperature(t) to the policy; by default the policy's own."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: str | list[str] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] | None = Field(None, description="Bans only: -100.")
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = Field(None, description="Changes nothing.")
    metadata: dict[str, Any] | None = Field(None, description="Changes nothing.")
    store: bool | None = Field(None, description="Nothing is stored; true is refused.")
    service_tier: str | None = Field(None, description="Changes nothing.")
    safety_identifier: str | None = Field(None, description="Changes nothing.")
    prompt_cache_key: str | None = Field(None, description="Changes nothing.")


class Completions(OpenAI):
    """`POST /v1/completions`: text goes on after `prompt`, and before `suffix`."""

    prompt: str | list[str] | list[int] | list[list[int]] = ""
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = Field(
        None, description="0: of each token, its log-probability when it was written. Alternatives are not kept."
    )


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Body):
    """A turn of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None


class JsonSchema(Body):
    """A schema that the reply has to satisfy."""

    name: str = ""
    description: str | None = None
    schema_: Annotated[Any, Field(alias="schema")]
    strict: bool | None = None


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Body):
    """A JSON object, three levels deep at most."""

    type: Literal["json_object"]


class SchemaFormat(Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class Chat(OpenAI):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    response_format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class Fill(Layout):
    """`POST /v1/fill`: a template's slots; the answer is the record that `mdsample run --json` prints."""

    prompt: str | None = Field(None, description="Text of the template's one field.")
    fields: dict[str, str] | None = Field(None, description="Texts of the template's fields.")
    messages: list[Message] | None = Field(None, description="A chat in the place of prompt and fields.")
    schema_: Annotated[Any, Field(alias="schema", description="JSON of this schema in the place of the last slot.")] = (
        None
    )


class Score(Request):
    """`POST /v1/score`: how probable labels are in slots, all of them in one pass."""

    model: str | None = None
    template: str | None = None
    prompt: str | None = None
    fields: dict[str, str] | None = None
    given: dict[str, str] | None = None
    labels: dict[str, list[str]] = Field(description="Slots to the texts that are told apart there.")
    method: Literal["marginals", "chain"] = Field(
        "marginals", description="marginals: one pass for all. chain: a pass for each token, exact."
    )


class Explain(Request):
    """`POST /v1/explain`: what a policy does, or the one that a model takes."""

    policy: str | None = None
    model: str | None = None
    template: str | None = None

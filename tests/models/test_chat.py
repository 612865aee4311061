"""Chat templates: rendered as transformers renders them, safe from what is filled in, and refused in one line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chats import PLAIN, write_tokenizer
from checkpoints import END, LLADA_CHAT, MASK, START, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from mdsample_cli.main import main

import mdsample
from mdsample.core.template import Template
from mdsample.errors import ModelError, RenderError, TemplateError
from mdsample.models.card import TEMPLATE, read_card
from mdsample.models.families import read_config
from mdsample.models.text import sandbox
from mdsample.models.text.chat_template import ChatTemplate, read_chat_template
from mdsample.models.text.sandbox import LONGEST, MEGABYTES, SECONDS, render
from mdsample.models.text.tokenizer import FileTokenizer

# published chat templates, shortened to what a conversation without tools goes through

#: Dream-v0-Instruct-7B, as Qwen2.5
DREAM = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
#: SDAR-Chat, as Qwen3
SDAR = """\
{%- if tools %}
    {{- '# Tools\\n\\n' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not (\
message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- message.content.split('</think>')[-1].lstrip('\\n') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
#: LLaDA2.0-mini, as Ling 2.0
LLADA2 = """\
{% set thinking_option = 'off' %}
{{- '<role>SYSTEM</role>' }}
{%- if messages[0].role == 'system' %}
    {{- messages[0].content + '\\n' }}
{%- endif %}
{{- 'detailed thinking ' + thinking_option + '<|role_end|>' }}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- '<role>HUMAN</role>' + message.content + '<|role_end|>' }}
    {%- elif message.role == "system" and not loop.first %}
        {{- '<role>SYSTEM</role>' + message.content + '<|role_end|>' }}
    {%- elif message.role == "assistant" %}
        {% generation %}{{- '<role>ASSISTANT</role>' + message.content + '<|role_end|>' }}{% endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<role>ASSISTANT</role>' }}
{%- endif %}
"""
#: source, added tokens, those among them that the tokenizer's file does not call special, and the chat of a question
CHATS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], str]] = {
    "llada": (
        LLADA_CHAT,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        (),
        f"{START}<|start_header_id|>user<|end_header_id|>\n\n{{q}}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{a:4}",
    ),
    "dream": (
        DREAM,
        ("<|im_start|>", "<|im_end|>"),
        (),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{q}<|im_end|>\n"
        "<|im_start|>assistant\n{a:4}",
    ),
    "sdar": (
        SDAR,
        ("<|im_start|>", "<|im_end|>"),
        ("<think>", "</think>", "<tool_response>", "</tool_response>", "<unused>", " "),
        "<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a:4}",
    ),
    "llada2": (
        LLADA2,
        (),
        ("<role>", "</role>", "<|role_end|>"),
        "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>{q}<|role_end|><role>ASSISTANT</role>"
        "{a:4}",
    ),
}
MODELS = pytest.mark.parametrize("name", CHATS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by name in `CHATS`, all of LLaDA's family and with its start token."""
    made: dict[str, Path] = {}
    for name, (source, special, plain, _) in CHATS.items():
        made[name] = write_checkpoint(
            tmp_path_factory.mktemp("models") / name, config={"max_sequence_length": 1200, "bos_token_id": None}
        )
        write_tokenizer(made[name], source, special, plain)
    return made


def tokenizer_of(folder: Path) -> FileTokenizer:
    return FileTokenizer.read(folder, read_config(folder))


def around(source: str, template: str = "{q}{a:4}", system: str | None = None) -> str:
    """The text of a template in a chat template."""
    return str(ChatTemplate(Path("c"), source, {}).around(Template.parse(template), system))


# what becomes of a template


@MODELS
def test_published_templates(name: str, folders: dict[str, Path]) -> None:
    assert str(mdsample.chat(folders[name], "{q}{a:4}")) == CHATS[name][3]


@pytest.mark.slow
@MODELS
def test_the_ids_are_those_of_transformers(name: str, folders: dict[str, Path]) -> None:
    from transformers import PreTrainedTokenizerFast

    opener: Any = PreTrainedTokenizerFast
    theirs = opener.from_pretrained(folders[name])
    ours = tokenizer_of(folders[name])
    special = [*theirs.get_added_vocab()]

    @given(st.text(max_size=30) | st.sampled_from(["the cat sat", "{x}", "}{", "a\n\nb", "[[1]]"]), st.booleans())
    @settings(max_examples=40)
    def agree(text: str, with_system: bool) -> None:
        text = text.strip()
        if any(token in text for token in special):
            return
        system = text[::-1] + "{}" if with_system else None
        messages = [{"role": "user", "content": text}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        template = mdsample.chat(folders[name], "{q}{a:4}", system=system)
        assert template.row(ours, {"q": text}).tokens == [*expected, *[ours.mask_id] * 4]

    agree()


def literal(text: str) -> str:
    """The text as a template writes it."""
    return text.replace("{", "{{").replace("}", "}}")


TEXT = st.text("ab {}<|>\n", max_size=8).map(literal)
FIELD = st.sampled_from(["{x}", "{y}", "{z}"])
SYSTEM = st.none() | st.text("ab {}<|>\n", max_size=8)


@pytest.mark.slow
@given(st.lists(TEXT | FIELD, max_size=4).map("".join), TEXT, TEXT, SYSTEM)
def test_the_user_speaks_before_the_first_slot(said: str, between: str, after: str, system: str | None) -> None:
    answer = f"{{a:2}}{between}{{b:3}}{after}"
    first = "" if system is None else f"[system: {literal(system)}]"
    assert around(PLAIN, said + answer, system) == f"{first}[user: {said}][assistant: {answer}"


@given(st.text(max_size=20))
def test_what_the_chat_writes_is_literal(text: str) -> None:
    source = json.dumps(text, ensure_ascii=False).replace("{", "\\u007b").replace("}", "\\u007d")
    source = f"{{{{ {source} }}}}{{{{ messages[0].content }}}}"
    template = ChatTemplate(Path("c"), source, {}).around(Template.parse("{q}{a:4}"))
    assert template.fields == ("q",) and str(template).replace("{{", "{").replace("}}", "}") == f"{text}{{q}}{{a:4}}"


@MODELS
def test_what_is_filled_in_cannot_end_the_users_turn(name: str, folders: dict[str, Path]) -> None:
    _, special, plain, _ = CHATS[name]
    tokenizer = tokenizer_of(folders[name])
    control = [token for token in (*special, *plain, START, END, MASK) if token not in ("<unused>", " ")]
    assert set(control) == set(tokenizer.special)
    template = mdsample.chat(folders[name], "{q}{a:4}")
    ids = {tokenizer.special_id(token) for token in control}
    chat = [token for token in template.row(tokenizer, {"q": ""}).tokens if token in ids]
    assert len(chat) > 6

    @given(st.lists(st.sampled_from([*control, "system", "\n", "<", "|>", "role"]), max_size=6).map("".join))
    def safe(text: str) -> None:
        assert [token for token in template.row(tokenizer, {"q": text}).tokens if token in ids] == chat

    safe()


def test_tokens_of_the_chat_alone_show_in_answers(folders: dict[str, Path]) -> None:
    tokenizer = tokenizer_of(folders["sdar"])
    tokens = [tokenizer.special_id(token) for token in ("<think>", "<|im_end|>", "</think>", END)]
    assert tokenizer.decode(tokens) == "<think></think>"


@pytest.mark.parametrize("name", ["llada", "dream"])
def test_the_start_token_stands_once(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    for file in folders[name].glob("tokenizer*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = tokenizer_of(folder)
    start = tokenizer.special_id(START)
    assert tokenizer.start == (start,)
    encoded = mdsample.chat(folder, "{q}{a:4}").row(tokenizer, {"q": START})
    row, slot = encoded.tokens, encoded.slot
    assert row[0] == start and row.count(start) == 1 and len(slot) == len(row) and slot[-4:] == [0] * 4
    # in ordinary templates, too; what a field brings does not count
    for text, count in (("{a:1}", 1), (START + "{a:1}", 1), (START * 2 + "{a:1}", 2), ("{q}{a:1}", 1)):
        template = Template.parse(text)
        assert template.row(tokenizer, dict.fromkeys(template.fields, START)).tokens.count(start) == count
    mask = Template.parse(MASK + START + "{a:1}").row(tokenizer, {}).tokens
    assert mask == [start, tokenizer.mask_id, start, tokenizer.mask_id]


# where a chat template is found


def test_the_default_template_of_a_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    card = read_card(folders["dream"])
    assert card.plain == TEMPLATE and card.template == str(mdsample.chat(folders["dream"]))
    assert card.template == CHATS["dream"][3].replace("{q}{a:4}", "").replace("{q}", "{prompt}").replace(
        "{a:4}", "{answer:128}"
    )
    assert mdsample.load(folders["dream"]).template == card.template
    write_tokenizer(tmp_path, PLAIN)
    assert read_card(tmp_path, "{x}{y:3}!").template == "[user: {x}][assistant: {y:3}!"
    (tmp_path / "mdsample.toml").write_text("template = 'Q {prompt} A{answer:3}'")
    assert read_card(tmp_path).template == read_card(tmp_path).plain == "Q {prompt} A{answer:3}"
    assert str(mdsample.chat(tmp_path)) == "[user: Q {prompt} A][assistant: {answer:3}"


def test_files_and_names(tmp_path: Path) -> None:
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": PLAIN}]
    write_tokenizer(tmp_path, named)
    assert str(mdsample.chat(tmp_path, "{a:1}")) == "[user: ][assistant: {a:1}"
    (tmp_path / "chat_template.jinja").write_text("newer {{ messages[0].content }}")
    assert str(mdsample.chat(tmp_path, "{a:1}")) == "newer {a:1}"
    write_tokenizer(tmp_path / "none", None)
    assert read_chat_template(tmp_path / "none") is None and read_chat_template(tmp_path / "absent") is None
    write_tokenizer(tmp_path / "tokens", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}")
    assert str(mdsample.chat(tmp_path / "tokens", "{a:1}")) == f"{START}{END}{{a:1}}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "chat_template must be a text, or a list of objects with name and template; got 3"),
        ([{"name": "x"}], "list of objects with name and template; got {'name': 'x'}"),
        (
            [{"name": "rag", "template": PLAIN}],
            "has chat templates (rag), but none called 'default'; put the template that you want into mdsample.toml",
        ),
        ("{% if %}", "tokenizer_config.json cannot be used: line 1: Expected an expression, got"),
    ],
)
def test_malformed_files(source: object, message: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, source)
    with pytest.raises(ModelError) as fault:
        read_card(tmp_path)
    assert message in str(fault.value) and "\n" not in str(fault.value)


def test_other_refusals(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, None)
    with pytest.raises(ModelError, match=r"has no chat template: there is no chat_template.jinja, and no .* leave out"):
        mdsample.chat(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelError, match=r"chat_template.jinja is not UTF-8 \(byte 0\)"):
        mdsample.chat(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(PLAIN)
    with pytest.raises(TemplateError, match="a template needs at least one slot"):
        mdsample.chat(tmp_path, "{q}")


# templates that cannot be used, and those that mean harm

EITHER = "it takes more than "
TIME, MEMORY = f"it takes more than {SECONDS} s", f"it takes more than {MEGABYTES} MB of memory"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("Hello", "it must write the user's message once, as it stands, and does so 0 times"),
        ("{{ messages[0].content | upper }}", "and does so 0 times"),
        ("{{ messages[0].content * 2 }}", "and does so 2 times"),
        ("{{ raise_exception('Only\ntools,\nplease') }}", "Only tools, please"),
        ("{{ messages[0].content.x.y }}", "has no attribute 'x'"),
        ("{{ messages[7].content }}", "no element 7"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import 'os' as os %}", "no loader"),
        ("{{ range(1000000000) }}", "OverflowError: Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 10,000 steps"),
        ("{% for i in range(99999) if false %}{% endfor %}", "more than 10,000 steps"),
        (
            "{% for i in range(9999) recursive %}{% if loop.depth < 9 %}{{ loop(range(9999)) }}{% endif %}{% endfor %}",
            "steps",
        ),
        ("{% macro f(n) %}{{ n and f(n - 1) ~ f(n - 1) }}{% endmacro %}{{ f(99) }}", "more than 10,000 steps"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}", "RecursionError"),
        ("{% for i in range(200) %}{{ 'x' * 1000 }}{% endfor %}", f"it writes more than {LONGEST:,} characters"),
        # what one step alone would take hours or all memory for
        ("{% set x = 9**(9**9) %}", TIME),
        ("{{ lipsum(n=100000000) | length }}", TIME),
        ("{% set n = namespace(x=1) %}{% for i in range(90) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}", TIME),
        ("{% set x = 'a' * 6000000000 %}", MEMORY),
        ("{{ 'a' | center(9999999999) }}", MEMORY),
        ("{{ '%999999999d' | format(1) }}", MEMORY),
        ("{{ (range(99999) | list * 1000) | sort | length }}", MEMORY),
        ("{% set n = namespace(x='ab') %}{% for i in range(90) %}{% set n.x = n.x ~ n.x %}{% endfor %}", EITHER),
        ("{{ (['a' * 9999] * 99999) | join | length }}", EITHER),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
    ],
)
def test_hostile_and_broken_templates(source: str, message: str) -> None:
    with pytest.raises(ModelError) as fault:
        around(source)
    said = str(fault.value)
    assert said.startswith("the chat template in c cannot be used: ") and message in said
    assert said.endswith("; put the template that you want into mdsample.toml beside it") and "\n" not in said


def test_a_process_that_renders_is_replaced_when_it_is_gone() -> None:
    assert render("{{ a }}", {"a": "é"}) == "é"
    process = sandbox._child._process  # pyright: ignore
    process.kill()
    process.wait()
    with pytest.raises(RenderError, match="came to an end with exit code -9"):
        render("x" * 99999, {})
    assert render("{{ a }}", {"a": None}) == "None"


@pytest.mark.parametrize(
    "inside",
    [
        "messages.__class__",
        "messages | attr('__class__')",
        "raise_exception.__globals__",
        "raise_exception['__globals__']",
        "strftime_now.__code__",
        "cycler.__init__.__globals__",
        "self.__init__",
        "messages | map(attribute='__class__') | first",
        "'{0.__class__}{0[__class__]}'.format(messages)",
        "'{a.__class__}'.format_map({'a': messages})",
        "namespace(x=messages).x.__class__",
    ],
)
def test_pythons_insides_are_out_of_reach(inside: str) -> None:
    try:
        assert render(f"{{{{ {inside} }}}}", {"messages": [1]}) == ""
    except RenderError as fault:
        assert "unsafe" in str(fault)


@given(st.text(max_size=30) | st.text("{}%#'-abm.[]|() ", max_size=30))
def test_any_source_is_rendered_or_refused_in_a_line(source: str) -> None:
    try:
        assert isinstance(render(source, {"a": 1, "m": ["b"]}), str)
    except RenderError as fault:
        assert "\n" not in str(fault)


def test_habits_of_chat_templates() -> None:
    source = "{% for x in a %}\n  {% if x > 2 %}{% break %}{% endif %}\n{{ loop.last }} {{ loop.length }}\n{% endfor %}"
    assert render(source, {"a": [1, 2, 3]}) == "False 3\nFalse 3\n"
    assert render("{{ {'é': '<b>'} | tojson }}{{ [1] | tojson(indent=1) }}", {}) == '{"é": "<b>"}[\n 1\n]'
    assert render("{{ strftime_now('%Y') }}{{ missing }}", {}).isdigit()


def test_a_system_message_is_never_lost() -> None:
    for source, message in (
        ("{{ messages[-1].content }}", "the chat template in c has no place for a system message; leave it out"),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
            "{{ messages[0].content }}",
            "the chat template in c cannot be used: System role not supported; leave the system message out",
        ),
    ):
        assert around(source) == "{q}{a:4}"
        with pytest.raises(ModelError) as fault:
            around(source, system="Be brief.")
        assert str(fault.value) == message
    # one that looks into it sees it
    source = "{{ 'on' if 'think' in messages[0].content else 'off' }} {{ messages[0].content | trim }}"
    source += "{{ messages[-1].content }}"
    assert around(source, system=" think ") == "on think{q}{a:4}"


# the command

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the cat\n")))
        return (main([str(a) for a in arguments]), *capsys.readouterr())

    return run


def test_run_and_its_record(command: Command, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["dream"]
    chat = CHATS["dream"][3]

    def template(*arguments: object) -> str:
        code, out, err = command("run", "--model", folder, "-p", "steps(1)", "--json", *arguments, "the cat")
        assert (code, err) == (0, "")
        return json.loads(out)["template"]

    given_one = ("--template", "{q}{a:4}")
    assert template() == template("--chat") == read_card(folder).template
    assert template("--no-chat") == TEMPLATE
    assert template(*given_one) == template(*given_one, "--no-chat") == "{q}{a:4}"
    assert template(*given_one, "--chat") == chat
    brief = chat.replace("You are a helpful assistant.", "Be {{brief}}.")
    assert template(*given_one, "--system", "Be {brief}.") == brief
    assert template("--system", "")[:28] == "<|im_start|>system\n<|im_end|"
    # records of one chat are not taken for those of another
    run = ("run", "--model", folder, *given_one, "-p", "steps(1)", "-i", "-", "-o", tmp_path / "out.jsonl")
    assert command(*run)[0] == 0
    code, _, err = command(*run, "--chat")
    assert code == 2 and "template there: '{q}{a:4}'" in err


def test_bench_puts_the_task_into_the_chat(command: Command, folders: dict[str, Path]) -> None:
    bench = ("bench", "--model", folders["llada2"], "-p", "steps(1)", "--limit", 1, "--json")
    for arguments, begins in (((), "Question: "), (("--chat",), "<role>SYSTEM</role>"), (("--no-chat",), "Question: ")):
        code, out, _ = command(*bench, *arguments)
        assert code == 0 and json.loads(out)["template"].startswith(begins)


def test_inspect_tells_of_the_chat(command: Command, folders: dict[str, Path]) -> None:
    facts = mdsample.inspect(folders["dream"])
    assert (facts.chat, facts.template) == ("tokenizer_config.json", read_card(folders["dream"]).template)
    assert mdsample.inspect("tiny-gsm").chat == ""
    assert "chat        template in tokenizer_config.json\n" in command("inspect", folders["dream"])[1]
    assert "chat        none\ntemplate    Question: {prompt}\n" in command("inspect", "tiny-gsm")[1]


def test_usage_errors(command: Command, folders: dict[str, Path], tmp_path: Path) -> None:
    bad = write_checkpoint(tmp_path / "bad")
    write_tokenizer(bad, "Hello")
    none = write_checkpoint(tmp_path / "none")
    dream, broken = folders["dream"], f"the chat template in {bad / 'tokenizer_config.json'} cannot be used: it must"
    for arguments, message in (
        (
            ("run", "--model", dream, "--no-chat", "--system", "x"),
            "--system is a message of the chat that --no-chat leaves out; give one of them",
        ),
        (("run", "--model", none, "--chat", "hi"), f"{none} has no chat template: there is no chat_template.jinja, "),
        (("run", "--model", none, "--system", "x", "hi"), f"{none} has no chat template: "),
        (("bench", "--model", none, "--chat"), f"{none} has no chat template: "),
        (("run", "--chat", "hi"), f"{mdsample.models.find.embedded_folder('tiny-gsm')} has no chat template: "),
        (("run", "--model", bad, "hi"), broken),
        (("run", "--model", bad, "--no-chat", "hi"), broken),
        (("inspect", bad), broken),
        (("run", "--model", dream, "--system", "\udcff", "hi"), "character "),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith(f"error: {message}") and err.count("\n") == 1, err
    (bad / "mdsample.toml").write_text("template = '{prompt}{answer:2}'")
    assert command("run", "--model", bad, "hi")[0] == 0


def test_a_chat_template_in_a_file_of_json_of_its_own(tmp_path: Path) -> None:
    folder = write_tokenizer(write_checkpoint(tmp_path / "model"), None)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": PLAIN}))
    assert mdsample.inspect(folder).chat == "chat_template.json"
    assert str(mdsample.chat(folder, "{q}{a:4}")) == "[user: {q}][assistant: {a:4}"
    write_tokenizer(folder, "User: {{ messages[0].content }} Bot: ")  # which comes first
    assert mdsample.inspect(folder).chat == "tokenizer_config.json"
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": 3}))
    with pytest.raises(ModelError, match=r"chat_template.json: chat_template must be a text, or a list of objects"):
        mdsample.inspect(folder)

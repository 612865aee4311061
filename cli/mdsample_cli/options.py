"""What several commands share: their options, and how names on the command line become values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mdsample.core.template import Template
    from mdsample.policy.base import Policy

MODEL = "tiny-gsm"

Model = Annotated[
    str, typer.Option(metavar="NAME", help="An embedded model, a folder, or a hub id (organisation/model).")
]
Revision = Annotated[str | None, typer.Option(metavar="REV", help="Branch, tag or commit of a model on the hub.")]
Backend = Annotated[str, typer.Option(metavar="NAME", help="What the model runs on.")]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps; on MLX gpu, cpu. Default: best.", show_default=False),
]
Cache = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="exact, for block-causal models; prefix or dual, both approximate, dual(8): computed anew after 8 passes.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", metavar="", help="Let torch or MLX compile layers: seconds for every new shape."),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="float32, bfloat16 or float16. Default: float32 on a CPU, else as stored.",
        show_default=False,
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--template",
        "-t",
        metavar="TEXT",
        help="Text with {fields} and {slots:length}, or @FILE. Default: the model's own.",
        show_default=False,
    ),
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--no-chat",
        metavar="",
        help="Put the template into the model's chat template; the user says what stands before the first slot. "
        "Default: yes for the model's own template, no for --template.",
        show_default=False,
    ),
]
System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="A system message; it brings --chat along.", show_default=False)
]
Fill = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SLOT=TEXT",
        help="What stands in a slot from the beginning, as it is written, in every row; nobody writes there.",
        show_default=False,
    ),
]
FillFrom = Annotated[
    list[str] | None,
    typer.Option(metavar="SLOT=KEY", help="The same from a key of each row of --input.", show_default=False),
]
Seed = Annotated[int, typer.Option(metavar="N", help="With the rows' ids it fixes every random number.")]
BatchSize = Annotated[
    int, typer.Option(metavar="N", min=1, help="Rows in one forward pass; it changes the time, never the results.")
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Machine-readable: JSON on stdout.")]


class Wrong(Exception):
    """The command cannot mean anything; the message says why, and the remedy."""


class Interrupted(Exception):
    """A person stopped the command; the message says what is kept."""


def read_bytes(path: str) -> bytes:
    """A file's bytes, or standard input's for `-`."""
    if not path:
        raise Wrong("the name of a file is empty; give one, or - for standard input")
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as fault:
        raise Wrong(f"cannot read {path}: {fault.strerror or fault}") from fault


def open_fills(
    fill: list[str] | None, fill_from: list[str] | None, input: str | None
) -> tuple[dict[str, str], dict[str, str]]:
    """What stands in slots of every row, and the keys of the rows from which slots are filled."""
    everywhere, by_row = _fills(fill, "--fill"), _fills(fill_from, "--fill-from")
    if by_row and input is None:
        raise Wrong("--fill-from takes keys of the rows of --input; give one, or say --fill SLOT=TEXT")
    if both := sorted(everywhere.keys() & by_row.keys()):
        raise Wrong(f"slot {both[0]!r} is given by --fill and by --fill-from; leave one of them out")
    return everywhere, by_row


def _fills(told: list[str] | None, option: str) -> dict[str, str]:
    """`SLOT=TEXT`, or `SLOT=KEY`, once for each slot."""
    found: dict[str, str] = {}
    for one in told or []:
        slot, equals, text = one.partition("=")
        if not slot or not equals:
            raise Wrong(f"{option} takes the name of a slot, = and what goes into it; got {one!r}")
        if slot in found:
            raise Wrong(f"{option} is told twice what goes into slot {slot!r}; keep one")
        found[slot] = text
    return found


def writable(path: Path, option: str) -> None:
    """Refuses a file that cannot be written, before there is anything to write."""
    if not path.name:
        raise Wrong(f"{option} needs the name of a file; got {str(path)!r}")
    if path.is_dir():
        raise Wrong(f"{option}: cannot write {path}: it is a folder")
    if not path.absolute().parent.is_dir():
        raise Wrong(f"{option}: cannot write {path}: there is no such folder")
    probe = path.with_name(path.name + ".part")
    try:
        probe.open("ab").close()
        probe.unlink()
    except OSError as fault:
        raise Wrong(f"{option}: cannot write {path}: {fault.strerror or fault}") from fault


def apart(**files: str | Path | None) -> None:
    """Refuses one file for two purposes; the keywords are the options' names."""
    seen: dict[Path, str] = {}
    for option, file in files.items():
        if file is None or str(file) == "-":
            continue
        place = Path(file).resolve()
        if place in seen:
            raise Wrong(f"--{seen[place]} and --{option} are the same file, {file}; one would destroy the other")
        seen[place] = option


def read_text(path: str) -> str:
    """A file's text."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise Wrong(f"{path} is not UTF-8 (byte {fault.start})") from fault


def open_template(
    text: str | None,
    model: str,
    revision: str | None,
    chat: bool | None,
    system: str | None,
    default: str | None = None,
) -> Template | None:
    """The template given as text or `@file`, else `default`, in the model's chat template if that is asked for.

    `None` if nothing is asked for: the template is the one that suits the model.
    """
    from mdsample.core.template import Template
    from mdsample.models.card import read_card
    from mdsample.models.chat import chat as in_chat
    from mdsample.models.find import facts_folder

    if system is not None and chat is False:
        raise Wrong("--system is a message of the chat that --no-chat leaves out; give one of them")
    if text is not None and text.startswith("@"):
        text = read_text(text[1:]).removesuffix("\n")
    text = default if text is None else text
    if chat or system is not None:
        return in_chat(model, text, system=system, revision=revision)
    if text is None and chat is False:
        card = read_card(facts_folder(model, revision))
        text = None if card.plain == card.template else card.plain
    return None if text is None else Template.parse(text)


def open_policy(text: str | None, file: str | None, steps: int | None) -> Policy | None:
    """The policy that the options say, or `None` if they say nothing."""
    from mdsample.errors import SpecError
    from mdsample.policy.base import Policy
    from mdsample.policy.parsing import parse
    from mdsample.policy.toml import from_toml

    if text is not None and file is not None:
        raise Wrong("--policy and --policy-file are two policies; give one of them")
    if text is None and file is None and steps is None:
        return None
    try:
        policy = parse(text) if text is not None else from_toml(read_text(file)) if file is not None else Policy()
    except SpecError as fault:
        raise Wrong(f"{file}: {fault}" if file is not None else str(fault)) from fault
    try:
        return policy if steps is None else parse("+".join(filter(None, (str(policy), f"steps({steps})"))))
    except SpecError as fault:
        raise Wrong(f"--steps {steps} is short for '+steps({steps})': {fault}") from fault

"""`mdsample serve`: models behind a URL."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import attrs
from typer import Option

from mdsample_cli import options
from mdsample_cli.errors import UsageError, note
from mdsample_cli.groups import OptionGroup, Without, grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mdsample.models.denoiser import Denoiser

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@attrs.frozen(kw_only=True)
class AddressOptions(OptionGroup):
    """Where it listens, and who may ask."""

    panel: ClassVar = "Address"

    host: Annotated[str, Option(metavar="NAME", help="The address; others than this machine need --key-file.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Option(metavar="N", min=0, max=65535, help="The port; 0 takes one that is free.")] = 8000
    key_file: Annotated[
        Path | None, Option(metavar="FILE", help="Keys, one a line, of which clients have to send one.")
    ] = None
    cors: Annotated[
        list[str] | None,
        Option(metavar="ORIGIN", help="A site whose pages may ask, as in https://example.org. May be repeated."),
    ] = None

    def keys(self) -> list[bytes]:
        """Those of the file."""
        from mdsample_serve.guard import read_keys

        from mdsample_cli.files import read_bytes

        if self.key_file is None:
            return []
        try:
            return read_keys(read_bytes(str(self.key_file)))
        except ValueError as error:
            raise UsageError(f"{self.key_file}: {error}") from error


@grouped
def serve(
    address: AddressOptions,
    model: Annotated[options.ModelOptions, Without("model", "adapter")],
    models: Annotated[
        list[str] | None,
        Option(
            "--model",
            "-m",
            metavar="NAME",
            help="An embedded model, a folder, or a hub id; NAME=MODEL gives it a name for clients. May be repeated; "
            "the first is the default. Default: tiny-gsm.",
        ),
    ] = None,
    batch_size: options.BatchSize = 16,
    queue: Annotated[
        int, Option(metavar="N", min=1, help="Rows that are not done; what is more is refused with 429.")
    ] = 256,
    max_seconds: Annotated[float, Option(metavar="S", min=1, help="The longest that a request may take.")] = 300.0,
    max_blanks: Annotated[int, Option(metavar="N", min=1, help="The most positions to fill in a row.")] = 2048,
) -> int:
    """Serve models over HTTP: OpenAI's endpoints, with policies, templates, schemas and seeds; and a page at /.

    All requests share forward passes, whatever their policies. Ctrl-C finishes what runs and ends.
    """
    if missing := [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]:
        raise UsageError(f"{missing[0]} is not installed; pip install 'mdsample[serve]'")
    from mdsample_serve.limits import Limits
    from mdsample_serve.server import Address, Server, service_of

    at = Address(host=address.host, port=address.port, keys=address.keys(), origins=tuple(address.cors or ()))
    if fault := at.fault():
        raise UsageError(fault)
    named = _named(models or [options.MODEL])
    if model.revision is not None and len(named) > 1:
        raise UsageError("--revision is that of one model; serve one, or leave it out")
    at.bind().close()  # an address that cannot be had is told before models are loaded
    limits = Limits(queue=queue, seconds=max_seconds, blanks=max_blanks)
    service = service_of(_opening(named, model), batch_size=batch_size, limits=limits)
    try:
        for name, hosted in service.models.items():
            opened = hosted.worker.opened.result()
            note(f"{name}: {opened.name} on {opened.backend}")
        server = Server(service, at)
        listening = server.listen()
    except BaseException:
        service.close()
        raise
    host = f"[{at.host}]" if ":" in at.host else at.host
    note(f"http://{host}:{listening.getsockname()[1]}")
    server.serve_forever(listening)
    return 0


def _named(models: list[str]) -> dict[str, str]:
    """What each name stands for; a model without one is called by the last part of its own."""
    named: dict[str, str] = {}
    for text in models:
        name, equals, where = text.partition("=")
        if not equals:
            name, where = Path(text).name or text, text
        if not _NAME.fullmatch(name) or not where:
            raise UsageError(
                f"--model takes a model, or NAME=MODEL with a name of letters, digits, . - and _; got {text!r}"
            )
        if name in named:
            raise UsageError(f"--model has two models called {name!r}; name one of them: NAME=MODEL")
        named[name] = where
    return named


def _opening(
    named: Mapping[str, str], model: options.ModelOptions
) -> dict[str, tuple[Callable[[], Denoiser], str | None]]:
    """By name what opens a model, and its revision."""
    return {name: (attrs.evolve(model, model=where).load, model.revision) for name, where in named.items()}

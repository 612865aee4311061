"""Server: an address, its socket, and a graceful end."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

import attrs
import uvicorn

from mdsample.models.denoiser import Denoiser
from mdsample_serve.app import application
from mdsample_serve.guard import LOOPBACK
from mdsample_serve.limits import Limits
from mdsample_serve.metrics import Metrics
from mdsample_serve.service import Hosted, Service
from mdsample_serve.sockets import patient
from mdsample_serve.worker import Worker

#: seconds in which what runs is finished after the first signal
GRACE = 60


@attrs.frozen(kw_only=True)
class Address:
    """Where the server listens, and who may ask."""

    host: str = "127.0.0.1"
    #: 0: one that is free
    port: int = 8000
    keys: Sequence[bytes] = attrs.field(default=(), repr=False)
    #: other sites whose pages may ask
    origins: Sequence[str] = ()

    @property
    def is_local(self) -> bool:
        """Whether only this machine gets there."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def fault(self) -> str:
        """Why it must not be; empty if it may."""
        if not self.is_local and not self.keys:
            return (
                f"others can reach {self.host}, so a key is needed: write one into a file and give it with --key-file, "
                "or listen on 127.0.0.1"
            )
        if "*" in self.origins and not self.keys:
            return "--cors '*' lets every page ask, so a key is needed: give --key-file, or name the sites"
        return ""

    def bind(self) -> socket.socket:
        """A socket there, which does not listen yet; `OSError` with a sentence if there cannot be one."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # asyncio sends small packets at once (TCP_NODELAY) only on sockets that name the protocol
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self.host, self.port))
        except OSError as fault:
            bound.close()
            raise OSError(
                f"cannot listen on port {self.port} of {self.host}: {str(fault.strerror or fault).lower()}; "
                "give another --port (0 takes one that is free), or another --host"
            ) from fault
        return bound


def service_of(
    models: Mapping[str, tuple[Callable[[], Denoiser], str | None]], *, batch_size: int, limits: Limits
) -> Service:
    """Models by name, each with what opens it and its revision. They are being opened when it returns."""
    metrics = Metrics()
    hosted = {
        name: Hosted(name, Worker(open_model, batch_size=batch_size, queue=limits.queue, metrics=metrics), revision)
        for name, (open_model, revision) in models.items()
    }
    for one in hosted.values():
        one.worker.start()
    return Service(hosted, limits, metrics)


class Server(uvicorn.Server):
    """One that refuses what is new as soon as it is told to stop, and finishes what runs."""

    def __init__(self, service: Service, address: Address) -> None:
        """It listens as soon as `run` is called."""
        self._service, self.address = service, address
        app = application(service, keys=address.keys, origins=address.origins, hosts=(*LOOPBACK, address.host.lower()))
        super().__init__(
            uvicorn.Config(
                app,
                host=address.host,
                port=address.port,
                log_level="warning",
                access_log=False,
                server_header=False,
                http=patient(service.limits.patience),
                timeout_keep_alive=15,
                timeout_graceful_shutdown=GRACE,
                # more connections than this get a 503
                limit_concurrency=1000,
                h11_max_incomplete_event_size=1 << 16,
                lifespan="off",
                ws="none",
            )
        )

    def listen(self) -> socket.socket:
        """The socket; `OSError` as in `Address.bind`."""
        listening = self.address.bind()
        listening.listen(512)
        return listening

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the first one stops gracefully, the second one at once."""
        self._service.stop()
        super().handle_exit(sig, frame)

    def serve_forever(self, listening: socket.socket) -> None:
        """Until a signal."""
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        try:
            self.run([listening])
        finally:
            listening.close()
            self._service.close()

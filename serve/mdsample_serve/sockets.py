"""Sockets: connections that ask for nothing are closed, so that half-open ones do not pile up."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(seconds: float) -> type[H11Protocol]:
    """The protocol of a connection, which has so long to send the head of a request."""

    class Patient(H11Protocol):
        """Closes itself if no request comes."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """It has to ask now."""
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            """Some bytes of a request: of its head, or the head is complete."""
            super().data_received(data)
            if self._asks():
                self._rest()
            elif self._late is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            """It is over."""
            self._rest()
            super().connection_lost(exc)

        def _asks(self) -> bool:
            """Whether a request is being answered."""
            return self.cycle is not None and not self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

        def _wait(self) -> None:
            self._late = self.loop.call_later(seconds, self._close)

        def _rest(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _close(self) -> None:
            self._late = None
            if not self._asks():
                self.transport.close()

    return Patient

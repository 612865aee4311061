"""Metrics: what a server counts, for Prometheus."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mdsample.sampling.result import Row

_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_NATS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, math.inf)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        """All at zero."""
        here = self._registry = CollectorRegistry()
        self.requests = Counter("mdsample_requests", "Requests by path and status.", ("path", "status"), registry=here)
        self.request_seconds = Histogram(
            "mdsample_request_seconds", "Time of a request.", ("path",), registry=here, buckets=_SECONDS
        )
        self.queue_seconds = Histogram(
            "mdsample_queue_seconds", "Time until a request's first pass.", registry=here, buckets=_SECONDS
        )
        self._flying = Gauge("mdsample_rows_in_flight", "Rows in the last forward pass.", registry=here)
        self._waiting = Gauge("mdsample_rows_waiting", "Rows without a place in it.", registry=here)
        self._rows_per_pass = Histogram(
            "mdsample_rows_per_pass", "Rows of a forward pass.", registry=here, buckets=_COUNTS
        )
        self._pass_seconds = Histogram(
            "mdsample_pass_seconds", "Time of a forward pass with all that follows.", registry=here, buckets=_SECONDS
        )
        self._passes_per_row = Histogram(
            "mdsample_passes_per_row", "Forward passes of a row.", registry=here, buckets=_COUNTS
        )
        self._rounds_per_row = Histogram(
            "mdsample_rounds_per_row", "Passes of a row that followed one another.", registry=here, buckets=_COUNTS
        )
        self._tokens = Counter("mdsample_tokens", "Blanks filled; its rate is tokens a second.", registry=here)
        self._error_bound = Histogram(
            "mdsample_error_bound_nats",
            "Of a row, against decoding one token at a time; +Inf where nothing is promised.",
            registry=here,
            buckets=_NATS,
        )

    def passed(self, rows: int, waiting: int, seconds: float) -> None:
        """A forward pass of so many rows, while others waited."""
        self._flying.set(rows)
        self._waiting.set(waiting)
        self._rows_per_pass.observe(rows)
        self._pass_seconds.observe(seconds)

    def row(self, row: Row) -> None:
        """A row is done."""
        self._passes_per_row.observe(row.nfe)
        self._rounds_per_row.observe(row.rounds)
        self._tokens.inc(row.filled)
        if math.isfinite(row.error_bound):
            self._error_bound.observe(row.error_bound)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self._registry)

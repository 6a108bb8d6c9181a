"""Logs (structlog, one JSON object a line), metrics (Prometheus) and traces (OpenTelemetry, only where sampled)."""

from __future__ import annotations

import logging
import random
import re
import sys
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

import orjson
import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from services.platform.settings import ServiceSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
"""Local variables hold what must not be logged: requests, rows, tokens."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""W3C's header. It comes from the client: what is not one counts as none."""

_TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class CallTimes(Collector):
    """Calls by method and google.rpc.Code with their times: plain numbers, made into metrics when Prometheus asks.

    A Counter and a Histogram of the library take several locks a call. This is for one thread, the event loop's.
    """

    def __init__(self) -> None:
        """Have seen nothing."""
        self._cells: dict[tuple[str, str], list[float]] = {}

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Count a call: its bucket, and its time in the last cell."""
        cell = self._cells.get((method, code))
        if cell is None:
            cell = self._cells[method, code] = [0.0] * (len(_TIMES) + 2)
        cell[bisect_left(_TIMES, seconds)] += 1
        cell[-1] += seconds

    def collect(self) -> Iterator[Metric]:
        """Render what was seen."""
        times = HistogramMetricFamily(
            "paymesh_call_seconds", "Calls answered, with their time.", labels=("method", "code")
        )
        for (method, code), cell in list(self._cells.items()):
            sums = list(accumulate(cell[:-1]))
            buckets = [(str(bound), count) for bound, count in zip((*_TIMES, "+Inf"), sums, strict=True)]
            times.add_metric((method, code), buckets, cell[-1])
        yield times


CALLS = CallTimes()
REGISTRY.register(CALLS)
BATCH_SIZE = Histogram("paymesh_batch_size", "Items in one batch.", ("kind",), buckets=(1, 2, 5, 10, 20, 50, 100, 200))
OUTBOX_LAG = Gauge("paymesh_outbox_unpublished", "Outbox rows that wait for the relay, at most a batch.")
ASSESSED = Counter("paymesh_payments_assessed_total", "Payments that risk has judged, as often as it was asked.")
ALARMS = Counter("paymesh_alarms_total", "What operators have to look at, by kind and event.", ("kind", "event"))
EVENTS_TAKEN = Counter("paymesh_events_taken_total", "Events handled, by topic and outcome.", ("topic", "outcome"))


class _LogExporter(SpanExporter):
    """Writes finished spans to the log: one line each, found by trace id."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Log each span with its duration in microseconds."""
        for span in spans:
            context = span.get_span_context()
            if context and span.start_time and span.end_time:
                log.info("span", name=span.name, trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}",
                         duration_us=(span.end_time - span.start_time) // 1000, **dict(span.attributes or {}))  # fmt: skip
        return SpanExportResult.SUCCESS


class _Level:
    """The lowest level that is logged. It can change at any time; loggers of structlog keep theirs for ever."""

    lowest = logging.INFO

    def drop_lower(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Let through what is high enough."""
        if _RANKS[event["level"]] < self.lowest:
            raise structlog.DropEvent
        return event


_RANKS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
"""By the names that structlog's add_log_level gives; it comes before."""
LEVEL = _Level()


def set_level(name: str) -> bool:
    """Log from this level on, in this process; whether that is another than before. Other words change nothing."""
    level = _RANKS.get(name, LEVEL.lowest)
    changed, LEVEL.lowest = level != LEVEL.lowest, level
    return changed


def start(service: str, settings: ServiceSettings) -> None:
    """Set up logging, tracing and the metrics port of this process; called once, by process.run."""
    set_level(settings.log_level)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            LEVEL.drop_lower,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _TRACEBACKS,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=repr).decode()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    provider = TracerProvider(resource=Resource.create({"service.name": f"paymesh-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(_LogExporter()))
    trace.set_tracer_provider(provider)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr="127.0.0.1")


def sampled(traceparent: str, ratio: float) -> bool:
    """Whether a call is traced: as the caller's W3C ``traceparent`` says, else by chance of ``ratio``."""
    known = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if known:
        return bool(int(known[3], 16) & 1)
    return random.random() < ratio  # noqa: S311 - no secret


def span(name: str, traceparent: str) -> trace.Span:
    """Begin a span under the caller's."""
    context = None
    if known := _TRACEPARENT.fullmatch(traceparent):
        trace_id, parent, flags = (int(part, 16) for part in known.groups())
        remote = trace.SpanContext(trace_id, parent, is_remote=True, trace_flags=trace.TraceFlags(flags))
        context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    return trace.get_tracer("paymesh").start_span(name, context=context)


def traceparent_of(current: trace.Span) -> str:
    """Render a span's context as a W3C ``traceparent``."""
    context = current.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

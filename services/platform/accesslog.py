"""What is written of a call: its metric always; a log line when it failed, is audited or is traced. Requests redacted."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

import orjson

from services.contract.load import contract
from services.kernel.errors import DomainError
from services.platform import telemetry
from services.platform.redaction import redacted

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from services.platform.interceptor import Call

_LINES: deque[dict[str, Any]] = deque(maxlen=100_000)
_OUR_FAULT = frozenset({"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "OVERLOADED"})


def finish(call: Call, error: BaseException | None, span: Span | None) -> None:
    """Count a finished call and put down its line where it has one. Called on the event loop: it never blocks."""
    method = call.method
    assert method is not None
    reason, code = _outcome(error)
    telemetry.CALLS.observe(method.full_name, code, time.monotonic() - call.began)
    if span is not None:
        span.set_attribute("rpc.grpc.status", code)
        span.end()
    if reason or method.audit or span is not None:
        _LINES.append(_line(call, reason, error, audited=method.audit))


def _outcome(error: BaseException | None) -> tuple[str, str]:
    """Return the reason ("" when there was no error) and the google.rpc.Code of a finished call."""
    if error is None:
        return "", "OK"
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED", "CANCELLED"
    known = contract().reasons.get(error.reason) if isinstance(error, DomainError) else None
    return (known.name, known.code) if known else ("INTERNAL", "INTERNAL")


def _line(call: Call, reason: str, error: BaseException | None, *, audited: bool) -> dict[str, Any]:
    assert call.method is not None
    line: dict[str, Any] = {
        "event": "audit" if audited else "call",
        "level": "error" if reason in _OUR_FAULT else "info",
        "time_ms": time.time_ns() // 1_000_000,
        "method": call.method.full_name,
        "request_id": call.request_id,
        "peer": call.peer,
        "subject": call.caller.subject,
        "reason": reason or "OK",
        "duration_us": int((time.monotonic() - call.began) * 1e6),
    }
    if reason:
        line["request"] = redacted(call.request)
    if reason == "INTERNAL" and error is not None:
        line["traceback"] = "".join(traceback.format_exception(error))
    return line


class AccessLog:
    """Writes the lines in batches from a thread of its own."""

    def __init__(self) -> None:
        """Write to standard error, where the supervisor and Kubernetes read."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="accesslog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and end the thread."""
        self._stopping.set()
        self._thread.join(timeout=3)

    def _work(self) -> None:
        while not self._stopping.wait(0.1):
            _flush()
        _flush()


def _flush() -> None:
    lines = [_LINES.popleft() for _ in range(len(_LINES))]
    if lines:
        sys.stderr.buffer.write(b"".join(orjson.dumps(line, default=repr) + b"\n" for line in lines))
        sys.stderr.buffer.flush()

"""The rounds: echo and payment in turn, and after each the proof that every payment is what it should be."""

from __future__ import annotations

import json
import os
import statistics
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paymesh.payment.v1 import payment_pb2, payment_service_pb2
from services.cli.bench import h2load
from services.cli.bench.site import as_edge, cpu_seconds
from services.cli.exits import CommandError, Exit
from services.cli.invariants import findings
from services.cli.verify import database_urls, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from services.cli.bench.h2load import Outcome, Prepared
    from services.cli.bench.site import Site

_PATH = "/paymesh.payment.v1.PaymentService/CreatePayment"
_SETTLE_S = 180.0
Order = tuple[int, int, str]


@dataclass(slots=True)
class Round:
    """One way of calling in one round: what the generator saw, CPU microseconds of each request by process group."""

    outcome: Outcome
    cpu_us: dict[str, float] = field(default_factory=dict)


def grpc_requests(orders: Sequence[Order]) -> list[Prepared]:
    """Prepare CreatePayment as an own Envoy would hand it to the service."""
    fixed = [(":method", "POST"), (":scheme", "http"), (":path", _PATH), (":authority", "bench"),
             ("content-type", "application/grpc"), ("te", "trailers")]  # fmt: skip
    made = []
    for order_id, user_id, _ in orders:
        message = payment_service_pb2.CreatePaymentRequest(order_id=order_id, method=payment_pb2.Payment.METHOD_BALANCE)
        headers = [*fixed, *as_edge(user_id, key=f"bench-{order_id}")]
        made.append(h2load.Prepared(h2load.header_block(headers), h2load.grpc_body(message.SerializeToString())))
    return made


def rest_requests(orders: Sequence[Order]) -> list[Prepared]:
    """Prepare POST /api/payments as a client outside sends it."""
    made = []
    for order_id, _, token in orders:
        body = json.dumps({"order_id": str(order_id), "method": "METHOD_BALANCE"}).encode()
        headers = [(":method", "POST"), (":scheme", "https"), (":path", "/api/payments"), (":authority", "localhost"),
                   ("content-type", "application/json"), ("authorization", f"Bearer {token}"),
                   ("idempotency-key", f"bench-{order_id}")]  # fmt: skip
        made.append(h2load.Prepared(h2load.header_block(headers), body))
    return made


def measure(
    requests: Sequence[Prepared], in_flight: int, connect: Callable[[], Any], groups: dict[str, list[int]]
) -> Round:
    """Send requests over up to four connections, and take the CPU time of process groups."""
    links = [connect() for _ in range(min(4, in_flight))]
    before = {name: cpu_seconds(pids) for name, pids in groups.items()}
    outcome = h2load.run(links, requests, in_flight)
    refused = {status: n for status, n in outcome.statuses.items() if status not in {"0", "200"}}
    if refused:
        raise CommandError(Exit.CHECK_FAILED, f"A round is void: {refused} of {len(requests)} requests were refused.")
    used = {name: (cpu_seconds(pids) - before[name]) * 1e6 / len(requests) for name, pids in groups.items()}
    return Round(outcome, used)


class Proof:
    """That each round's payments are in the ledger, evented and assessed; a round that cannot show it is void."""

    def __init__(self, site: Site) -> None:
        """Look at the site's databases and at what risk has counted."""
        self._site, self._urls = site, database_urls(site.folder)

    def payments(self, expected: int) -> None:
        """Wait until all is at rest, then compare.

        There are ``expected`` payments, and no fewer decisions of risk (a batch that is done again asks
        again). Raises CommandError.
        """
        until = time.monotonic() + _SETTLE_S
        while True:
            found = list(findings(self._urls, time.time_ns() // 1_000_000, settled=True))
            faults = failures(found)
            if not faults:
                break
            if time.monotonic() > until:
                raise CommandError(
                    Exit.CHECK_FAILED, "A round is void, its payments do not come to rest:", *faults[:10]
                )
            time.sleep(1)
        stored = max(f.examined for room, f in found if room == "payment" and f.invariant == "I4")
        assessed = counts(self._site).assessed
        if stored != expected or assessed < expected:
            fault = f"A round is void: {expected} payments were made, {stored} are stored, {assessed:g} were assessed."
            raise CommandError(Exit.CHECK_FAILED, fault)

    def known(self) -> None:
        """Wait until payment knows every order by its event."""
        until = time.monotonic() + _SETTLE_S
        while time.monotonic() < until:
            found = list(findings(self._urls, time.time_ns() // 1_000_000, settled=True))
            if not [
                b for f in found if f.finding.what == "order.created handled by payment" for b in f.finding.breaches
            ]:
                return
            time.sleep(0.5)
        raise CommandError(Exit.CHECK_FAILED, "The orders' events did not reach payment.")


@dataclass(frozen=True, slots=True)
class Counts:
    """What the services have counted: batches of CreatePayment by their size's bound, their items, calls and items of risk."""

    batches: dict[str, float]
    items: float
    risk_calls: float
    assessed: float

    def since(self, before: Counts) -> Counts:
        """Return what came after ``before``."""
        batches = {bound: n - before.batches.get(bound, 0) for bound, n in self.batches.items()}
        return Counts(
            batches, self.items - before.items, self.risk_calls - before.risk_calls, self.assessed - before.assessed
        )

    def plus(self, other: Counts) -> Counts:
        """Add up two stretches."""
        batches = {bound: n + other.batches.get(bound, 0) for bound, n in self.batches.items()}
        return Counts(
            batches, self.items + other.items, self.risk_calls + other.risk_calls, self.assessed + other.assessed
        )


def counts(site: Site) -> Counts:
    """Read what payment's and risk's metrics say now."""
    paid, judged = _metrics(site, "payment"), _metrics(site, "risk")
    sizes = {k: v for k, v in paid.items() if k.startswith("paymesh_batch_size") and 'kind="create_payments"' in k}
    calls = [v for k, v in judged.items() if k.startswith("paymesh_call_seconds_count") and "BatchAssessPayments" in k]
    return Counts(
        batches={k.partition('le="')[2].partition('"')[0]: v for k, v in sizes.items() if "_bucket" in k},
        items=sum(v for k, v in sizes.items() if k.startswith("paymesh_batch_size_sum")),
        risk_calls=sum(calls),
        assessed=judged.get("paymesh_payments_assessed_total", 0),
    )


def _metrics(site: Site, service: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for instance in site.record["services"][service]:
        with urllib.request.urlopen(f"http://{instance['metrics']}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name and not line.startswith("#"):
                    found[name] = found.get(name, 0) + float(value)
    return found


def sync_ms(folder: Path) -> float:
    """Return what one durable write of 4 KiB costs where the databases lie: the median of 50, in milliseconds."""
    path, took = folder / "sync.probe", []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return statistics.median(took)

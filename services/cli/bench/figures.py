"""speed.md's figures from the rounds: medians, spreads, and what they were made of."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.bench import h2load, rounds
from services.cli.bench.site import Site, pss_mib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.cli.bench.rounds import Counts, Order, Round

_IDLE_S = 5.0
_IN_FLIGHT = 128
_WARM_UP = 500


def figure(values: Sequence[float], **parts: object) -> dict[str, Any]:
    """Render a ratio: its median, its spread over the rounds, and its parts."""
    spread = [round(min(values), 3), round(max(values), 3)]
    return {"ratio": round(statistics.median(values), 3), "spread": spread, **parts}


def run(count: int, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything: ``repeats`` rounds of ``count`` payments by gRPC, a third by REST and a twentieth one by one."""
    data = Path(tempfile.mkdtemp(prefix="pmb-", dir="/tmp"))
    try:
        with Site(data / "m") as site:
            say(f"cold start {site.started_s:.1f} s; making persons and orders")
            site.populate()
            result = _rates(site, count, repeats, say)
        with Site(data / "m") as site:
            result["R11"] = _warm(site)
        return result
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _warm(site: Site) -> dict[str, Any]:
    """R11: seconds from the start of a mesh that was there before to its first payment; memory when nothing happens."""
    began = time.monotonic()
    site.populate_again()
    rounds.measure(rounds.grpc_requests(site.orders(1)), 1, lambda: h2load.connect_unix(site.socket("payment")), {})
    first = site.started_s + time.monotonic() - began
    time.sleep(_IDLE_S)
    return {"warm_start_s": round(first, 2), "idle_pss_mib": round(pss_mib(site.all_pids()))}


class _Ways:
    """The ways of asking for a payment, and the echo on the same path."""

    def __init__(self, site: Site) -> None:
        """Start the echo beside a populated mesh."""
        process, self._echo = site.echo()
        self._echo_host, self._echo_port = site.echo_edge(self._echo)
        self._groups, self._echo_groups = site.groups(), {"echo": [process.pid]}
        self._socket, self._ca = site.socket("payment"), str(site.folder.ca)
        self._port = int(site.record["rest"].rpartition(":")[2])

    def grpc(self, orders: Sequence[Order], in_flight: int) -> tuple[Round, Round]:
        """Ask the echo and payment at their sockets."""
        asked, unix = rounds.grpc_requests(orders), h2load.connect_unix
        echo = rounds.measure(asked, in_flight, lambda: unix(self._echo), self._echo_groups)
        return echo, rounds.measure(asked, in_flight, lambda: unix(self._socket), self._groups)

    def rest(self, orders: Sequence[Order], in_flight: int) -> tuple[Round, Round]:
        """Ask both through an edge and a sidecar."""
        asked, tls = rounds.rest_requests(orders), h2load.connect_tls
        echo = rounds.measure(
            asked, in_flight, lambda: tls(self._echo_host, self._echo_port, self._ca), self._echo_groups
        )
        return echo, rounds.measure(asked, in_flight, lambda: tls("127.0.0.1", self._port, self._ca), self._groups)


def _rates(site: Site, count: int, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    by_rest, alone = count // 3, max(50, count // 20)
    orders = site.orders(2 * _WARM_UP + repeats * (count + by_rest + alone))
    proof, ways = rounds.Proof(site), _Ways(site)
    proof.known()
    site.settle_in()
    ways.grpc(_take(orders, _WARM_UP), 32)
    ways.rest(_take(orders, _WARM_UP), 32)
    made = 2 * _WARM_UP
    proof.payments(made)
    seen: list[dict[str, Round]] = []
    batched = rounds.Counts({}, 0, 0, 0)
    for number in range(repeats):
        before = rounds.counts(site)
        echo, payment = ways.grpc(_take(orders, count), _IN_FLIGHT)
        batched = rounds.counts(site).since(before).plus(batched)
        rest_echo, rest_payment = ways.rest(_take(orders, by_rest), _IN_FLIGHT)
        echo_one, payment_one = ways.grpc(_take(orders, alone), 1)
        made += count + by_rest + alone
        proof.payments(made)
        seen.append({"echo": echo, "payment": payment, "rest_echo": rest_echo, "rest_payment": rest_payment,
                     "echo_one": echo_one, "payment_one": payment_one})  # fmt: skip
        say(f"round {number + 1} of {repeats}: payment {payment.outcome.rate:.0f}/s, echo {echo.outcome.rate:.0f}/s")
    return {**_figures(seen, rounds.sync_ms(site.folder.path)), "batches": _batches(batched)}


def _take(orders: list[Order], count: int) -> list[Order]:
    taken = orders[:count]
    del orders[:count]
    return taken


def _figures(seen: list[dict[str, Round]], sync_ms: float) -> dict[str, Any]:
    def rates(way: str) -> float:
        return round(statistics.median(r[way].outcome.rate for r in seen))

    def ratio(top: Callable[[dict[str, Round]], float], bottom: Callable[[dict[str, Round]], float]) -> list[float]:
        return [top(r) / bottom(r) for r in seen]

    def cpu(way: str) -> dict[str, float]:
        return {name: round(statistics.median(r[way].cpu_us[name] for r in seen), 1) for name in seen[0][way].cpu_us}

    def ms(way: str, share: float) -> float:
        return statistics.median(r[way].outcome.percentile(share) for r in seen) * 1000

    by_rate = ratio(lambda r: r["payment"].outcome.rate, lambda r: r["echo"].outcome.rate)
    by_cpu = ratio(lambda r: sum(r["echo"].cpu_us.values()), lambda r: sum(r["payment"].cpu_us.values()))
    by_rest = ratio(lambda r: r["rest_payment"].outcome.rate, lambda r: r["rest_echo"].outcome.rate)
    tails = ratio(lambda r: r["payment"].outcome.percentile(0.99), lambda r: r["echo"].outcome.percentile(0.99))
    return {
        "R1": figure(by_rate, payment_rps=rates("payment"), echo_rps=rates("echo"), in_flight=_IN_FLIGHT),
        "R2": figure(by_cpu, echo_us=cpu("echo"), payment_us=cpu("payment")),
        "R3": figure(by_rest, payment_rps=rates("rest_payment"), echo_rps=rates("rest_echo")),
        "R4": figure(tails, payment_p99_ms=round(ms("payment", 0.99), 2), echo_p99_ms=round(ms("echo", 0.99), 2)),
        "R5": {
            "ms": round(ms("payment_one", 0.5) - ms("echo_one", 0.5) - 2 * sync_ms, 3),
            "payment_p50_ms": round(ms("payment_one", 0.5), 3),
            "echo_p50_ms": round(ms("echo_one", 0.5), 3),
            "sync_ms": round(sync_ms, 3),
        },
    }


def _batches(seen: Counts) -> dict[str, Any]:
    """Say how the gRPC rounds were batched: a batch is one transaction, and so one commit, of payments."""
    made = seen.batches["+Inf"]
    median = next(bound for bound, upto in seen.batches.items() if upto >= made / 2)
    return {
        "mean": round(seen.items / made, 1),
        "median_at_most": median,
        "commits_per_payment": round(made / seen.items, 3),
        "risk_calls_per_payment": round(seen.risk_calls / seen.items, 3),
        "histogram": seen.batches,
    }

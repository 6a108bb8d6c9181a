"""A kill at a point: arm it, let clients run into it, see that it was met, wait until everybody knows and all is back."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from services.cli.invariants import findings
from services.cli.verify import failures
from tests.chaos.drivers import PRICE, SKU, Balance, BankCard, Purchase, Wallet, booked
from tests.chaos.report import Row
from tests.e2e.clients import People, Rest, Shop
from tests.e2e.history import Clients
from tests.e2e.mesh import until
from tests.e2e.payers import Sandbox
from tests.e2e.recovery import SETTLE_S, every, restarted, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from tests.chaos.armed import Points
    from tests.chaos.drivers import Driver
    from tests.chaos.points import Case
    from tests.chaos.report import Report
    from tests.e2e.clients import Person
    from tests.e2e.history import Operation
    from tests.e2e.mesh import Mesh

BUYERS = 4
"""Each does the operation at once with the others, so that some wait at the point and some are in the same batch."""
DONE_S = 90.0
"""Within which what was begun before a kill is known to have ended."""
HIT_S = 15.0
"""From the last answer until the point is met: a relay takes over a dead one's lease within 5 s."""
ROUNDS = 3
REPLAYED_AT_ONCE = 32
RESTART_MS = 1_000
SENT_S = 60.0
"""Within which every notification is sent: a try that died with its process holds a lease of 30 s."""


@dataclass
class Crew:
    """Those who pay by one method, and all that they bought."""

    driver: Driver
    buyers: list[Person]
    purchases: list[Purchase] = field(default_factory=list)


class Site:
    """A mesh with points to arm, and its clients. What they did is in ``crews``, by method."""

    _numbers = itertools.count(1)

    def __init__(self, mesh: Mesh, points: Points, report: Report) -> None:
        """Call the edge of ``mesh``."""
        record = mesh.record
        self.mesh, self._points, self._report = mesh, points, report
        self._rest = Rest(record["rest"], Path(record["ca"]))
        self._people = People(self._rest, record["admin"])
        self.shop = Shop(self._rest, self._people.operator)
        self.clients = Clients(record["rest"], Path(record["ca"]))
        self._sandbox = Sandbox(record["sandbox"])
        self.crews: dict[str, Crew] = {}
        self._began_ms = time.time_ns() // 1_000_000

    async def aclose(self) -> None:
        """Close the connections."""
        self._rest.close()
        self._sandbox.close()
        await self.clients.close()

    def open(self, methods: Iterable[str]) -> None:
        """Stock the shop, and register people who can pay."""
        self.shop.stock(SKU, price=PRICE, available=1_000_000)
        for method in methods:
            crew = self.crews[method] = Crew(self._driver(method), [self._people.somebody() for _ in range(BUYERS)])
            crew.driver.fund(crew.buyers)

    def _driver(self, method: str) -> Driver:
        if method == "balance":
            return Balance(self.clients, self.shop)
        return (BankCard if method == "bank_card" else Wallet)(method, self.clients, self.shop, self._sandbox)

    def next(self, cases: Sequence[Case]) -> Case:
        """Choose what to go on with: the first that nothing on its way can meet, of a consumer rather than another."""
        pending = self._pending() if any(case.is_of_event for case in cases) else []
        ready = [case for case in cases if not _can_be_met(case, pending)]
        return max(ready or cases, key=lambda case: case.is_of_consumer)

    async def kill(self, case: Case) -> str:
        """Kill at a point while every buyer does the operation; returns what went wrong, "" for nothing."""
        try:
            return await self._kill(self.crews[case.method], case)
        except (AssertionError, TimeoutError) as error:
            self._report.add(Row(case.armed, case.method, case.operation, "-", verify="FAILED"))
            return f"{case}: {error!r}"[:1000]

    async def _kill(self, crew: Crew, case: Case) -> str:
        for _ in range(ROUNDS):
            purchases = await self._prepared(crew, case)
            row = await self._met(crew, case, purchases)
            if row is not None:
                break
        else:
            self._report.add(Row(case.armed, case.method, case.operation, "-", verify="NEVER MET"))
            return f"{case}: was never met"
        self._report.add(row)
        await self._replayed(purchases)
        if row.process.rpartition("-")[0] != case.service:
            return f"{case}: met by {row.process}"
        if row.restart_ms > RESTART_MS:
            return f"{case}: {row.process} was started again after {row.restart_ms} ms"
        return f"{case}: {row.verify}" if row.verify.startswith("BROKEN") else ""

    async def _met(self, crew: Crew, case: Case, purchases: Sequence[Purchase]) -> Row | None:
        """Do the operation with the point armed; returns what came of the kill, None: nobody came by."""
        pids, known = self._pids(), len(self.clients.history)
        self._points.arm(case.armed)
        dying = asyncio.create_task(self._back(case.armed, pids))
        reloading = asyncio.create_task(self._reload(case))
        try:
            await self._done(crew.driver.operations[case.operation](each) for each in purchases)
            rested_ms, operations = time.time() * 1000, self.clients.history[known:]
            hit = await self._points.met(case.armed, HIT_S)
            await reloading
            if hit is None:
                return None
            restart_ms, serving_ms = await dying
            return Row(
                case.armed, case.method, case.operation, pids[hit["pid"]], hit["pid"], restart_ms, serving_ms,
                answered_ms=_since(hit, max(each.known_ms for each in operations if each.key)),
                rested_ms=_since(hit, rested_ms),
                doubts=sum(len(each.doubts) for each in operations),
                verify=await asyncio.to_thread(self._verified),
            )  # fmt: skip
        finally:
            self._points.disarm(case.armed)
            dying.cancel()
            reloading.cancel()

    async def _prepared(self, crew: Crew, case: Case) -> list[Purchase]:
        """Return purchases with which the operation can be done, once nothing else can meet the point before them."""
        purchases = [Purchase(who, next(self._numbers), str(case)) for who in crew.buyers]
        crew.purchases += purchases
        await self._done(crew.driver.prepare(each, case.operation) for each in purchases)
        if case.is_of_event:
            await asyncio.to_thread(until, lambda: not _can_be_met(case, self._pending()), SETTLE_S, every=0.2)
        if case.point == "P14":
            await self.notified()
        if case.point in {"P15", "P16"}:
            await asyncio.to_thread(crew.driver.told, [each for each in crew.purchases if each.done])
        return purchases

    @staticmethod
    async def _done(operations: Iterable[Awaitable[None]]) -> None:
        """Wait until each of ``operations`` has ended. Raises what went wrong first."""
        async with asyncio.timeout(DONE_S):
            ended = await asyncio.gather(*operations, return_exceptions=True)
        for each in ended:
            if isinstance(each, BaseException):
                raise each

    async def _reload(self, case: Case) -> None:
        """Give config something to reload: an entry, or an instance that goes and comes back."""
        if case.armed == "P19.entries":
            body = {"key": "chaos.word", "value": f"word-{len(self.clients.history)}"}
            token = self._people.operator.token
            written = await self.clients.until_known("SetConfig", body, token)
            read = await self.clients.until_known("GetConfig", {"key": body["key"]}, token)
            assert read.answer["entry"] == written.answer["entry"], "another entry is read than was written"
            assert read.answer["entry"]["value"] == body["value"]
        elif case.armed == "P19.world":
            gone = self.mesh.kill("gateway-1", signal.SIGTERM)
            await restarted(self.mesh, "gateway-1", gone)
            await serving(self.mesh, "gateway-1")

    def _pids(self) -> dict[int, str]:
        return {each["pid"]: each["name"] for group in self.mesh.record["services"].values() for each in group}

    async def _back(self, name: str, pids: dict[int, str]) -> tuple[int, int]:
        """Wait until whoever dies of a point is there again; returns the ms from his death to his start and to his calls."""
        hit = await self._points.met(name, DONE_S + HIT_S)
        assert hit, "who waits for it is told before"
        process = pids[hit["pid"]]
        await restarted(self.mesh, process, hit["pid"])
        born_s = psutil.Process(self.mesh.pid(process)).create_time() - psutil.boot_time()
        died_s = time.clock_gettime(time.CLOCK_BOOTTIME) - (time.time() - hit["time_ms"] / 1000)
        await serving(self.mesh, process)
        return max(0, round(1000 * float(born_s - died_s))), _since(hit, time.time() * 1000)

    def _verified(self) -> str:
        """Check every invariant as `paymesh verify` does, as of the beginning: what came since may be on its way.

        A consumer's partitions wait 30 s for a dead member, and again when the next one dies.
        """
        found = list(findings(self.mesh.record["databases"], self._began_ms, settled=False))
        faults, pending = failures(found), sum(each.finding.pending for each in found)
        return f"BROKEN: {'; '.join(faults)}" if faults else f"holds, {pending} on their way"

    def _pending(self) -> list[tuple[str, str]]:
        """Return the audits that find something on its way: the room, or pair of rooms, and what they are about."""
        found = findings(self.mesh.record["databases"], time.time_ns() // 1_000_000, settled=True)
        return [(room, finding.what) for room, finding in found if finding.breaches]

    async def notified(self) -> None:
        """Wait until every notification to a buyer is sent; the mail server has each once."""
        buyers = [each for crew in self.crews.values() for each in crew.buyers]
        await asyncio.to_thread(until, lambda: all(map(self._is_told, buyers)), SENT_S, every=0.5)

    def _is_told(self, who: Person) -> bool:
        told = every(self._rest, "ListUserNotifications", "notifications", who.token, user_id=who.id)
        mails = httpx.get(f"{self.mesh.record['sandbox']}/mails", params={"to": who.email}, trust_env=False)
        is_sent = {each["status"] for each in told} == {"STATUS_SENT"}
        assert not is_sent or len(mails.json()["messages"]) == len(told), (told, mails.json())
        return is_sent

    async def ended(self) -> None:
        """Assert that every call that moved money has its answer for good, and that all books say what clients know."""
        for crew in self.crews.values():
            await self._replayed(crew.purchases)
            await asyncio.to_thread(crew.driver.told, crew.purchases)
            booked(self.shop, crew.purchases)
            crew.driver.agrees(crew.purchases)

    async def _replayed(self, purchases: Iterable[Purchase]) -> None:
        """Repeat every call that moved money, with its key: byte for byte the first answer."""
        known = [each for purchase in purchases for each in purchase.told]
        for begin in range(0, len(known), REPLAYED_AT_ONCE):
            some = known[begin : begin + REPLAYED_AT_ONCE]
            again = await asyncio.gather(*map(self._again, some))
            for one, other in zip(some, again, strict=True):
                found = one.outcome, one.reason, one.content
                assert found == (other.outcome, other.reason, other.content), (str(one), str(other))

    async def _again(self, known: Operation) -> Operation:
        return await self.clients.until_known(known.method, known.body, known.token, known.key)


def _can_be_met(case: Case, pending: Iterable[tuple[str, str]]) -> bool:
    return any(case.is_met_by(room, what) for room, what in pending)


def _since(hit: dict[str, Any], ms: float) -> int:
    return max(0, round(ms - float(hit["time_ms"])))

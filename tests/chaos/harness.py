"""A kill at a point: arm it, let clients run into it, see that it was met, wait until everybody knows and all is back."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from services.cli.invariants import findings
from services.cli.verify import failures
from tests.chaos.drivers import PRICE, SKU, Purchase
from tests.chaos.points import PAY
from tests.chaos.report import Row
from tests.e2e.clients import People, Rest, Shop
from tests.e2e.history import Clients
from tests.e2e.mesh import until
from tests.e2e.recovery import SETTLE_S, every, restarted, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.armed import Points
    from tests.chaos.drivers import Driver
    from tests.chaos.points import Case
    from tests.chaos.report import Report
    from tests.e2e.clients import Person
    from tests.e2e.mesh import Mesh

BUYERS = 4
"""Each does the operation at once with the others, so that some wait at the point and some are in the same batch."""
HIT_S = 15.0
"""From the last answer until the point is met: a relay takes over a dead one's lease within 5 s."""
ROUNDS = 3
RESTART_MS = 1_000
SENT_S = 60.0
"""Within which every notification is sent: a try that died with its process holds a lease of 30 s."""


class Site:
    """A mesh with points to arm, and its clients. What they did is in ``purchases``."""

    _numbers = itertools.count(1)

    def __init__(self, mesh: Mesh, points: Points, report: Report) -> None:
        """Call the edge of ``mesh``."""
        record = mesh.record
        self.mesh, self._points, self._report = mesh, points, report
        self._rest = Rest(record["rest"], Path(record["ca"]))
        self._people = People(self._rest, record["admin"])
        self.shop = Shop(self._rest, self._people.operator)
        self.clients = Clients(record["rest"], Path(record["ca"]))
        self._buyers: list[Person] = []
        self.purchases: list[Purchase] = []
        self._began_ms = time.time_ns() // 1_000_000

    async def aclose(self) -> None:
        """Close the connections."""
        self._rest.close()
        await self.clients.close()

    def open(self, driver: Driver) -> None:
        """Stock the shop, and register people who can pay."""
        self.shop.stock(SKU, price=PRICE, available=1_000_000)
        self._buyers = [self._people.somebody() for _ in range(BUYERS)]
        driver.fund(self._buyers)

    async def kill(self, driver: Driver, case: Case) -> str:
        """Kill at a point while every buyer does the operation; returns what went wrong, "" for nothing."""
        for _ in range(ROUNDS):
            purchases = await self._prepared(driver, case)
            pids, known = self._pids(), len(self.clients.history)
            self._points.arm(case.armed)
            reloading = asyncio.create_task(self._reload(case))
            await asyncio.gather(*(driver.operations[case.operation](each) for each in purchases))
            known_ms = time.time() * 1000
            hit = await self._points.met(case.armed, HIT_S)
            await reloading
            if hit:
                break
        else:
            self._points.disarm(case.armed)
            self._report.add(Row(case.armed, case.method, case.operation, "-", verify="NEVER MET"))
            return f"{case}: was never met"
        process = pids[hit["pid"]]
        row = Row(
            case.armed, case.method, case.operation, process, hit["pid"],
            restart_ms=await self._back(process, hit),
            answered_ms=max(0, round(known_ms - hit["time_ms"])),
            doubts=sum(len(each.doubts) for each in self.clients.history[known:]),
            verify=await asyncio.to_thread(self._verified),
        )  # fmt: skip
        self._report.add(row)
        if process.rpartition("-")[0] != case.service:
            return f"{case}: met by {process}"
        if row.restart_ms > RESTART_MS:
            return f"{case}: {process} was started again after {row.restart_ms} ms"
        return f"{case}: {row.verify}" if row.verify.startswith("BROKEN") else ""

    async def _prepared(self, driver: Driver, case: Case) -> list[Purchase]:
        """Return purchases with which the operation can be done, once nothing else can meet the point before them."""
        purchases = [Purchase(who, next(self._numbers)) for who in self._buyers]
        self.purchases += purchases
        if case.operation != PAY:
            await asyncio.gather(*(driver.operations[PAY](each) for each in purchases))
        await asyncio.to_thread(until, lambda: not self._faults(case.is_met_by), SETTLE_S, every=0.2)
        if case.point == "P14":
            await self.notified()
        return purchases

    async def _reload(self, case: Case) -> None:
        """Give config something to reload: an entry, or an instance that goes and comes back."""
        if case.armed == "P19.entries":
            body = {"key": "chaos.word", "value": f"word-{len(self.purchases)}"}
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

    async def _back(self, process: str, hit: dict[str, Any]) -> int:
        """Wait until a process is there again and gets calls; returns the ms from its death to its start."""
        await restarted(self.mesh, process, hit["pid"])
        born_s = psutil.Process(self.mesh.pid(process)).create_time() - psutil.boot_time()
        died_s = time.clock_gettime(time.CLOCK_BOOTTIME) - (time.time() - hit["time_ms"] / 1000)
        await serving(self.mesh, process)
        return max(0, round(1000 * float(born_s - died_s)))

    def _verified(self) -> str:
        """Check every invariant as `paymesh verify` does, as of the beginning: what came since may be on its way.

        A consumer's partitions wait 30 s for a dead member, and again when the next one dies.
        """
        found = list(findings(self.mesh.record["databases"], self._began_ms, settled=False))
        faults, pending = failures(found), sum(each.finding.pending for each in found)
        return f"BROKEN: {'; '.join(faults)}" if faults else f"holds, {pending} on their way"

    def _faults(self, is_meant: Callable[[str], bool]) -> list[str]:
        """Return what is on its way, of the audits of which the room, or the pair of rooms, is meant."""
        found = findings(self.mesh.record["databases"], time.time_ns() // 1_000_000, settled=True)
        return [breach for room, finding in found if is_meant(room) for breach in finding.breaches]

    async def notified(self) -> None:
        """Wait until every notification to a buyer is sent; the mail server has each once."""
        await asyncio.to_thread(until, lambda: all(map(self._is_told, self._buyers)), SENT_S, every=0.5)

    def _is_told(self, who: Person) -> bool:
        told = every(self._rest, "ListUserNotifications", "notifications", who.token, user_id=who.id)
        mails = httpx.get(f"{self.mesh.record['sandbox']}/mails", params={"to": who.email}, trust_env=False)
        is_sent = {each["status"] for each in told} == {"STATUS_SENT"}
        assert not is_sent or len(mails.json()["messages"]) == len(told), (told, mails.json())
        return is_sent

    async def replayed(self) -> None:
        """Repeat every call that moved money, with its key: byte for byte the first answer."""
        for purchase in self.purchases:
            for told in purchase.told:
                again = await self.clients.until_known(told.method, told.body, purchase.who.token, told.key)
                assert (again.outcome, again.reason, again.content) == (told.outcome, told.reason, told.content)

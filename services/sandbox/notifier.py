"""Callbacks: sent until they are taken, on the provider's published schedule, and tampered with as the script says.

A callback that nobody took is forgotten when the sandbox stops; as with the real providers, it is not guaranteed to come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    import ssl

    from services.kernel.clock import Clock
    from services.sandbox.rules import Rule, Rules

DELIVERIES_MAX = 10_000
"""Attempts remembered, for tests to read."""
TIMEOUT_S = 5.0
"""What a real provider waits for an answer."""
_MINUTE_S, _HOUR_S = 60.0, 3_600.0
REPEATS_S = (15.0, 15.0, 30.0, 3 * _MINUTE_S, 10 * _MINUTE_S, 20 * _MINUTE_S, *3 * (30 * _MINUTE_S,), _HOUR_S,
             *3 * (3 * _HOUR_S,), 6 * _HOUR_S, 6 * _HOUR_S)  # fmt: skip
"""The schedule of WeChat Pay, and of the card network after its example."""
REORDER_MS = 1_000
"""How long notices are held for reordering, where the rule does not say."""
_TAMPERING = frozenset({"duplicate", "reorder", "late", "forge"})


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A callback ready to be sent: signed anew for each attempt."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to tell the merchant. ``render("")`` signs it truly, ``render(forgery)`` as a forger would.

    ``ids`` are the request ids that rules of the script may name.
    """

    notice_id: str
    ids: tuple[str, ...]
    url: str
    render: Callable[[str], Outgoing]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt. ``status`` 0: it did not arrive (``answer`` says why)."""

    notice_id: str
    ids: tuple[str, ...]
    at_ms: int
    forge: str
    status: int
    answer: str
    taken: bool


class Notifier:
    """Sends the callbacks of one provider."""

    def __init__(self, rules: Rules, clock: Clock, *, schedule_s: Sequence[float], time_scale: float,
                 taken: Callable[[int, bytes], bool], trust: ssl.SSLContext | bool = True,
                 transport: httpx.AsyncBaseTransport | None = None) -> None:  # fmt: skip
        """Repeat after each of ``schedule_s`` times ``time_scale`` what ``taken(status, body)`` says was not taken.

        Args:
            rules: The provider's script.
            clock: Time of the attempts.
            schedule_s: Waits between attempts, seconds.
            time_scale: 1 is real time, 0.001 a thousand times as fast.
            taken: Whether an answer is the one that ends the repeats.
            trust: Which certificates of merchants are believed.
            transport: In place of sockets, for tests.
        """
        self._rules, self._clock, self._taken = rules, clock, taken
        self._schedule_s, self._scale = schedule_s, time_scale
        self._trust, self._transport = trust, transport
        self._deliveries: deque[Delivery] = deque(maxlen=DELIVERIES_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: list[Notice] = []
        self._client: httpx.AsyncClient | None = None

    async def stop(self) -> None:
        """Give up what is not sent yet."""
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client:
            await self._client.aclose()

    async def settled(self) -> None:
        """Wait until nothing is under way any more; only a short schedule makes that soon."""
        while self._tasks:
            await asyncio.gather(*tuple(self._tasks), return_exceptions=True)

    def post(self, notice: Notice, after_s: float = 0, count: int = 1) -> None:
        """Send a notice until it is taken, the first time ``after_s`` seconds from now (not scaled), ``count`` at once."""
        if not notice.url:
            return
        found = {}
        for do in sorted(_TAMPERING):
            if rule := self._rules.take("callback", notice.ids, only={do}):
                found[do] = rule
        if rule := found.pop("reorder", None):
            self._held.append(notice)
            if rule.times == 1 or len(self._held) == 1:  # the last one of the rule, or the first one held
                wait_ms = 0 if rule.times == 1 else rule.delay_ms or REORDER_MS
                self.spawn(self._release(wait_ms / 1000))
            return
        self.spawn(self._run(notice, found, after_s, count))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside; it ends with stop() at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` of the provider's compressed time."""
        await asyncio.sleep(seconds * self._scale)

    async def send(self, notice: Notice, forge: str = "", count: int = 1) -> list[Delivery]:
        """Send a notice ``count`` times at once and return what was answered."""
        return list(await asyncio.gather(*(self._send(notice, forge) for _ in range(count))))

    def deliveries(self, request_id: str = "") -> list[dict[str, Any]]:
        """Return the attempts for a request id, or all, oldest first."""
        return [asdict(each) for each in self._deliveries if not request_id or request_id in each.ids]

    async def _run(self, notice: Notice, tampering: dict[str, Rule], after_s: float, count: int = 1) -> None:
        late, forge, duplicate = (tampering.get(do) for do in ("late", "forge", "duplicate"))
        await asyncio.sleep(after_s + sum(rule.delay_ms for rule in tampering.values()) / 1000)
        if late and not late.delay_ms:
            await self.sleep(self._schedule_s[0])
        if forge:
            await self._send(notice, forge.forge)
            if not forge.real:
                return
        count = duplicate.count if duplicate else count
        for wait_s in (0.0, *self._schedule_s):
            await self.sleep(wait_s)
            if self._rules.take("callback", notice.ids, only={"lose"}):
                self._deliveries.append(self._attempt(notice, "", 0, "lost", taken=False))
                continue
            if any(each.taken for each in await self.send(notice, count=count)):
                return
            count = 1

    async def _release(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        held, self._held = self._held, []
        for notice in reversed(held):
            await self._send(notice, "")  # in this order, whatever is answered; repeats follow if need be
        for notice in held:
            if not any(each.taken for each in self._deliveries if each.notice_id == notice.notice_id):
                self.spawn(self._run(notice, {}, self._schedule_s[0] * self._scale))

    async def _send(self, notice: Notice, forge: str) -> Delivery:
        self._client = self._client or httpx.AsyncClient(
            verify=self._trust, transport=self._transport, timeout=httpx.Timeout(TIMEOUT_S, pool=None), trust_env=False
        )
        out = notice.render(forge)
        try:
            answer = await self._client.post(notice.url, content=out.body, headers=out.headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            made = self._attempt(notice, forge, 0, type(error).__name__, taken=False)
        else:
            text, taken = answer.text[:200], self._taken(answer.status_code, answer.content)
            made = self._attempt(notice, forge, answer.status_code, text, taken=taken)
        self._deliveries.append(made)
        return made

    def _attempt(self, notice: Notice, forge: str, status: int, answer: str, *, taken: bool) -> Delivery:
        return Delivery(notice.notice_id, notice.ids, self._clock.now_ms(), forge, status, answer, taken)

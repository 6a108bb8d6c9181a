"""Sending: a thread that takes ids from the queue, threads that hand messages to providers, and a look for what waits.

Webhooks have threads of their own and no queue: one look in SQL finds what is due, soon enough for pauses of minutes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING

from services.notification import usecases
from services.notification.domain import Attempt, Channel, Notification, Outcome
from services.platform import failpoint, telemetry
from services.platform.jobs import Every

if TYPE_CHECKING:
    from services.notification.ports import Ports, Sender
    from services.platform.batcher import Batcher

QUEUE_WAIT_S = 1
"""How long an idle queue is asked in one go; also how long a stop may take to be heard."""
_LOOK_S = 1.0
"""How often waiting notifications are looked for: the first pause is a second."""
_HOOK_LOOK_S = 0.5
"""How often due webhooks are looked for that nobody has told of: those whose pause is over."""
_HOOK_STOP_S = 3.0
"""How long a stop waits for tries of webhooks: what takes longer is tried again when its lease ends, under the same id."""


class Dispatcher:
    """Part of the App: sends what is queued, with as many threads as ``at_once``.

    A try begins (is claimed) only when a thread is free for it, so that its lease runs while it is made and not while
    it waits. Writes go through the Batcher like all others.
    """

    def __init__(self, ports: Ports, batcher: Batcher, senders: Mapping[Channel, Sender], at_once: int) -> None:
        """Prepare the threads."""
        self._ports, self._batcher, self._senders = ports, batcher, senders
        self._pool = ThreadPoolExecutor(at_once, "send")
        self._free = threading.BoundedSemaphore(at_once)
        self._at_once, self._stopping = at_once, False
        self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)
        self._look = Every(_LOOK_S, self._push_due, "push-due")

    def start(self) -> None:
        """Take up what was in work when this instance last ended, and begin."""
        self._ports.queue.recover()
        self._thread.start()
        self._look.start()

    def stop(self) -> None:
        """End after the messages that are being sent."""
        self._stopping = True
        self._look.stop()
        self._thread.join(timeout=QUEUE_WAIT_S + 10)
        self._pool.shutdown(wait=True)

    def _work(self) -> None:
        while not self._stopping:
            self._free.acquire()
            slots = 1
            while slots < self._at_once and self._free.acquire(blocking=False):
                slots += 1
            try:
                slots -= self._dispatch(slots)
            except Exception:  # noqa: BLE001 - the thread outlives whatever one round meets; the job brings the ids again
                telemetry.log.exception("dispatcher.failed")
            for _ in range(slots):
                self._free.release()

    def _dispatch(self, most: int) -> int:
        """Begin up to ``most`` tries; returns how many threads are taken."""
        taken = self._ports.queue.take(most, QUEUE_WAIT_S)
        if not taken:
            return 0
        outcomes = self._batcher.submit_all("claim", taken)
        claimed = [each for each in outcomes if isinstance(each, Notification)]
        for each in claimed:
            self._pool.submit(self._deliver, each)
        # What is not to be sent now needs no queue. A claim that failed for the database's sake is pushed again in time.
        begun = {each.id for each in claimed}
        self._ports.queue.done([each for each in taken if each not in begun])
        return len(claimed)

    def _deliver(self, notification: Notification) -> None:
        try:
            try:
                failure = self._senders[notification.channel].send(notification)
            except Exception as error:  # noqa: BLE001 - a sender that breaks is a failed try
                telemetry.log.exception("sender.failed", channel=notification.channel.value)
                failure = f"the sender broke: {type(error).__name__}"
            if not failure:
                failpoint.reach("P14", notification.channel.value)
            else:
                telemetry.log.info(
                    "notification.not_sent", id=notification.id, try_=notification.attempts, failure=failure
                )
            outcome = usecases.Settle(notification.id, notification.attempts, failure)
            self._batcher.submit_all("settle", [outcome])
            self._ports.queue.done([notification.id])
        except Exception:  # noqa: BLE001 - nobody waits for this thread; the lease ends, and it is tried again
            telemetry.log.exception("sender.outcome_lost", id=notification.id)
        finally:
            self._free.release()

    def _push_due(self) -> None:
        if usecases.is_any_due(self._ports):
            self._batcher.submit_all("push_due", [0])


class WebhookDispatcher:
    """Part of the App: posts what is due to the merchant's endpoints, ``at_once`` in all and half of that to one of them.

    The half is what an endpoint that does not answer can hold up. ``posted`` wakes it before its next look.
    """

    def __init__(self, ports: Ports, batcher: Batcher, posted: threading.Event, at_once: int) -> None:
        """Prepare the threads."""
        self._ports, self._batcher, self._wake = ports, batcher, posted
        self._at_once, self._each_max, self._stopping = at_once, at_once // 2, False
        self._begun: SimpleQueue[Attempt | None] = SimpleQueue()
        self._lock, self._busy = threading.Lock(), Counter[int]()
        # Not a pool: the interpreter waits at its end for the threads of pools, and an endpoint can take its time.
        self._threads = [threading.Thread(target=self._send, name="post", daemon=True) for _ in range(at_once)]
        self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin."""
        for each in (*self._threads, self._thread):
            each.start()

    def stop(self) -> None:
        """Begin no more tries, and wait a moment for those that are made."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=10)
        for _ in self._threads:
            self._begun.put(None)
        until = time.monotonic() + _HOOK_STOP_S
        for each in self._threads:
            each.join(timeout=max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while not self._stopping:
            self._wake.wait(_HOOK_LOOK_S)
            self._wake.clear()
            try:
                while not self._stopping and self._begin():
                    pass
            except Exception:  # noqa: BLE001 - the thread outlives whatever one round meets; the next look finds the same
                telemetry.log.exception("webhooks.failed")

    def _begin(self) -> int:
        """Begin as many tries as there are threads for; returns how many."""
        with self._lock:
            busy = self._busy.copy()
        free, chosen = self._at_once - busy.total(), list[int]()
        if not free:
            return 0
        full = [endpoint_id for endpoint_id, n in busy.items() if n >= self._each_max]
        for delivery_id, endpoint_id in usecases.due_deliveries(self._ports, free, full):
            if busy[endpoint_id] < self._each_max:
                busy[endpoint_id] += 1
                chosen.append(delivery_id)
        if not chosen:
            return 0
        begun = [each for each in self._batcher.submit_all("claim_deliveries", chosen) if isinstance(each, Attempt)]
        for each in begun:
            with self._lock:
                self._busy[each.endpoint_id] += 1
            self._begun.put(each)
        return len(begun)

    def _send(self) -> None:
        while (attempt := self._begun.get()) is not None:
            try:
                self._deliver(attempt)
            except Exception:  # noqa: BLE001 - nobody waits for this thread; the lease ends, and it is tried again
                telemetry.log.exception("webhook.outcome_lost", id=attempt.delivery_id)
            with self._lock:
                self._busy[attempt.endpoint_id] -= 1
            self._wake.set()

    def _deliver(self, attempt: Attempt) -> None:
        try:
            outcome = self._ports.hooks.post(attempt)
        except Exception as error:  # noqa: BLE001 - a sender that breaks is a failed try
            telemetry.log.exception("webhook.broke", id=attempt.delivery_id)
            outcome = Outcome(f"the sender broke: {type(error).__name__}")
        if outcome.failure:
            telemetry.log.info(
                "webhook.not_delivered",
                id=attempt.delivery_id,
                endpoint=attempt.endpoint_id,
                try_=attempt.attempt,
                failure=outcome.failure,
            )
        settled = usecases.SettleDelivery(attempt.delivery_id, attempt.attempt, outcome)
        self._batcher.submit_all("settle_deliveries", [settled])

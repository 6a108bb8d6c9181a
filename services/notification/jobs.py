"""Sending: a thread that takes ids from the queue, threads that hand messages to providers, and a look for what waits."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from services.notification import usecases
from services.notification.domain import Channel, Notification
from services.platform import failpoint, telemetry
from services.platform.jobs import Every

if TYPE_CHECKING:
    from services.notification.ports import Ports, Sender
    from services.platform.batcher import Batcher

QUEUE_WAIT_S = 1
"""How long an idle queue is asked in one go; also how long a stop may take to be heard."""
_LOOK_S = 1.0
"""How often waiting notifications are looked for: the first pause is a second."""


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

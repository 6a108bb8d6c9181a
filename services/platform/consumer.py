"""Consumers: events of the contract in, commands to the room's Batcher out; offsets are committed after the effect.

At least once from the broker, once in effect: the use case writes the event's id to the inbox in its own transaction.
An event that fails is tried 5 times within 5 seconds and then moved to the topic's dead-letter topic, so that a poison
event never blocks its partition for longer. What fails because something is away (UNAVAILABLE, OVERLOADED,
DEADLINE_EXCEEDED) is no poison: it waits until that is back, for no other event would fare better.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage
from google.protobuf.message import Message

from services.contract.load import contract
from services.kernel.errors import DomainError
from services.platform import failpoint, telemetry
from services.platform.broker import EventProducer, Record, group_consumer

if TYPE_CHECKING:
    from services.platform.batcher import Batcher

TRIES = 5
_BACKOFF_S = (0.1, 0.4, 1.0, 2.0)
BATCH = 200
_AWAY = frozenset({"UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED"})
_NOT_ERRORS = frozenset({KafkaError._PARTITION_EOF, KafkaError.UNKNOWN_TOPIC_OR_PART})  # noqa: SLF001 - librdkafka's own codes are named so


@dataclass(frozen=True, slots=True)
class Subscription:
    """An event type, the command it becomes (from the message and the event's id), and the Batcher's kind."""

    message: type[Message]
    command: Callable[[Any, str], object]
    kind: str


@dataclass(slots=True)
class _Work:
    """An event on its way. ``failure`` says why it had no effect yet, ``tries`` how often it was its own fault."""

    received: KafkaMessage
    event_id: str
    kind: str
    command: object
    tries: int = 0
    failure: str = ""


class _NotNow(Exception):
    """The batch comes again: nothing was committed."""


class EventConsumer:
    """Handles the topics that the contract gives to a service. A thread; one consumer group per service."""

    def __init__(self, service: str, subscriptions: tuple[Subscription, ...], batcher: Batcher, servers: str) -> None:
        """Handle ``subscriptions``, which must be those that the contract names the service a consumer of."""
        events = contract().events
        self._by_topic = {events[s.message.DESCRIPTOR.full_name].topic: s for s in subscriptions}
        stated = {e.topic for e in events.values() if service in e.consumers}
        assert set(self._by_topic) == stated, (
            f"{service} handles {sorted(self._by_topic)}, the contract says {sorted(stated)}"
        )
        self._service, self._batcher, self._servers = service, batcher, servers
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="consumer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; events whose effect was not committed come again."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._stopping.is_set():
            consumer = group_consumer(self._servers, f"paymesh.{self._service}")
            try:
                self._consume(consumer)
            except (KafkaException, _NotNow) as error:
                telemetry.log.warning("consumer.begins_again", service=self._service, error=str(error))
            except Exception:  # noqa: BLE001 - the consumer outlives whatever it met; the events come again
                telemetry.log.exception("consumer.failed", service=self._service)
            finally:
                consumer.close()
            self._stopping.wait(0.5)

    def _consume(self, consumer: Consumer) -> None:
        for topic in self._by_topic:  # made by asking for it: a topic that comes later is never assigned
            consumer.list_topics(topic, timeout=5)
        consumer.subscribe(sorted(self._by_topic))
        while not self._stopping.is_set():
            received = consumer.consume(1, timeout=0.1)
            if received:  # what is there already comes along; a lone event does not wait for company
                received += consumer.consume(BATCH - 1, timeout=0.002)
            messages = [message for message in received if _is_usable(message)]
            if messages:
                self._handle(messages)
                failpoint.reach("P13", self._service)
                consumer.commit(offsets=_next_offsets(messages), asynchronous=False)

    def _handle(self, messages: list[KafkaMessage]) -> None:
        """Give a batch its effect; returns when every event has it or lies in the dead-letter topic."""
        works: dict[tuple[str, str], _Work] = {}
        buried: list[_Work] = []
        for message in messages:
            work = self._parse(message)
            if work.failure:
                buried.append(work)  # no further try makes a message of it
            else:
                works.setdefault((str(message.topic()), work.event_id), work)  # an event that comes twice at once
        pending, rounds = list(works.values()), 0
        while pending:
            pending = self._try(pending)
            buried += [work for work in pending if work.tries >= TRIES]
            pending = [work for work in pending if work.tries < TRIES]
            if pending and self._stopping.wait(_BACKOFF_S[min(rounds, len(_BACKOFF_S) - 1)]):
                raise _NotNow("stopping")
            rounds += 1
        self._bury(buried)

    def _try(self, works: list[_Work]) -> list[_Work]:
        """Run the use cases once; returns what failed."""
        for kind in dict.fromkeys(work.kind for work in works):
            some = [work for work in works if work.kind == kind]
            try:
                outcomes = self._batcher.submit_all(kind, [work.command for work in some])
            except DomainError as refusal:  # the Batcher's own: nothing was taken
                outcomes = [refusal] * len(some)
            for work, outcome in zip(some, outcomes, strict=True):
                work.failure = str(outcome) or type(outcome).__name__ if isinstance(outcome, Exception) else ""
                work.tries += not (isinstance(outcome, DomainError) and outcome.reason in _AWAY)
                if not work.failure:
                    telemetry.EVENTS_TAKEN.labels(str(work.received.topic()), "done").inc()
        return [work for work in works if work.failure]

    def _parse(self, received: KafkaMessage) -> _Work:
        subscription, event_id = self._by_topic[str(received.topic())], headers_of(received).get("ce_id", "")
        work = _Work(received, event_id, subscription.kind, None)
        if not event_id:
            work.failure = "no ce_id"
            return work
        try:
            work.command = subscription.command(subscription.message.FromString(received.value() or b""), event_id)
        except Exception as error:  # noqa: BLE001 - whatever a mapping makes of foreign bytes, it is this event's failure
            work.failure = f"not a message of the topic: {type(error).__name__}"
        return work

    def _bury(self, works: list[_Work]) -> None:
        """Move events that cannot be handled to `<topic>.dead_letter`, with the reason in a header."""
        if not works:
            return
        producer = EventProducer(self._servers)
        records = []
        for work in works:
            received, topic = work.received, str(work.received.topic())
            headers = (
                *((k, v.encode()) for k, v in headers_of(received).items()),
                ("paymesh_failure", work.failure.encode()),
            )
            records.append(Record(f"{topic}.dead_letter", received.key() or b"", received.value() or b"", headers))
            telemetry.EVENTS_TAKEN.labels(topic, "dead_letter").inc()
            telemetry.log.error("consumer.dead_letter", service=self._service, topic=topic, reason=work.failure)
        if not all(producer.publish(records)):
            raise _NotNow("the dead-letter topic did not take the event")


def headers_of(message: KafkaMessage) -> Mapping[str, str]:
    """Return a message's headers as text."""
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {k: (v.decode(errors="replace") if isinstance(v, bytes) else str(v or "")) for k, v in pairs}


def _is_usable(message: KafkaMessage) -> bool:
    error = message.error()
    if error is None:
        return True
    if error.code() not in _NOT_ERRORS:
        raise KafkaException(error)
    return False


def _next_offsets(messages: list[KafkaMessage]) -> list[TopicPartition]:
    last: dict[tuple[str, int], int] = {}
    for m in messages:
        last[str(m.topic()), int(m.partition() or 0)] = int(m.offset() or 0) + 1
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in last.items()]

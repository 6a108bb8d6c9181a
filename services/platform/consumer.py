"""Consumers: events of the contract in, commands to the room's Batcher out; offsets are committed after the effect.

At least once from the broker, once in effect: the use case writes the event's id to the inbox in its own transaction.
An event that fails is tried 5 times within 5 seconds and then moved to the topic's dead-letter topic, so that a poison
event never blocks its partition for longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage
from google.protobuf.message import DecodeError, Message

from services.contract.load import contract
from services.kernel.errors import DomainError
from services.platform import telemetry
from services.platform.broker import EventProducer, Record, group_consumer

if TYPE_CHECKING:
    from services.platform.batcher import Batcher

TRIES = 5
_BACKOFF_S = (0.1, 0.4, 1.0, 2.0)
BATCH = 200


@dataclass(frozen=True, slots=True)
class Subscription:
    """An event type, the command it becomes (from the message and the event's id), and the Batcher's kind."""

    message: type[Message]
    command: Callable[[Any, str], object]
    kind: str


@dataclass(slots=True)
class _Work:
    received: KafkaMessage
    subscription: Subscription
    command: object | None


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
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="consumer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; events whose effect was not committed come again."""
        self._stopping = True
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._stopping:
            consumer = group_consumer(self._servers, f"paymesh.{self._service}")
            try:
                for topic in self._by_topic:  # made by asking for it: a topic that comes later is never assigned
                    consumer.list_topics(topic, timeout=5)
                consumer.subscribe(sorted(self._by_topic))
                while not self._stopping:
                    messages = [m for m in consumer.consume(BATCH, timeout=0.1) if self._usable(m)]
                    if messages:
                        self._handle(messages)
                        consumer.commit(offsets=_next_offsets(messages), asynchronous=False)
            except KafkaException as error:
                telemetry.log.warning("consumer.broker_trouble", service=self._service, error=str(error))
                time.sleep(0.5)
            except Exception:
                telemetry.log.exception("consumer.failed", service=self._service)
                time.sleep(0.5)
            finally:
                consumer.close()

    def _usable(self, message: KafkaMessage) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() not in {KafkaError._PARTITION_EOF, KafkaError.UNKNOWN_TOPIC_OR_PART}:
            raise KafkaException(error)
        return False

    def _handle(self, messages: list[KafkaMessage]) -> None:
        """Give a batch its effect; returns when every event has it or lies in the dead-letter topic."""
        pending = [self._parse(message) for message in messages]
        for tries in range(1, TRIES + 1):
            failed: list[tuple[_Work, str]] = [(w, "not a message of the topic") for w in pending if w.command is None]
            runnable = [w for w in pending if w.command is not None]
            for kind in dict.fromkeys(w.subscription.kind for w in runnable):
                works = [w for w in runnable if w.subscription.kind == kind]
                outcomes = self._batcher.submit_all(kind, [w.command for w in works])
                failed += [(w, str(o)) for w, o in zip(works, outcomes, strict=True) if isinstance(o, Exception)]
            self._count(len(pending) - len(failed), pending)
            if not failed:
                return
            if tries == TRIES or self._stopping:
                break
            time.sleep(_BACKOFF_S[tries - 1])
            pending = [w for w, _ in failed]
        if self._stopping:
            raise KafkaException(KafkaError(KafkaError._FAIL, "stopping: the batch comes again"))
        self._bury(failed)

    def _count(self, done: int, works: list[_Work]) -> None:
        if done and works:
            telemetry.EVENTS_TAKEN.labels(str(works[0].received.topic()), "done").inc(done)

    def _parse(self, received: KafkaMessage) -> _Work:
        subscription = self._by_topic[str(received.topic())]
        try:
            event = subscription.message.FromString(received.value() or b"")
            event_id = headers_of(received).get("ce_id", "")
            command = subscription.command(event, event_id) if event_id else None
        except (DecodeError, ValueError, DomainError):
            command = None
        return _Work(received, subscription, command)

    def _bury(self, failed: list[tuple[_Work, str]]) -> None:
        """Move events that cannot be handled to `<topic>.dead_letter`, with the reason in a header."""
        producer = EventProducer(self._servers)
        records = []
        for work, reason in failed:
            received, topic = work.received, str(work.received.topic())
            headers = (
                *((k, v.encode()) for k, v in headers_of(received).items()),
                ("paymesh_failure", reason.encode()),
            )
            records.append(Record(f"{topic}.dead_letter", received.key() or b"", received.value() or b"", headers))
            telemetry.EVENTS_TAKEN.labels(topic, "dead_letter").inc()
            telemetry.log.error("consumer.dead_letter", service=self._service, topic=topic, reason=reason)
        if not all(producer.publish(records)):
            raise KafkaException(KafkaError(KafkaError._FAIL, "the dead-letter topic did not take the event"))


def headers_of(message: KafkaMessage) -> Mapping[str, str]:
    """Return a message's headers as text."""
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {k: (v.decode(errors="replace") if isinstance(v, bytes) else str(v or "")) for k, v in pairs}


def _next_offsets(messages: list[KafkaMessage]) -> list[TopicPartition]:
    last: dict[tuple[str, int], int] = {}
    for m in messages:
        last[str(m.topic()), int(m.partition() or 0)] = int(m.offset() or 0) + 1
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in last.items()]

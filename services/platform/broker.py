"""Kafka: a producer that knows what arrived, and the settings of our consumers. Real or embedded, the code is the same."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Sequence

Header = tuple[str, bytes]

_EMBEDDED = "mockCluster"
"""How librdkafka's own broker calls its clusters; the rest of the name is an address in memory, which may come again."""
_ARRIVAL_S = 15
"""Longer than message.timeout.ms: when it is over, every message has arrived or is given up."""


@dataclass(frozen=True, slots=True)
class Record:
    """A message for the broker: key bytes decide the partition."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[Header, ...]


class EventProducer:
    """Publishes records in order per key, idempotently, and says which arrived."""

    def __init__(self, servers: str) -> None:
        """Connect lazily to ``servers`` (host:port, …)."""
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 10_000,
                "socket.keepalive.enable": True,
                "log_level": 2,
            }
        )

    def broker_id(self) -> str:
        """Return the cluster's id, 64 characters at most, which changes when an embedded broker starts anew.

        A real cluster keeps its id whichever of its brokers are up. Raises KafkaException when none answers.
        """
        metadata = self._producer.list_topics(timeout=5)
        cluster = str(metadata.cluster_id or "")
        if not cluster or cluster.startswith(_EMBEDDED):
            cluster += "".join(sorted(f"/{b.host}:{b.port}" for b in metadata.brokers.values()))
        return cluster if len(cluster) <= 64 else hashlib.sha256(cluster.encode()).hexdigest()

    def publish(self, records: Sequence[Record]) -> list[bool]:
        """Send records and wait for the broker; True for each that it has."""
        arrived = [False] * len(records)

        def delivered(place: int, error: object, _message: object) -> None:
            arrived[place] = error is None

        for place, record in enumerate(records):
            self._produce(record, partial(delivered, place))
        self._producer.flush(_ARRIVAL_S)
        return arrived

    def _produce(self, record: Record, on_delivery: Callable[[object, object], None]) -> None:
        """Hand over a record, waiting for room: one that was passed over would come after its successors."""
        until = time.monotonic() + _ARRIVAL_S
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, headers=list(record.headers), on_delivery=on_delivery
                )
            except BufferError:
                if time.monotonic() > until:
                    raise KafkaException("the producer's buffer stays full") from None
                self._producer.poll(0.1)
            else:
                return

    def stop(self) -> None:
        """Send what is left, at most for a second."""
        self._producer.flush(1)


def group_consumer(servers: str, group: str) -> Consumer:
    """Make a consumer of ``group`` whose offsets are committed by hand, after the effect."""
    return Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 20,
            "topic.metadata.refresh.interval.ms": 2_000,
            "allow.auto.create.topics": True,
            "log_level": 2,
        }
    )


class Backlog:
    """How many messages of a topic no consumer has handled yet: the most of any partition and group."""

    def __init__(self, servers: str) -> None:
        """Ask ``servers`` for the committed offsets of groups; connections are made when they are first asked for."""
        self._servers = servers
        self._consumers: dict[str, Consumer] = {}

    def unread(self, topic: str, groups: Sequence[str]) -> int:
        """Return the backlog of ``topic`` for ``groups``, in messages of one partition. 0 when the broker is silent."""
        try:
            return max((self._of(topic, group) for group in groups), default=0)
        except KafkaException:
            return 0

    def _of(self, topic: str, group: str) -> int:
        consumer = self._consumers.get(group)
        if consumer is None:
            consumer = self._consumers[group] = _watcher(self._servers, group)
        worst = 0
        metadata = consumer.list_topics(topic, timeout=2).topics[topic]
        for at in consumer.committed([TopicPartition(topic, p) for p in metadata.partitions], timeout=2):
            low, high = consumer.get_watermark_offsets(at, timeout=2)
            worst = max(worst, high - max(at.offset, low))
        return worst

    def stop(self) -> None:
        """Close the connections."""
        for consumer in self._consumers.values():
            consumer.close()


def _watcher(servers: str, group: str) -> Consumer:
    return Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False, "log_level": 2})

"""Kafka: a producer that knows what arrived, and the settings of our consumers. Real or embedded, the code is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Sequence

Header = tuple[str, bytes]


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
        """Return the cluster's id, which changes when an embedded broker starts anew. Raises KafkaException."""
        metadata = self._producer.list_topics(timeout=5)
        return str(metadata.cluster_id or "") + "".join(f"/{b.host}:{b.port}" for b in metadata.brokers.values())

    def publish(self, records: Sequence[Record]) -> list[bool]:
        """Send records and wait for the broker; True for each that it has."""
        arrived = [False] * len(records)

        def on_delivery(place: int) -> Any:  # noqa: ANN401 - librdkafka's callback
            def delivered(error: object, _message: object) -> None:
                arrived[place] = error is None

            return delivered

        for place, record in enumerate(records):
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, headers=list(record.headers), on_delivery=on_delivery(place)
                )
            except BufferError:
                self._producer.poll(0.1)
        self._producer.flush(15)
        return arrived

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

    def __init__(self, servers: str, groups: Sequence[str]) -> None:
        """Watch the committed offsets of ``groups``."""
        self._consumers = {group: _watcher(servers, group) for group in groups}

    def unread(self, topic: str, groups: Sequence[str]) -> int:
        """Return the backlog of ``topic`` for ``groups``, in messages of one partition. 0 when the broker is silent."""
        worst = 0
        for group in groups:
            consumer = self._consumers[group]
            try:
                metadata = consumer.list_topics(topic, timeout=2).topics[topic]
                partitions = [TopicPartition(topic, p) for p in metadata.partitions]
                for at in consumer.committed(partitions, timeout=2):
                    low, high = consumer.get_watermark_offsets(at, timeout=2)
                    worst = max(worst, high - max(at.offset, low))
            except KafkaException:
                return 0
        return worst

    def stop(self) -> None:
        """Close the connections."""
        for consumer in self._consumers.values():
            consumer.close()


def _watcher(servers: str, group: str) -> Consumer:
    return Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False, "log_level": 2})

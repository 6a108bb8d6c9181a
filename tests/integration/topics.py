"""What is on the broker, read from its beginning by a consumer of no group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable


def reader(kafka: str, topics: Iterable[str]) -> Consumer:
    """Read whole topics. In a group, a topic that is made after the subscription would never be assigned."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "reader"})
    known = {topic: consumer.list_topics(topic, timeout=5).topics[topic] for topic in topics}
    consumer.assign(
        [TopicPartition(t, number, OFFSET_BEGINNING) for t, each in known.items() for number in each.partitions]
    )
    return consumer

"""What is on the broker, read from its beginning by a consumer of no group."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable


def reader(kafka: str, topics: Iterable[str]) -> Consumer:
    """Read whole topics. In a group, a topic that is made after the subscription would never be assigned."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "reader"})
    consumer.assign([each for topic in topics for each in _partitions(consumer, topic)])
    return consumer


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Asking makes a topic that is not there, which at first has no partitions."""
    until = time.monotonic() + 10
    while not (found := consumer.list_topics(topic, timeout=5).topics[topic].partitions):
        assert time.monotonic() < until, f"{topic} has no partitions"
        time.sleep(0.05)
    return [TopicPartition(topic, number, OFFSET_BEGINNING) for number in found]

"""What is on the broker, read from its beginning by a consumer of no group."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable


def reader(kafka: str, topics: Iterable[str], within: float = 10) -> Consumer:
    """Read whole topics; one that nobody has written to in time is empty.

    In a group, a topic that is made after the subscription would never be assigned.
    """
    consumer, until = Consumer({"bootstrap.servers": kafka, "group.id": "reader"}), time.monotonic() + within
    consumer.assign([each for topic in topics for each in _partitions(consumer, topic, until)])
    return consumer


def _partitions(consumer: Consumer, topic: str, until: float) -> list[TopicPartition]:
    while not (found := consumer.list_topics(topic, timeout=5).topics[topic].partitions) and time.monotonic() < until:
        time.sleep(0.05)
    return [TopicPartition(topic, number, OFFSET_BEGINNING) for number in found]

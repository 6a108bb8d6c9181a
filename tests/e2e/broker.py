"""What is on the broker: every message of some topics, from the first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable


def missing(servers: str, wanted: Iterable[tuple[str, str]], seconds: float = 30.0) -> set[tuple[str, str]]:
    """Read until each wanted (topic, key) was seen as a CloudEvent of its type; returns those that did not come."""
    left, deadline = set(wanted), time.monotonic() + seconds
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "e2e-reader", "enable.auto.commit": False, "log_level": 2}
    )
    try:
        known = consumer.list_topics(timeout=10).topics
        consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in {topic for topic, _ in left}
                for partition in (known[topic].partitions if topic in known else (0, 1, 2, 3))
            ]
        )
        while left and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None or message.error():
                continue
            headers = dict(message.headers() or [])
            topic, key = str(message.topic()), message.key() or b""
            assert headers["ce_type"] == topic.encode()
            assert headers["ce_id"]
            left.discard((topic, key.decode()))
    finally:
        consumer.close()
    return left

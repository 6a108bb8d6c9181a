"""The embedded Kafka broker: librdkafka's own, in memory, inside this process.

Not a process of its own: its port is another at every start, so services could not find one that was restarted alone.
Here it lives exactly as long as the mesh, and its threads are C that never hold Python up.
"""

from __future__ import annotations

from confluent_kafka import Producer


class EmbeddedBroker:
    """A broker from construction to ``stop``."""

    def __init__(self) -> None:
        """Start it; it listens on loopback."""
        self._owner = Producer({"test.mock.num.brokers": "1", "bootstrap.servers": "", "log_level": 2})

    def address(self) -> str:
        """Return its host:port."""
        brokers = self._owner.list_topics(timeout=5).brokers.values()
        return ",".join(f"{each.host}:{each.port}" for each in brokers)

    def stop(self) -> None:
        """End it, and with it everything that it holds."""
        del self._owner

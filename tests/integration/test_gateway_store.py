"""The gateway's schema is what its migrations make; its buckets are real ones in a Valkey, shared by who asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.gateway.adapters.redis import RedisQuanta
from services.gateway.domain import Limit
from services.gateway.store import metadata
from services.kernel.clock import SystemClock
from services.platform import cache, migrations
from services.platform.database import Database

if TYPE_CHECKING:
    from pathlib import Path


def test_schema_is_what_the_migrations_make(tmp_path: Path) -> None:
    """No table, column, index or constraint differs."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    migrations.upgrade("gateway", url)
    database = Database(url)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.stop()


def test_bucket_gives_what_it_has_and_fills_evenly(redis_url: str) -> None:
    """Ten calls in a second, however many are wanted and whoever asks; a tenth of a second brings another."""
    limit, key = Limit(10, 1_000), f"t{time.monotonic_ns()}"
    with cache.connect(redis_url) as client:
        first, second = RedisQuanta(client, SystemClock()), RedisQuanta(client, SystemClock())
        taken = first.take([(key, limit, 7)])
        assert taken
        assert taken[0] == (7, 3, 0)
        taken = second.take([(key, limit, 7), (f"{key}-other", limit, 1)])
        assert taken
        (granted, left, wait_ms), other = taken
        assert 3 <= granted <= 5, "and what came in between"
        assert left == 0
        assert 0 <= wait_ms <= 100
        assert other == (1, 9, 0)
        time.sleep(0.35)
        taken = first.take([(key, limit, 10)])
        assert taken
        assert 3 <= taken[0][0] <= 10
        assert 0 < client.pttl(f"paymesh:limit:{key}") <= 1_000


def test_nothing_is_taken_while_redis_is_away() -> None:
    """It is said at once, and not after a time-out each."""
    quanta = RedisQuanta(cache.connect("redis://127.0.0.1:1/0"), SystemClock())
    assert quanta.take([("k", Limit(1, 1_000), 1)]) is None
    began = time.monotonic()
    assert quanta.take([("k", Limit(1, 1_000), 1)]) is None
    assert time.monotonic() - began < 0.2

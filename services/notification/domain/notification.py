"""A notification and its tries. Pure. Times are milliseconds since 1970 UTC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from services.notification import states

TRIES_MAX: Final = 5
PAUSES_MS: Final = (1_000, 5_000, 30_000, 120_000)
"""From a failed try to the next."""
LEASE_MS: Final = 30_000
"""How long a try may take before another sender takes it for dead: longer than all time-outs of one try."""
PUSH_AGAIN_MS: Final = 10_000
"""When a notification that the queue should have brought is taken for lost."""
FAILURE_MAX: Final = 300
UNKNOWN_CONTACT: Final = "the user has no address that we know of"
UNKNOWN_OUTCOME: Final = "the sender ended before it noted the outcome"


class Channel(StrEnum):
    """How a notification is sent."""

    SMS = "sms"
    EMAIL = "email"
    PUSH = "push"


@dataclass(frozen=True, slots=True)
class Contact:
    """Where a user can be reached, as the event with ``version`` told it."""

    user_id: int
    email: str
    phone: str
    version: int


@dataclass(frozen=True, slots=True)
class Notification:
    """A message to one person.

    ``recipient`` "" means the user's address at the time of sending. ``not_before_ms``: until then nobody may try it, for
    somebody does or has just failed. ``push_ms``: when it is to be pushed into the queue again. ``event_id`` is the event
    that it tells of; None: somebody asked for it.
    """

    id: int
    user_id: int
    channel: Channel
    recipient: str
    subject: str
    text: str
    status: str
    attempts: int
    failure: str
    create_ms: int
    send_ms: int | None
    not_before_ms: int
    push_ms: int
    event_id: str | None

    def may_be_tried(self, now_ms: int) -> bool:
        """Whether a sender may take it now."""
        return self.status == states.QUEUED and self.not_before_ms <= now_ms

    def claimed(self, now_ms: int, recipient: str) -> Notification:
        """Begin a try to ``recipient``: it is counted, and nobody else begins one until its lease ends."""
        assert self.may_be_tried(now_ms)
        until = now_ms + LEASE_MS
        return replace(self, recipient=recipient, attempts=self.attempts + 1, not_before_ms=until, push_ms=until)

    def sent(self, now_ms: int) -> Notification:
        """The provider took it."""
        return replace(self._moved(states.SENT), failure="", send_ms=now_ms)

    def tried(self, failure: str, now_ms: int) -> Notification:
        """The try failed: pause, longer each time, or give it up after the last."""
        if self.attempts >= TRIES_MAX:
            return replace(self._moved(states.FAILED), failure=failure[:FAILURE_MAX])
        again = now_ms + PAUSES_MS[self.attempts - 1]
        return replace(self, failure=failure[:FAILURE_MAX], not_before_ms=again, push_ms=again)

    def pushed(self, now_ms: int) -> Notification:
        """It is in the queue, and is taken for lost when nobody tries it in time."""
        return replace(self, push_ms=now_ms + PUSH_AGAIN_MS)

    def address_in(self, contact: Contact | None) -> str:
        """Return where it goes to: its own recipient, else the contact's; "" when there is none."""
        if self.recipient or contact is None:
            return self.recipient
        return {Channel.EMAIL: contact.email, Channel.SMS: contact.phone}.get(self.channel, "")

    def _moved(self, status: str) -> Notification:
        assert status in states.NEXT[self.status], f"{self.status} -> {status}"
        return replace(self, status=status)


def queued(
    notification_id: int,
    *,
    user_id: int,
    channel: Channel,
    recipient: str,
    subject: str,
    text: str,
    now_ms: int,
    event_id: str | None = None,
) -> Notification:
    """Make a notification that waits to be sent."""
    return Notification(
        id=notification_id,
        user_id=user_id,
        channel=channel,
        recipient=recipient,
        subject=subject,
        text=text,
        status=states.QUEUED,
        attempts=0,
        failure="",
        create_ms=now_ms,
        send_ms=None,
        not_before_ms=now_ms,
        push_ms=now_ms + PUSH_AGAIN_MS,
        event_id=event_id,
    )

"""Messages to people, and what each event sets off: one function per kind of request, event and phase of sending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from services.kernel.errors import DomainError
from services.kernel.idempotency import Answer, IdempotencyKey, Once
from services.kernel.ids import shard_of
from services.notification import states
from services.notification.domain import Channel, Contact, Notification, queued
from services.notification.domain.notification import TRIES_MAX, UNKNOWN_CONTACT, UNKNOWN_OUTCOME
from services.notification.usecases.deliveries import announced

if TYPE_CHECKING:
    from services.kernel.pages import Page
    from services.notification.ports import Ports, Store, Transaction

PUSH_MAX = 500
"""Notifications that one look of the job brings back into the queue."""


@dataclass(frozen=True, slots=True)
class SendNotification:
    """Command: send a message to an address."""

    user_id: int
    channel: Channel
    recipient: str
    subject: str
    text: str
    key: IdempotencyKey | None


@dataclass(frozen=True, slots=True)
class KnowContact:
    """Command of user.created and user.updated: where a user can be reached now. ``welcome`` greets him by that name."""

    event_id: str
    topic: str
    contact: Contact
    welcome: str = ""


@dataclass(frozen=True, slots=True)
class Tell:
    """Command of any other event: mail the text of an occasion to a user, or with ``user_id`` 0 to the operators.

    ``occasion`` "": no mail. ``notice`` is what endpoints of the merchant are posted; "": nothing.
    """

    event_id: str
    topic: str
    occasion: str = ""
    user_id: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Settle:
    """Command: how try number ``attempt`` of a notification ended; ``failure`` is "" when it was taken."""

    id: int
    attempt: int
    failure: str


C = TypeVar("C", KnowContact, Tell)


def send_notifications(ports: Ports, commands: Sequence[SendNotification]) -> list[Answer]:
    """Store messages as queued; they are sent afterwards."""
    now_ms = ports.clock.now_ms()
    made: list[Notification] = []
    with ports.store.transaction() as tx:
        once = Once([command.key for command in commands], tx.stored(command.key for command in commands))
        for place in once.fresh:
            command = commands[place]
            made.append(
                queued(
                    ports.ids.next(shard_of(command.user_id)),
                    user_id=command.user_id,
                    channel=command.channel,
                    recipient=command.recipient,
                    subject=command.subject,
                    text=command.text,
                    now_ms=now_ms,
                )
            )
            once.settle(place, ports.render(made[-1]))
        if made:
            tx.add(made)
            tx.keep(once.kept(business=ports.business), now_ms)
            tx.commit()
    ports.queue.push([each.id for each in made])
    return once.done()


def know_contacts(ports: Ports, commands: Sequence[KnowContact]) -> list[None]:
    """Keep the newest contact of each user, and welcome the new ones."""
    now_ms = ports.clock.now_ms()
    made: list[Notification] = []
    with ports.store.transaction() as tx:
        fresh = _unseen(tx, commands)
        known = tx.contacts({command.contact.user_id for command in fresh})
        newest: dict[int, Contact] = {}
        for command in fresh:
            contact = command.contact
            before = newest.get(contact.user_id, known.get(contact.user_id))
            if before is None or before.version < contact.version:  # topics are read in any order
                newest[contact.user_id] = contact
            if command.welcome:
                values = {"username": command.welcome}
                made.append(_mail(ports, command, "welcome", contact.user_id, contact.email, values, now_ms))
        tx.put_contacts(list(newest.values()))
        tx.add(made)
        tx.mark([(command.event_id, command.topic) for command in fresh], now_ms)
        tx.commit()
    ports.queue.push([each.id for each in made])
    return [None] * len(commands)


def tell(ports: Ports, commands: Sequence[Tell]) -> list[None]:
    """Queue the e-mail and the deliveries of each event that was not told yet."""
    now_ms = ports.clock.now_ms()
    with ports.store.transaction() as tx:
        fresh = _unseen(tx, commands)
        made = [_told(ports, command, now_ms) for command in fresh if command.occasion]
        posted = announced(
            ports, tx, [(each.event_id, each.topic, each.notice) for each in fresh if each.notice], now_ms
        )
        tx.add(made)
        tx.add_deliveries(posted)
        tx.mark([(command.event_id, command.topic) for command in fresh], now_ms)
        tx.commit()
    ports.queue.push([each.id for each in made])
    if posted:
        ports.posted()
    return [None] * len(commands)


def claim(ports: Ports, notification_ids: Sequence[int]) -> list[Notification | None]:
    """Begin a try of each; None for those that are not to be sent now: done, in work elsewhere, pausing, unaddressed."""
    now_ms = ports.clock.now_ms()
    outcomes: list[Notification | None] = []
    changed: dict[int, Notification] = {}
    with ports.store.transaction() as tx:
        found = tx.lock(set(notification_ids))
        contacts = tx.contacts({each.user_id for each in found.values() if not each.recipient})
        for notification_id in notification_ids:
            each = changed.get(notification_id, found.get(notification_id))
            if each is None or not each.may_be_tried(now_ms):
                outcomes.append(None)
                continue
            address = each.address_in(contacts.get(each.user_id))
            if each.attempts >= TRIES_MAX:
                changed[each.id], outcome = each.tried(UNKNOWN_OUTCOME, now_ms), None
            elif not address:
                changed[each.id], outcome = each.claimed(now_ms, "").tried(UNKNOWN_CONTACT, now_ms), None
            else:
                changed[each.id] = outcome = each.claimed(now_ms, address)
            outcomes.append(outcome)
        _put(ports, tx, changed, now_ms)
    return outcomes


def settle(ports: Ports, commands: Sequence[Settle]) -> list[None]:
    """Note how tries ended.

    That a message was taken is a fact, whoever's try it was; that a try failed counts only while no later one began.
    """
    now_ms = ports.clock.now_ms()
    changed: dict[int, Notification] = {}
    with ports.store.transaction() as tx:
        found = tx.lock({command.id for command in commands})
        for command in commands:
            each = changed.get(command.id, found.get(command.id))
            if each is None or each.status != states.QUEUED:
                continue
            if not command.failure:
                changed[each.id] = each.sent(now_ms)
            elif each.attempts == command.attempt:
                changed[each.id] = each.tried(command.failure, now_ms)
        _put(ports, tx, changed, now_ms)
    return [None] * len(commands)


def is_any_due(ports: Ports) -> bool:
    """Whether a notification waits for ``push_due``; a read, so that an idle service writes nothing."""
    return bool(ports.store.due(ports.clock.now_ms(), 1))


def push_due(ports: Ports, looks: Sequence[int]) -> list[int]:
    """Push what waits too long, because its pause is over or the queue lost it; for each look, how many."""
    now_ms = ports.clock.now_ms()
    due = ports.store.due(now_ms, PUSH_MAX)
    with ports.store.transaction() as tx:
        waiting = [each for each in tx.lock(due).values() if each.status == states.QUEUED]
        tx.put([each.pushed(now_ms) for each in waiting])
        tx.commit()
    ports.queue.push([each.id for each in waiting])
    return [len(waiting)] * len(looks)


def get_notification(store: Store, notification_id: int, owner: int | None) -> Notification:
    """Read a notification; one that is not the owner's is as good as none."""
    found = store.find(notification_id, owner)
    if found is None:
        raise DomainError("NOTIFICATION_NOT_FOUND", notification_id=notification_id)
    return found


def list_user_notifications(store: Store, user_id: int, page: Page) -> tuple[Sequence[Notification], str]:
    """Return a page of the notifications to a user, newest first, and the token of the next."""
    return page.cut(store.list_of(user_id, page), lambda each: each.id)


def _unseen(tx: Transaction, commands: Sequence[C]) -> list[C]:
    unseen = tx.unseen([command.event_id for command in commands])
    first = {command.event_id: command for command in reversed(commands) if command.event_id in unseen}
    return [command for command in commands if first.get(command.event_id) is command]


def _told(ports: Ports, command: Tell, now_ms: int) -> Notification:
    recipient = "" if command.user_id else ports.operators_email
    return _mail(ports, command, command.occasion, command.user_id, recipient, command.values, now_ms)


def _mail(
    ports: Ports,
    command: KnowContact | Tell,
    occasion: str,
    user_id: int,
    recipient: str,
    values: Mapping[str, str],
    now_ms: int,
) -> Notification:
    text = ports.texts.render(occasion, values)
    return queued(
        ports.ids.next(shard_of(user_id)),
        user_id=user_id,
        channel=Channel.EMAIL,
        recipient=recipient,
        subject=text.subject,
        text=text.text,
        now_ms=now_ms,
        event_id=command.event_id,
    )


def _put(ports: Ports, tx: Transaction, changed: Mapping[int, Notification], now_ms: int) -> None:
    """Store and commit what changed; what was given up becomes an event."""
    if not changed:
        return
    failed = [each for each in changed.values() if each.status == states.FAILED]
    tx.put(list(changed.values()))
    tx.publish_failed(failed, now_ms)
    tx.commit()
    if failed:
        ports.committed()

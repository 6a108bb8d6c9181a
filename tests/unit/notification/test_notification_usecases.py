"""The work of the notification room, over fakes."""

from __future__ import annotations

import pytest

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.pages import page
from services.notification import states, usecases
from services.notification.domain import Channel, Contact, Notification
from services.notification.domain.notification import (
    LEASE_MS,
    PAUSES_MS,
    PUSH_AGAIN_MS,
    TRIES_MAX,
    UNKNOWN_CONTACT,
    UNKNOWN_OUTCOME,
)
from services.notification.usecases import KnowContact, SendNotification, Settle, Tell
from tests.fakes.notification import OPERATORS, FakeNotification

USER = 7
KNOWN = Contact(USER, "a@example.com", "+8613800000000", 1)


@pytest.fixture
def room() -> FakeNotification:
    return FakeNotification()


def sms(key: str = "") -> SendNotification:
    stated = IdempotencyKey(Scope(1, "SendSms", key), b"f") if key else None
    return SendNotification(USER, Channel.SMS, "+8613900000000", "", "hi", stated)


def paid(event: int, user_id: int = USER) -> Tell:
    return Tell(f"order-{event}", "order.paid", "order_paid", user_id, {"order_no": str(event)})


def created(version: int = 1, email: str = "a@example.com") -> KnowContact:
    return KnowContact(f"user-{version}", "user.created", Contact(USER, email, "", version), welcome="ann")


def only(room: FakeNotification) -> Notification:
    [found] = room.store.rows.notifications.values()
    return found


def fail(room: FakeNotification, failure: str = "provider answered 503") -> None:
    """Make one try that fails."""
    [claimed] = usecases.claim(room.ports, [only(room).id])
    assert claimed is not None
    usecases.settle(room.ports, [Settle(claimed.id, claimed.attempts, failure)])


def test_message_is_queued_once_for_one_key(room: FakeNotification) -> None:
    """Stored and pushed after the commit; repeats get the first answer."""
    first, again, other = usecases.send_notifications(room.ports, [sms("key-0001"), sms("key-0001"), sms()])
    [later] = usecases.send_notifications(room.ports, [sms("key-0001")])
    assert first == again == later != other
    assert list(room.queue.waiting) == sorted(room.store.rows.notifications) == [1001, 1002]
    assert {each.status for each in room.store.rows.notifications.values()} == {states.QUEUED}


def test_event_is_told_once(room: FakeNotification) -> None:
    """A repeat in the batch or later does nothing; the recipient is found when it is sent."""
    usecases.tell(room.ports, [paid(1), paid(1)])
    usecases.tell(room.ports, [paid(1)])
    assert (only(room).recipient, only(room).event_id, only(room).text) == ("", "order-1", "order_no=1")
    assert room.store.rows.taken == [("order-1", "order.paid")]
    assert list(room.queue.waiting) == [only(room).id]


def test_alert_goes_to_the_operators(room: FakeNotification) -> None:
    """They are no user: it is nobody's to read but theirs."""
    usecases.tell(room.ports, [Tell("risk-1", "risk.alert", "risk_alert", 0, {})])
    assert (only(room).recipient, only(room).user_id) == (OPERATORS, 0)


def test_new_user_is_welcomed_and_known(room: FakeNotification) -> None:
    """Once, at the address of the event."""
    usecases.know_contacts(room.ports, [created()])
    usecases.know_contacts(room.ports, [created()])
    assert (only(room).subject, only(room).recipient, only(room).text) == ("welcome", "a@example.com", "username=ann")
    assert room.store.rows.contacts == {USER: Contact(USER, "a@example.com", "", 1)}


@pytest.mark.parametrize("together", [True, False])
def test_newest_contact_stays_whatever_the_order(room: FakeNotification, together: bool) -> None:  # noqa: FBT001 - both ways
    """user.created may be read after user.updated: versions decide, and the welcome is sent nevertheless."""
    updated = KnowContact("user-2", "user.updated", Contact(USER, "new@example.com", "", 2))
    batches = [[updated, created()]] if together else [[updated], [created()]]
    for batch in batches:
        usecases.know_contacts(room.ports, batch)
    assert room.store.rows.contacts[USER].email == "new@example.com"
    assert only(room).subject == "welcome"


def test_try_is_counted_and_leased_before_it_is_made(room: FakeNotification) -> None:
    """Nobody else begins one until the lease ends, not even within the batch."""
    usecases.send_notifications(room.ports, [sms()])
    claimed, twice = usecases.claim(room.ports, [1001, 1001])
    assert claimed is not None
    assert (claimed.attempts, twice) == (1, None)
    room.clock.ms += LEASE_MS - 1
    assert usecases.claim(room.ports, [1001, 999]) == [None, None]
    room.clock.ms += 1
    [again] = usecases.claim(room.ports, [1001])
    assert again is not None
    assert again.attempts == 2


def test_sent_is_sent(room: FakeNotification) -> None:
    """It leaves the queue for good, and the time is noted."""
    usecases.send_notifications(room.ports, [sms()])
    usecases.claim(room.ports, [1001])
    room.clock.ms += 5
    usecases.settle(room.ports, [Settle(1001, 1, "")])
    assert (only(room).status, only(room).send_ms, only(room).failure) == (states.SENT, room.clock.ms, "")
    room.clock.ms += 10 * LEASE_MS
    assert usecases.claim(room.ports, [1001]) == [None]
    assert not usecases.is_any_due(room.ports)


def test_failures_pause_longer_and_end_after_the_fifth(room: FakeNotification) -> None:
    """1 s, 5 s, 30 s, 2 min; then it is failed and an event says so, once."""
    usecases.send_notifications(room.ports, [sms()])
    for pause in PAUSES_MS:
        fail(room)
        room.clock.ms += pause - 1
        assert usecases.claim(room.ports, [1001]) == [None]
        assert not usecases.is_any_due(room.ports)
        room.clock.ms += 1
        assert usecases.is_any_due(room.ports)
    assert (only(room).attempts, room.store.rows.given_up) == (TRIES_MAX - 1, [])
    fail(room)
    found = only(room)
    assert (found.status, found.attempts, found.failure) == (states.FAILED, 5, "provider answered 503")
    assert (room.store.rows.given_up, room.committed) == ([1001], 1)
    usecases.settle(room.ports, [Settle(1001, 5, "late")])
    assert room.store.rows.given_up == [1001]


def test_unknown_contact_is_a_failed_try_until_it_is_known(room: FakeNotification) -> None:
    """No sender is bothered; once user.created was read it goes to that address."""
    usecases.tell(room.ports, [paid(1)])
    notification_id = only(room).id
    assert usecases.claim(room.ports, [notification_id]) == [None]
    assert (only(room).attempts, only(room).failure) == (1, UNKNOWN_CONTACT)
    usecases.know_contacts(room.ports, [KnowContact("u", "user.updated", KNOWN)])
    room.clock.ms += PAUSES_MS[0]
    [claimed] = usecases.claim(room.ports, [notification_id])
    assert claimed is not None
    assert (claimed.recipient, claimed.attempts) == ("a@example.com", 2)


def test_sender_that_died_five_times_is_enough(room: FakeNotification) -> None:
    """A message that ends its sender before the outcome is noted is not tried for ever."""
    usecases.send_notifications(room.ports, [sms()])
    for _ in range(TRIES_MAX):
        assert usecases.claim(room.ports, [1001]) != [None]
        room.clock.ms += LEASE_MS
    assert usecases.claim(room.ports, [1001]) == [None]
    assert (only(room).status, only(room).failure) == (states.FAILED, UNKNOWN_OUTCOME)
    assert room.store.rows.given_up == [1001]


def test_late_outcome_counts_when_it_is_good(room: FakeNotification) -> None:
    """A failure of a try whose lease ended says nothing of the one that runs; that it was taken is a fact."""
    usecases.send_notifications(room.ports, [sms()])
    usecases.claim(room.ports, [1001])
    room.clock.ms += LEASE_MS
    usecases.claim(room.ports, [1001])
    usecases.settle(room.ports, [Settle(1001, 1, "too late")])
    assert (only(room).status, only(room).failure) == (states.QUEUED, "")
    usecases.settle(room.ports, [Settle(1001, 1, "")])
    assert only(room).status == states.SENT


def test_lost_queue_is_filled_again(room: FakeNotification) -> None:
    """What nobody tried in time is pushed again, and then left alone for as long."""
    usecases.send_notifications(room.ports, [sms(), sms()])
    room.queue.waiting.clear()
    assert not usecases.is_any_due(room.ports)
    room.clock.ms += PUSH_AGAIN_MS
    assert usecases.is_any_due(room.ports)
    assert usecases.push_due(room.ports, [0]) == [2]
    assert list(room.queue.waiting) == [1001, 1002]
    assert not usecases.is_any_due(room.ports)


def test_notification_of_another_is_none(room: FakeNotification) -> None:
    """Its owner reads it, or whoever may read all; the list has the newest first."""
    usecases.send_notifications(room.ports, [sms(), sms()])
    assert usecases.get_notification(room.store, 1001, USER) == usecases.get_notification(room.store, 1001, None)
    for notification_id, owner in ((1001, USER + 1), (9, USER)):
        with pytest.raises(DomainError) as raised:
            usecases.get_notification(room.store, notification_id, owner)
        assert raised.value.metadata == {"notification_id": str(notification_id)}
    first, token = usecases.list_user_notifications(room.store, USER, page(1, ""))
    rest, end = usecases.list_user_notifications(room.store, USER, page(1, token))
    assert ([each.id for each in [*first, *rest]], end) == ([1002, 1001], "")

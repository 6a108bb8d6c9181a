"""Endpoints and deliveries, over fakes."""

from __future__ import annotations

import pytest

from services.kernel.errors import DomainError
from services.kernel.idempotency import IdempotencyKey, Scope
from services.kernel.pages import page
from services.notification import states, usecases
from services.notification.domain import Attempt, Outcome, WebhookDelivery
from services.notification.domain.webhook import (
    DISABLED,
    ENDPOINTS_MAX,
    LEASE_MS,
    PAUSES_MS,
    TRIES_MAX,
    UNKNOWN_OUTCOME,
)
from services.notification.usecases import (
    CreateWebhookEndpoint,
    RotateWebhookSecret,
    SettleDelivery,
    Tell,
    UpdateWebhookEndpoint,
)
from tests.fakes.notification import FakeNotification

URL = "https://shop.example/hook"
PENDING, DELIVERED, FAILED = (
    states.WEBHOOK_DELIVERY_PENDING,
    states.WEBHOOK_DELIVERY_DELIVERED,
    states.WEBHOOK_DELIVERY_FAILED,
)


@pytest.fixture
def room() -> FakeNotification:
    return FakeNotification()


def key(text: str, method: str = "CreateWebhookEndpoint") -> IdempotencyKey:
    return IdempotencyKey(Scope(1, method, text), text.encode())


def create(name: str = "one", *topics: str, url: str = URL) -> CreateWebhookEndpoint:
    return CreateWebhookEndpoint(url, topics or ("order.paid", "payment.success"), "", key(name))


def made(room: FakeNotification, name: str = "one", *topics: str) -> int:
    """Make an endpoint; returns its id."""
    [answer] = usecases.create_webhook_endpoints(room.ports, [create(name, *topics)])
    assert isinstance(answer, bytes)
    return int(answer.partition(b":")[0])


def happened(event: int, topic: str = "payment.success", occasion: str = "") -> Tell:
    return Tell(f"payment-{event}", topic, occasion, 7, {}, notice=f'{{"n":{event}}}')


def deliveries(room: FakeNotification) -> list[WebhookDelivery]:
    return list(room.store.rows.deliveries.values())


def only(room: FakeNotification) -> WebhookDelivery:
    [found] = deliveries(room)
    return found


def attempt(room: FakeNotification, outcome: Outcome) -> Attempt:
    """Make one try of the only delivery."""
    [claimed] = usecases.claim_deliveries(room.ports, [only(room).id])
    assert claimed is not None
    usecases.settle_deliveries(room.ports, [SettleDelivery(claimed.delivery_id, claimed.attempt, outcome)])
    return claimed


def reason(answer: object) -> str:
    assert isinstance(answer, DomainError)
    return answer.reason


def test_endpoint_is_made_once_for_one_key(room: FakeNotification) -> None:
    """Repeats get the first answer with the same secret; what is stored holds no secret in clear."""
    first, again, other = usecases.create_webhook_endpoints(room.ports, [create(), create(), create("two")])
    [later] = usecases.create_webhook_endpoints(room.ports, [create()])
    assert first == again == later != other
    secrets = {each.secret for each in room.store.rows.endpoints.values()}
    assert len(secrets) == 2
    assert isinstance(first, bytes)
    plain = first.partition(b":")[2]
    kept = [stored.answer for stored in room.store.rows.answers.values()]
    assert not [each for each in (*secrets, *kept) if isinstance(each, bytes) and plain in each]


def test_refused_url_is_refused_for_good_under_its_key(room: FakeNotification) -> None:
    """The check comes before, its verdict is kept, and a repeat gets it although the host is good by now."""
    room.hooks.refused[URL] = "address_not_public"
    command = usecases.checked(room.ports, create())
    [refused] = usecases.create_webhook_endpoints(room.ports, [command])
    assert isinstance(refused, DomainError)
    assert (refused.reason, refused.metadata) == ("WEBHOOK_URL_REFUSED", {"why": "address_not_public"})
    room.hooks.refused.clear()
    [again] = usecases.create_webhook_endpoints(room.ports, [usecases.checked(room.ports, create())])
    assert reason(again) == "WEBHOOK_URL_REFUSED"
    assert room.store.rows.endpoints == {}


def test_endpoints_have_a_limit(room: FakeNotification) -> None:
    """Also within a batch."""
    commands = [create(f"endpoint-{n}") for n in range(ENDPOINTS_MAX + 2)]
    answers = usecases.create_webhook_endpoints(room.ports, commands)
    assert [isinstance(each, bytes) for each in answers] == [True] * ENDPOINTS_MAX + [False] * 2
    assert reason(answers[-1]) == "WEBHOOK_ENDPOINT_LIMIT_EXCEEDED"


def test_event_has_one_delivery_to_each_endpoint_that_wants_it(room: FakeNotification) -> None:
    """Not to those of other topics or disabled; a repeat does nothing; the sender is woken."""
    one, two = made(room, "one"), made(room, "two", "payment.success")
    made(room, "other", "order.created")
    off = made(room, "off")
    usecases.update_webhook_endpoints(room.ports, [UpdateWebhookEndpoint(off, enabled=False)])
    usecases.tell(room.ports, [happened(1), happened(1), happened(2, "payment.initiated")])
    usecases.tell(room.ports, [happened(1)])
    assert [(each.endpoint_id, each.event_id) for each in deliveries(room)] == [(one, "payment-1"), (two, "payment-1")]
    assert {each.webhook_id for each in deliveries(room)} == {f"msg_{one}_payment-1", f"msg_{two}_payment-1"}
    assert {each.body for each in deliveries(room)} == {'{"n":1}'}
    assert room.store.rows.taken == [("payment-1", "payment.success"), ("payment-2", "payment.initiated")]
    assert room.store.rows.notifications == {}
    assert room.posted == 1


def test_event_with_a_mail_has_both_effects_in_one_transaction(room: FakeNotification) -> None:
    """Neither without the other: a delivery that breaks the change leaves no mail and no inbox row either."""
    endpoint_id = made(room)
    usecases.tell(room.ports, [happened(1, "order.paid", "order_paid")])
    assert (len(room.store.rows.notifications), only(room).endpoint_id) == (1, endpoint_id)
    room.store.rows.taken.clear()
    room.store.rows.notifications.clear()
    with pytest.raises(AssertionError):
        usecases.tell(room.ports, [happened(1, "order.paid", "order_paid")])
    assert (room.store.rows.notifications, room.store.rows.taken) == ({}, [])


def test_try_carries_url_body_and_secrets(room: FakeNotification) -> None:
    """It is counted and leased before it is made; both secrets sign after a rotation."""
    endpoint_id = made(room)
    usecases.rotate_webhook_secrets(room.ports, [RotateWebhookSecret(endpoint_id, key("r", "RotateWebhookSecret"))])
    usecases.tell(room.ports, [happened(1)])
    claimed, twice = usecases.claim_deliveries(room.ports, [only(room).id, only(room).id])
    assert twice is None
    assert claimed is not None
    assert (claimed.url, claimed.body, claimed.attempt) == (URL, b'{"n":1}', 1)
    assert [int.from_bytes(secret, "big") for secret in claimed.secrets] == [2, 1]
    assert usecases.due_deliveries(room.ports, 9, ()) == []
    room.clock.ms += LEASE_MS
    assert usecases.due_deliveries(room.ports, 9, ()) == [(only(room).id, endpoint_id)]
    assert usecases.due_deliveries(room.ports, 9, (endpoint_id,)) == []
    [again] = usecases.claim_deliveries(room.ports, [only(room).id])
    assert again is not None
    assert (again.attempt, again.webhook_id) == (2, claimed.webhook_id)


def test_delivery_pauses_after_failures_and_is_given_up_after_the_tenth(room: FakeNotification) -> None:
    """The schedule of Standard Webhooks; then it can be sent again by hand, and only then."""
    made(room)
    usecases.tell(room.ports, [happened(1)])
    [conflict, missing] = usecases.resend_webhook_deliveries(room.ports, [only(room).id, 999])
    assert (reason(conflict), reason(missing)) == ("WEBHOOK_DELIVERY_STATUS_CONFLICT", "WEBHOOK_DELIVERY_NOT_FOUND")
    for pause in PAUSES_MS:
        attempt(room, Outcome("answered 500"))
        room.clock.ms += pause - 1
        assert usecases.claim_deliveries(room.ports, [only(room).id]) == [None]
        room.clock.ms += 1
    attempt(room, Outcome("answered 500"))
    assert (only(room).status, only(room).attempts) == (FAILED, TRIES_MAX)
    [again] = usecases.resend_webhook_deliveries(room.ports, [only(room).id])
    assert again == only(room)
    attempt(room, Outcome())
    found = only(room)
    assert (found.status, found.attempts, found.failure, found.deliver_ms) == (DELIVERED, 11, "", room.clock.ms)
    [once_more] = usecases.resend_webhook_deliveries(room.ports, [found.id])
    assert reason(once_more) == "WEBHOOK_DELIVERY_STATUS_CONFLICT"


def test_gone_endpoint_is_disabled_and_what_waits_is_given_up(room: FakeNotification) -> None:
    """No event goes to it until an operator enables it, and then deliveries can be sent again."""
    endpoint_id, other = made(room), made(room, "two")
    usecases.tell(room.ports, [happened(1), happened(2)])
    mine = [each.id for each in deliveries(room) if each.endpoint_id == endpoint_id]
    [first] = usecases.claim_deliveries(room.ports, mine[:1])
    assert first is not None
    usecases.settle_deliveries(room.ports, [SettleDelivery(first.delivery_id, 1, Outcome("answered 410", gone=True))])
    rows = room.store.rows
    assert (rows.endpoints[endpoint_id].enabled, rows.endpoints[endpoint_id].disable_reason) == (False, "gone")
    assert [(rows.deliveries[each].status, rows.deliveries[each].failure) for each in mine] == [
        (FAILED, "answered 410"),
        (FAILED, DISABLED),
    ]
    assert {each.status for each in deliveries(room) if each.endpoint_id == other} == {PENDING}
    [refused] = usecases.resend_webhook_deliveries(room.ports, mine[1:])
    assert reason(refused) == "WEBHOOK_ENDPOINT_DISABLED"
    [enabled] = usecases.update_webhook_endpoints(room.ports, [UpdateWebhookEndpoint(endpoint_id, enabled=True)])
    assert not isinstance(enabled, DomainError)
    assert (enabled.enabled, enabled.disable_reason) == (True, "")
    [again] = usecases.resend_webhook_deliveries(room.ports, mine[1:])
    assert not isinstance(again, DomainError)


def test_late_outcome_counts_when_it_is_good(room: FakeNotification) -> None:
    """A failure of a try whose lease ended says nothing of the one that runs; that it was taken is a fact."""
    made(room)
    usecases.tell(room.ports, [happened(1)])
    usecases.claim_deliveries(room.ports, [only(room).id])
    room.clock.ms += LEASE_MS
    usecases.claim_deliveries(room.ports, [only(room).id])
    for late in (Outcome("too late"), Outcome("answered 410", gone=True)):
        usecases.settle_deliveries(room.ports, [SettleDelivery(only(room).id, 1, late)])
        assert (only(room).status, only(room).failure) == (PENDING, "")
    usecases.settle_deliveries(room.ports, [SettleDelivery(only(room).id, 1, Outcome())])
    assert only(room).status == DELIVERED


def test_sender_that_died_ten_times_is_enough(room: FakeNotification) -> None:
    """A delivery that ends its sender before the outcome is noted is not tried for ever."""
    made(room)
    usecases.tell(room.ports, [happened(1)])
    for _ in range(TRIES_MAX):
        assert usecases.claim_deliveries(room.ports, [only(room).id]) != [None]
        room.clock.ms += LEASE_MS
    assert usecases.claim_deliveries(room.ports, [only(room).id]) == [None]
    assert (only(room).status, only(room).failure) == (FAILED, UNKNOWN_OUTCOME)


def test_secret_is_rotated_once_for_one_key(room: FakeNotification) -> None:
    """A repeat gets the same secret; one of an unknown endpoint is refused."""
    endpoint_id = made(room)
    command = RotateWebhookSecret(endpoint_id, key("r", "RotateWebhookSecret"))
    [first] = usecases.rotate_webhook_secrets(room.ports, [command])
    [again, unknown] = usecases.rotate_webhook_secrets(
        room.ports, [command, RotateWebhookSecret(9, key("s", "RotateWebhookSecret"))]
    )
    assert first == again
    assert reason(unknown) == "WEBHOOK_ENDPOINT_NOT_FOUND"
    assert len(room.store.rows.endpoints[endpoint_id].secrets(room.clock.ms)) == 2


def test_endpoint_is_deleted_with_its_deliveries(room: FakeNotification) -> None:
    """A second time it is not there; nor are its deliveries to be listed."""
    endpoint_id = made(room)
    usecases.tell(room.ports, [happened(1)])
    gone, again = usecases.delete_webhook_endpoints(room.ports, [endpoint_id, endpoint_id])
    assert (gone, reason(again)) == (None, "WEBHOOK_ENDPOINT_NOT_FOUND")
    assert (room.store.rows.endpoints, deliveries(room)) == ({}, [])
    with pytest.raises(DomainError) as raised:
        usecases.list_webhook_deliveries(room.store, endpoint_id, page(1, ""))
    assert raised.value.reason == "WEBHOOK_ENDPOINT_NOT_FOUND"
    [unknown] = usecases.update_webhook_endpoints(room.ports, [UpdateWebhookEndpoint(endpoint_id, enabled=True)])
    assert reason(unknown) == "WEBHOOK_ENDPOINT_NOT_FOUND"


def test_lists_have_the_newest_first(room: FakeNotification) -> None:
    """Endpoints, and the deliveries to one of them, page by page."""
    one, two = made(room, "one"), made(room, "two")
    first, token = usecases.list_webhook_endpoints(room.store, page(1, ""))
    rest, end = usecases.list_webhook_endpoints(room.store, page(1, token))
    assert ([each.id for each in (*first, *rest)], end) == ([two, one], "")
    usecases.tell(room.ports, [happened(1), happened(2)])
    newest, token = usecases.list_webhook_deliveries(room.store, one, page(1, ""))
    older, end = usecases.list_webhook_deliveries(room.store, one, page(1, token))
    assert ([each.event_id for each in (*newest, *older)], end) == (["payment-2", "payment-1"], "")

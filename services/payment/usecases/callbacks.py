"""HandleCallback: what providers tell by themselves. Verified on the exact bytes, taken once, answered in their words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.errors import DomainError
from services.payment.domain.payment import our_number
from services.payment.ports import CallbackTaken
from services.payment.ports.provider import Acknowledgement, Callback, CallbackForged, Notice
from services.payment.usecases.reaching import reach_moved
from services.payment.usecases.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.money import Money
    from services.payment.domain import Method
    from services.payment.ports import Ports


@dataclass(frozen=True, slots=True)
class Told:
    """A notice that verifies."""

    provider: Method
    notice: Notice


def read_callback(ports: Ports, provider: Method, callback: Callback) -> Told:
    """Verify and read a callback; one that is not the provider's is a security event. Refuses with CALLBACK_REFUSED."""
    ports.reach("P15", provider)
    known = ports.outside.providers.get(provider)
    if known is None:
        raise DomainError("CALLBACK_REFUSED", provider=provider)
    try:
        return Told(provider, known.parse(callback, ports.clock.now_ms()))
    except CallbackForged as forged:
        raise _refused(ports, provider, str(forged)) from None


def acknowledge(ports: Ports, provider: Method) -> Acknowledgement:
    """Say in the provider's own words that its callback was taken."""
    return ports.outside.providers[provider].acknowledge(taken=True)


def take_notices(ports: Ports, items: Sequence[Told]) -> list[DomainError | None]:
    """Take in what was told, each notice once; what cannot be so of anything of ours is refused and changes nothing."""
    places = [our_number(item.notice.request_id) for item in items]
    of_refunds = ports.store.payments_of_refunds([number for kind, number in places if kind == "R"])
    ids = [number if kind == "P" else of_refunds.get(number, 0) for kind, number in places]
    ports.cache.hold(set(ids))
    outcomes: list[DomainError | None] = []
    with ports.store.transaction() as tx:
        known = tx.known_callbacks({(item.provider, item.notice.notice_id) for item in items})
        settling = Settling(ports, tx, set(ids))
        for item, payment_id in zip(items, ids, strict=True):
            name = (item.provider, item.notice.notice_id)
            fault = "" if name in known else _fault(settling, item, payment_id)
            outcomes.append(_refused(ports, item.provider, fault) if fault else None)
            if not fault and name not in known:
                known.add(name)
                _take(settling, item, payment_id)
        tx.write(settling.change)
        tx.commit()
    reach_moved(ports, settling.change)
    for item in items:
        ports.reach("P16", item.provider)
    settling.tell()
    return outcomes


def _take(settling: Settling, item: Told, payment_id: int) -> None:
    notice = item.notice
    if notice.charged is not None:
        settling.charged(settling.attempts[payment_id], notice.charged)
    elif notice.refunded is not None:
        settling.refunded(settling.attempts[int(notice.request_id[1:])], notice.refunded)
    settling.change.callbacks.append(CallbackTaken(item.provider, notice.notice_id, notice.request_id))


def _fault(settling: Settling, item: Told, payment_id: int) -> str:
    """Say why a verified notice cannot be about anything of ours; "" when it can."""
    payment, notice = settling.payments.get(payment_id), item.notice
    ours = payment is not None and payment.method is item.provider and payment.charge is not None
    if payment is None or not ours or (notice.refunded is not None) != notice.request_id.startswith("R"):
        return f"nothing of ours is {notice.request_id}"
    if notice.refunded is not None:
        refund = settling.refunds[int(notice.request_id[1:])]
        return _differs(notice.refunded.amount, [refund.amount])
    assert notice.charged is not None
    return _differs(notice.charged.amount, settling.expected(payment, notice.charged.phase))


def _differs(told: Money | None, ours: Sequence[Money]) -> str:
    return "" if told is None or told in ours else f"it tells of {told}, ours is {ours[0]}"


def _refused(ports: Ports, provider: Method, why: str) -> DomainError:
    ports.alarm.security("callback.refused", provider=str(provider), why=why)
    return DomainError("CALLBACK_REFUSED", provider=provider)

"""The second phase of a call to a provider: outside every transaction, in a thread of its own pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.kernel.money import Money
from services.payment.domain import Kind, Point
from services.payment.domain.attempt import SCENES
from services.payment.ports.provider import Charge, Charged, Phase, Refunded, Refunding, Verdict

if TYPE_CHECKING:
    from services.payment.domain import Attempt
    from services.payment.ports import Ports
    from services.payment.ports.provider import Provider

_NEVER_HEARD = frozenset({"absent"})
"""Words with which an adapter says that the provider knows no refund of our number."""


@dataclass(frozen=True, slots=True)
class Said:
    """What came of an attempt: exactly one of ``charged`` and ``refunded`` is set."""

    attempt: Attempt
    charged: Charged | None = None
    refunded: Refunded | None = None


def ask(ports: Ports, attempt: Attempt) -> Said:
    """Ask the provider for what the attempt says, or, when it may have been asked before, what became of it.

    A repeat brings the same request id, and only after a query that found nothing: nothing is done twice.
    """
    provider = ports.outside.providers[attempt.method]
    if attempt.kind is Kind.REFUND:
        ports.reach("P17", attempt.method)
        said = Said(attempt, refunded=_refund(provider, attempt))
    else:
        ports.reach("P7", attempt.method)
        said = Said(attempt, charged=_ASKED[attempt.kind](provider, attempt, ports.clock.now_ms()))
    ports.reach("P9", attempt.method)
    return said


def _is_first(attempt: Attempt) -> bool:
    return attempt.point is Point.READY and not attempt.tries


def _charge(provider: Provider, attempt: Attempt, now_ms: int) -> Charged:
    if not _is_first(attempt):
        found = provider.query(attempt.request_id)
        unpaid = found.phase in {Phase.WAITING, Phase.ABSENT}
        if not unpaid:
            return found
        if attempt.over(now_ms):
            return _end(provider, attempt)
        if attempt.action:  # the payer has what he needs; some providers hear of a charge only from him
            return Charged(Verdict.PENDING, Phase.WAITING, found.provider_id, action=attempt.action)
        if found.phase is Phase.WAITING and found.action:
            return found
    return provider.charge(
        Charge(
            request_id=attempt.request_id,
            amount=attempt.amount,
            description=attempt.request_id,
            scene=SCENES[attempt.method][attempt.scene] if attempt.scene else "",
            expire_ms=attempt.expire_ms,
            payer=attempt.payer,
            capture=attempt.capture,
        )
    )


def _capture(provider: Provider, attempt: Attempt, _now_ms: int) -> Charged:
    if not _is_first(attempt):
        found = provider.query(attempt.request_id)
        if found.phase is not Phase.AUTHORIZED:
            return found
    return provider.capture(attempt.request_id, attempt.provider_id, attempt.amount)


def _void(provider: Provider, attempt: Attempt, _now_ms: int) -> Charged:
    if not _is_first(attempt):
        found = provider.query(attempt.request_id)
        if found.phase is not Phase.AUTHORIZED:
            return found
    return provider.void(attempt.request_id, attempt.provider_id)


def _close(provider: Provider, attempt: Attempt, _now_ms: int) -> Charged:
    return _end(provider, attempt)


def _end(provider: Provider, attempt: Attempt) -> Charged:
    """End what nobody paid. A refusal means most often that the payer was faster: the query says."""
    ended = provider.close(attempt.request_id)
    if ended.verdict is Verdict.REFUSED and ended.phase not in {Phase.CLOSED, Phase.FAILED}:
        return provider.query(attempt.request_id)
    return ended


_ASKED = {Kind.CHARGE: _charge, Kind.CAPTURE: _capture, Kind.VOID: _void, Kind.CLOSE: _close}


def _refund(provider: Provider, attempt: Attempt) -> Refunded:
    refunding = Refunding(
        request_id=attempt.request_id,
        charge_request_id=attempt.payer["charge_request_id"],
        provider_id=attempt.provider_id,
        amount=attempt.amount,
        charged=Money(attempt.amount.currency_code, int(attempt.payer["charged"])),
        reason=attempt.payer["reason"],
    )
    if not _is_first(attempt):
        found = provider.query_refund(refunding)
        if not (found.verdict is Verdict.UNKNOWN and found.code in _NEVER_HEARD):
            return found
    return provider.refund(refunding)

"""What a provider's word means for us: the verdict that each phase of a charge stands for, and the words for unknown.

A verdict is about the money, whatever was asked: done where it was taken or set aside, refused where the charge ended
without, pending where the payer may still act, **unknown where nobody can tell yet**. So a reader of the verdict alone
never takes a query that was answered for a charge that was paid.

ABSENT is unknown, not refused: the request may still be under way, and Alipay makes a trade only when the payer scans.
A close that meets ABSENT is done: there is nothing to end.

``code`` in upper case is the provider's; in lower case it is ours, and says why the outcome is unknown or nothing was
sent.
"""

from __future__ import annotations

from services.payment.ports.provider import Charged, Phase, Refunded, Verdict

UNVERIFIED = "unverified"
"""An answer without a signature that verifies, or that does not answer what was asked."""

ABSENT_REFUND = "absent"
"""The provider says that it knows no refund of our id."""

UNSUPPORTED = "unsupported"
"""The provider has no such operation, scene or currency; nothing was sent."""

VERDICTS = {
    Phase.WAITING: Verdict.PENDING,
    Phase.AUTHORIZED: Verdict.DONE,
    Phase.CAPTURED: Verdict.DONE,
    Phase.REFUNDED: Verdict.DONE,
    Phase.CLOSED: Verdict.REFUSED,
    Phase.FAILED: Verdict.REFUSED,
    Phase.ABSENT: Verdict.UNKNOWN,
}


def unknown(word: str) -> Charged:
    """Nobody can tell what became of it."""
    return Charged(Verdict.UNKNOWN, code=word)


def unknown_refund(word: str) -> Refunded:
    """Nobody can tell what became of it."""
    return Refunded(Verdict.UNKNOWN, code=word)


def unsupported() -> Charged:
    """Nothing was sent: the provider has no such thing."""
    return Charged(Verdict.REFUSED, code=UNSUPPORTED)

"""What the payment room needs of a provider of payments: Alipay, WeChat Pay, a card network.

An outcome is one of four: done, refused, pending (the payer has to act) or **unknown**. Unknown is not refused: it is
never retried blindly and never shown as failed, but resolved by a query. No method raises for what the network or the
provider does; an answer that cannot be verified is unknown too.

Every request carries an id of ours, made and stored before it is sent; a repeat with the same id is the same request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from services.kernel.money import Money


class Verdict(StrEnum):
    """How an exchange with a provider ended."""

    DONE = "done"
    REFUSED = "refused"
    PENDING = "pending"
    UNKNOWN = "unknown"


class Phase(StrEnum):
    """Where the provider says that a charge stands."""

    WAITING = "waiting"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    CLOSED = "closed"
    FAILED = "failed"
    REFUNDED = "refunded"
    ABSENT = "absent"
    """The provider knows no charge of our id."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A charge to be made. ``request_id`` is our number for it (out_trade_no), at most 32 characters of A-Z a-z 0-9.

    ``scene`` is how the payer meets the provider: alipay qr, page, wap, app; wechat native, jsapi, app, h5; card.
    ``payer`` is what the scene needs to know of him: openid for jsapi, client_ip for h5, card_token for a card.
    ``capture``: take the money at once (always so with wallets); False: authorize alone.
    """

    request_id: str
    amount: Money
    description: str
    scene: str
    expire_ms: int
    payer: Mapping[str, str] = field(default_factory=dict)
    capture: bool = True


@dataclass(frozen=True, slots=True)
class Charged:
    """The outcome of a charge, a query, a capture, a void or a close.

    ``code`` is the provider's own word for a refusal; ``action`` is what the payer needs to go on: qr_code, redirect_url,
    form, app_parameters or challenge_url. ``amount`` is what the provider says was paid, where it says so.
    """

    verdict: Verdict
    phase: Phase | None = None
    provider_id: str = ""
    code: str = ""
    amount: Money | None = None
    action: Mapping[str, str] = field(default_factory=dict)
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Refunding:
    """A refund to be made. ``request_id`` is our number for it; the same one repeats the same refund."""

    request_id: str
    charge_request_id: str
    provider_id: str
    amount: Money
    charged: Money
    reason: str


@dataclass(frozen=True, slots=True)
class Refunded:
    """The outcome of a refund or of its query: done, refused, pending (the provider works on it) or unknown."""

    verdict: Verdict
    provider_id: str = ""
    code: str = ""
    amount: Money | None = None
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Callback:
    """An HTTP request from a provider, as it came: the exact bytes are what is verified. Header names are lower case."""

    headers: Mapping[str, str]
    body: bytes
    query: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a verified callback says. ``notice_id`` is the provider's id of the notification, for telling repeats.

    Exactly one of ``charged`` and ``refunded`` is set; ``request_id`` is ours, of the charge or of the refund.
    """

    notice_id: str
    request_id: str
    charged: Charged | None = None
    refunded: Refunded | None = None


class CallbackForged(Exception):
    """A callback that does not verify: bad signature, wrong app or seller, old timestamp, probe. Says why, for the log."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The exact answer to a callback in the provider's own words."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class BillLine:
    """A line of a provider's bill. ``kind`` is charge or refund; ``request_id`` ours; ``fee`` minor units that it kept."""

    kind: str
    request_id: str
    charge_request_id: str
    provider_id: str
    amount: Money
    fee: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Bill:
    """A provider's bill of one day: the file as it came and its lines."""

    content: bytes
    lines: tuple[BillLine, ...]


class Provider(Protocol):
    """A provider of payments. Calls block; they have time-outs of their own and are made outside every transaction."""

    def charge(self, charge: Charge) -> Charged:
        """Ask for money: done (captured or authorized), pending (the payer acts), refused, unknown."""
        ...

    def query(self, request_id: str) -> Charged:
        """Ask what became of a charge; ABSENT when the provider never heard of it."""
        ...

    def capture(self, request_id: str, provider_id: str, amount: Money) -> Charged:
        """Take what was authorized, or a part of it, once. Cards alone; others refuse."""
        ...

    def void(self, request_id: str, provider_id: str) -> Charged:
        """Let go of what was authorized. Cards alone; others refuse."""
        ...

    def close(self, request_id: str) -> Charged:
        """End a charge that nobody paid, so that nobody can pay it later."""
        ...

    def refund(self, refunding: Refunding) -> Refunded:
        """Give money back."""
        ...

    def query_refund(self, refunding: Refunding) -> Refunded:
        """Ask what became of a refund."""
        ...

    def parse(self, callback: Callback, now_ms: int) -> Notice:
        """Verify a callback on its exact bytes, then read it. Raises CallbackForged."""
        ...

    def acknowledge(self, *, taken: bool) -> Acknowledgement:
        """Answer a callback: taken, or to be sent again."""
        ...

    def fetch_bill(self, day: str) -> Bill | None:
        """Fetch the bill of a day (YYYY-MM-DD); None: the provider has none yet or does not answer."""
        ...

    def stop(self) -> None:
        """Close the connections."""
        ...

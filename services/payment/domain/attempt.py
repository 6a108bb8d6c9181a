"""Attempts: what a provider is asked for. Each is stored before it is sent, and kept until its outcome is settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from services.kernel.errors import DomainError
from services.kernel.idempotency import Scope
from services.kernel.money import Money
from services.payment.domain.card import Card
from services.payment.domain.payment import Method

LEASE_MS = 15_000
"""How long whoever asks a provider has for it, longer than any exchange lasts; then the completer takes the attempt up."""
POLL_MS, POLL_MS_MAX = 2_000, 300_000
"""First and longest wait between two looks at an outcome that is not known; each is twice the one before."""
CLOSE_GRACE_MS = 5_000
"""From a charge's expiry until it is closed: the payer's last second is the provider's to judge."""


class Kind(StrEnum):
    """What is asked for; SQL stores these words."""

    CHARGE = "charge"
    CAPTURE = "capture"
    VOID = "void"
    CLOSE = "close"
    REFUND = "refund"


class Point(StrEnum):
    """Recovery points: how far an attempt has come; SQL stores these words."""

    READY = "ready"
    """Stored; it may have been sent."""
    UNKNOWN = "unknown"
    """Sent, and the answer was lost, or said nothing."""
    WAITING = "waiting"
    """The provider knows it, and waits for the payer, or works on it."""
    HELD = "held"
    """The card's issuer holds the amount until it is captured or let go of."""
    SETTLED = "settled"
    """Its outcome is in the books; nothing is left to do."""


class Scene(StrEnum):
    """Where the payer meets the provider."""

    QR = "qr"
    PAGE = "page"
    WAP = "wap"
    APP = "app"
    JSAPI = "jsapi"
    CARD = "card"


SCENES: Mapping[Method, Mapping[Scene, str]] = {
    Method.ALIPAY: {Scene.QR: "qr", Scene.PAGE: "page", Scene.WAP: "wap", Scene.APP: "app"},
    Method.WECHAT: {Scene.QR: "native", Scene.WAP: "h5", Scene.APP: "app", Scene.JSAPI: "jsapi"},
    Method.BANK_CARD: {Scene.CARD: "card"},
}
"""Method -> its scenes and the provider's word for each; the first is what a payment that names none gets."""


@dataclass(slots=True)
class Attempt:
    """One thing asked of a provider, as a batch sees and changes it.

    ``request_id`` is our number at the provider: the payment's for everything about its charge, the refund's for a
    refund. ``scope`` is the idempotency key of who waits for the answer; None: nobody does. ``next_ms`` is when the
    completer takes it up, unless someone was faster; ``owner`` the instance that asks now. ``paid_ms`` is when the provider
    says that the money moved, else when it was booked: of what moved none, None.
    """

    id: int
    payment_id: int
    refund_id: int
    kind: Kind
    method: Method
    request_id: str
    amount: Money
    create_ms: int
    update_ms: int
    next_ms: int
    owner: int
    scope: Scope | None = None
    scene: Scene | None = None
    payer: Mapping[str, str] = field(default_factory=dict)
    card: Card | None = None
    capture: bool = True
    expire_ms: int = 0
    point: Point = Point.READY
    tries: int = 0
    provider_id: str = ""
    provider_code: str = ""
    action: Mapping[str, str] = field(default_factory=dict)
    paid_ms: int | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return self.point is Point.SETTLED

    def moved(self, at_ms: int) -> Self:
        """Say when the money moved, unless it is known; 0: whoever knows that it did does not know when."""
        self.paid_ms = self.paid_ms or at_ms or None
        return self

    def settle(self, now_ms: int) -> None:
        """Put it down as done."""
        self.point, self.update_ms = Point.SETTLED, now_ms

    def wait(self, point: Point, now_ms: int, jitter: float) -> None:
        """Look again later: after growing intervals, times ``jitter``, and not long after the payer's time is over."""
        self.point, self.update_ms, self.tries = point, now_ms, self.tries + 1
        pause = min(POLL_MS * 2 ** min(self.tries - 1, 20), POLL_MS_MAX) * jitter
        due = now_ms + int(pause)
        ends = self.expire_ms + CLOSE_GRACE_MS
        self.next_ms = min(due, ends) if self.kind is Kind.CHARGE and now_ms < ends else due

    def hold(self, until_ms: int, now_ms: int) -> None:
        """Leave it be until the authorization must be let go of: ``until_ms``, or as it was said the first time."""
        if self.point is not Point.HELD:
            self.expire_ms = until_ms
        self.point, self.update_ms, self.next_ms = Point.HELD, now_ms, max(self.expire_ms, now_ms + POLL_MS)

    def over(self, now_ms: int) -> bool:
        """Whether the payer's time is over."""
        return now_ms >= self.expire_ms + CLOSE_GRACE_MS


def scene_of(method: Method, scene: Scene | None, payer: Mapping[str, str]) -> Scene:
    """Return the scene that a payment by ``method`` has. Refuses with SCENE_UNSUPPORTED."""
    known = SCENES[method]
    found = scene or next(iter(known))
    needs = {Scene.JSAPI: "openid"}.get(found)
    if found not in known or (needs and not payer.get(needs)):
        raise DomainError("SCENE_UNSUPPORTED", method=method, scene=found)
    return found

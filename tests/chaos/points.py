"""Which kill points there are, at which operation of which method each can be met, and which of them a change must pass."""

from __future__ import annotations

from dataclasses import dataclass

from tests.e2e.clients import METHODS as RPCS

OPERATIONS = PAY, AUTHORIZE, CAPTURE, REFUND = ("pay", "authorize", "capture", "refund")
METHODS = ("balance", "alipay", "wechat", "bank_card")

POINTS = {
    "P1": "call accepted",
    "P2": "idempotency row in",
    "P3": "payment and payment.initiated committed",
    "P4": "risk asked",
    "P5": "risk answered",
    "P6": "attempt with our provider id committed",
    "P7": "request sent",
    "P8": "provider charged, reply lost",
    "P9": "reply read, not stored",
    "P10": "success, ledger and outbox committed",
    "P11": "reply to the client lost",
    "P12": "published, outbox not marked",
    "P13": "consumer's effect committed, offset not",
    "P14": "notification sent, not noted",
    "P15": "callback received",
    "P16": "callback committed, ack lost",
    "P17": "refund sent",
    "P18": "refund stored",
    "P19": "config reload",
    "P20": "migration step",
}

_P, _R, _PR, _PC, _PCR = (PAY,), (REFUND,), (PAY, REFUND), (PAY, CAPTURE), (PAY, CAPTURE, REFUND)
_PAC, _ALL = (PAY, AUTHORIZE, CAPTURE), OPERATIONS

_GRID: dict[str, tuple[tuple[str, ...], ...]] = {
    #       balance alipay wechat bank_card
    "P1": (_PR, _PR, _PR, _PCR),
    "P2": (_PR, _PR, _PR, _PCR),
    "P3": (_P, _P, _P, _P),
    "P4": (_P, _P, _P, _P),
    "P5": (_P, _P, _P, _P),
    "P6": ((), _PR, _PR, _ALL),  # a balance has no attempt: nobody outside is asked
    "P7": ((), _P, _P, _PAC),
    "P8": ((), _PR, _PR, _ALL),
    "P9": ((), _PR, _PR, _ALL),
    "P10": (_P, _P, _P, _PC),
    "P11": (_PR, _PR, _PR, _PCR),
    "P12": (_PR, _PR, _PR, _PCR),
    "P13": (_PR, _PR, _PR, _PCR),
    "P14": (_PR, _PR, _PR, _PCR),
    "P15": ((), _PR, _PR, _ALL),
    "P16": ((), _PR, _PR, _ALL),
    "P17": ((), _R, _R, _R),
    "P18": (_R, _R, _R, _R),
    "P19": (_P, _P, _P, _P),
}
"""Point -> for each method the operations at which it is met. P20 belongs to databases, not to methods: see migrations.py.

A payment that is only authorized differs from another where its provider comes in."""

APPLICABLE: dict[tuple[str, str], tuple[str, ...]] = {
    (point, method): operations
    for point, row in _GRID.items()
    for method, operations in zip(METHODS, row, strict=True)
    if operations
}

_CALLED = {
    PAY: ("CreatePayment", "CreateOrder", "BatchAssessPayments"),
    CAPTURE: ("CapturePayment",),
    REFUND: ("RefundPayment",),
}
_PUBLISHERS = ("payment", "order")
_CONSUMERS = {
    PAY: ("order", "notification", "risk", "payment"),  # payment's own: order.created
    CAPTURE: ("order", "notification"),
    REFUND: ("order", "notification"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A kill: at a point, during an operation of a method. ``label`` is the place among those that the point has."""

    point: str
    method: str
    operation: str
    label: str

    @property
    def armed(self) -> str:
        """Name of the file that arms it."""
        return f"{self.point}.{self.label}"

    @property
    def service(self) -> str:
        """Whose process dies."""
        if self.point in {"P1", "P11"}:
            return RPCS[self.label].service
        return {"P12": self.label, "P13": self.label, "P14": "notification", "P19": "config"}.get(self.point, "payment")

    def is_met_by(self, room: str, what: str) -> bool:
        """Whether what is on its way in an audited room, or pair of rooms (publisher+consumer), could meet the point."""
        if self.point == "P12":
            return room == self.label and what == "events published"
        return self.is_of_consumer and room.endswith(f"+{self.service}")

    @property
    def is_of_event(self) -> bool:
        """Whether it is met while events are on their way, perhaps those of something earlier."""
        return self.point == "P12" or self.is_of_consumer

    @property
    def is_of_consumer(self) -> bool:
        """Whether it is met while events are handled: when their consumer has died lately, this waits for 30 s."""
        return self.point in {"P13", "P14"}

    def __str__(self) -> str:
        """Name it in reports."""
        return f"{self.armed} {self.method} {self.operation}"


def labels(point: str, method: str, operation: str) -> tuple[str, ...]:
    """Return the places that a point has for an operation; the payment service labels its own by the method."""
    match point:
        case "P1" | "P11":
            return _CALLED[operation]
        case "P12":
            return _PUBLISHERS
        case "P13":
            return _CONSUMERS[operation]
        case "P14":
            return ("email",)
        case "P19":
            return ("entries", "world")
    return (method,)


CASES = tuple(
    Case(point, method, operation, label)
    for (point, method), operations in APPLICABLE.items()
    for operation in operations
    for label in labels(point, method, operation)
)
"""Everything that is driven."""

CASES_SAMPLE = (
    Case("P1", "balance", PAY, "CreatePayment"),
    Case("P11", "balance", REFUND, "RefundPayment"),
    Case("P12", "balance", PAY, "payment"),
    Case("P14", "balance", PAY, "email"),
    Case("P13", "balance", PAY, "order"),
    Case("P19", "balance", PAY, "world"),
    Case("P7", "alipay", PAY, "alipay"),
    Case("P10", "alipay", PAY, "alipay"),
    Case("P16", "alipay", REFUND, "alipay"),
    Case("P9", "wechat", PAY, "wechat"),
    Case("P15", "wechat", PAY, "wechat"),
    Case("P17", "wechat", REFUND, "wechat"),
    Case("P18", "wechat", REFUND, "wechat"),
    Case("P6", "bank_card", CAPTURE, "bank_card"),
    Case("P8", "bank_card", AUTHORIZE, "bank_card"),
)
"""What a change must pass: a kill in each service that money or its effects go through, and on each side of a provider."""

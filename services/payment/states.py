"""States and their allowed changes. Generated from protos/paymesh/payment/v1 by `tox -e gen`; do not edit."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# paymesh.payment.v1.Payment.Status
PENDING: Final = "pending"
AUTHORIZED: Final = "authorized"
PROCESSING: Final = "processing"
UNKNOWN: Final = "unknown"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CLOSED: Final = "closed"
PARTIALLY_REFUNDED: Final = "partially_refunded"
REFUNDED: Final = "refunded"
REVIEW: Final = "review"

ALL: Final[tuple[str, ...]] = (
    PENDING,
    AUTHORIZED,
    PROCESSING,
    UNKNOWN,
    SUCCESS,
    FAILED,
    CLOSED,
    PARTIALLY_REFUNDED,
    REFUNDED,
    REVIEW,
)
"""Every state, in the order of the contract."""

INITIAL: Final[tuple[str, ...]] = (PENDING,)
"""The states in which an entity is made."""

NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        PENDING: frozenset({PROCESSING, SUCCESS, FAILED, REVIEW}),
        AUTHORIZED: frozenset({PROCESSING, SUCCESS, FAILED, CLOSED, REVIEW}),
        PROCESSING: frozenset({AUTHORIZED, SUCCESS, FAILED, UNKNOWN, CLOSED, REVIEW}),
        UNKNOWN: frozenset({AUTHORIZED, PROCESSING, SUCCESS, FAILED, CLOSED, REVIEW}),
        SUCCESS: frozenset({PARTIALLY_REFUNDED, REFUNDED, REVIEW}),
        FAILED: frozenset({REVIEW}),
        CLOSED: frozenset({REVIEW}),
        PARTIALLY_REFUNDED: frozenset({PARTIALLY_REFUNDED, REFUNDED, REVIEW}),
        REFUNDED: frozenset({REVIEW}),
        REVIEW: frozenset({SUCCESS, FAILED, CLOSED, PARTIALLY_REFUNDED, REFUNDED}),
    }
)
"""State -> the states that may follow it; none: at rest for ever."""

EVENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        PENDING: "payment.initiated",
        SUCCESS: "payment.success",
        FAILED: "payment.failed",
        CLOSED: "payment.failed",
        PARTIALLY_REFUNDED: "payment.refunded",
        REFUNDED: "payment.refunded",
    }
)
"""State -> the topic of the event that entering it publishes."""

CHECK: Final = f"({', '.join(map(repr, ALL))})"
"""The list behind IN of the SQL CHECK."""

# paymesh.payment.v1.Refund.Status
REFUND_PENDING: Final = "pending"
REFUND_SUCCESS: Final = "success"
REFUND_FAILED: Final = "failed"
REFUND_UNKNOWN: Final = "unknown"
REFUND_REVIEW: Final = "review"

REFUND_ALL: Final[tuple[str, ...]] = (
    REFUND_PENDING,
    REFUND_SUCCESS,
    REFUND_FAILED,
    REFUND_UNKNOWN,
    REFUND_REVIEW,
)
"""Every state, in the order of the contract."""

REFUND_INITIAL: Final[tuple[str, ...]] = (REFUND_PENDING,)
"""The states in which an entity is made."""

REFUND_NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        REFUND_PENDING: frozenset({REFUND_SUCCESS, REFUND_FAILED, REFUND_UNKNOWN, REFUND_REVIEW}),
        REFUND_SUCCESS: frozenset({REFUND_REVIEW}),
        REFUND_FAILED: frozenset({REFUND_REVIEW}),
        REFUND_UNKNOWN: frozenset({REFUND_PENDING, REFUND_SUCCESS, REFUND_FAILED, REFUND_REVIEW}),
        REFUND_REVIEW: frozenset({REFUND_SUCCESS, REFUND_FAILED}),
    }
)
"""State -> the states that may follow it; none: at rest for ever."""

REFUND_EVENTS: Final[Mapping[str, str]] = MappingProxyType({})
"""State -> the topic of the event that entering it publishes."""

REFUND_CHECK: Final = f"({', '.join(map(repr, REFUND_ALL))})"
"""The list behind IN of the SQL CHECK."""

# paymesh.payment.v1.Review.Status
REVIEW_OPEN: Final = "open"
REVIEW_PROPOSED: Final = "proposed"
REVIEW_DECIDED: Final = "decided"

REVIEW_ALL: Final[tuple[str, ...]] = (
    REVIEW_OPEN,
    REVIEW_PROPOSED,
    REVIEW_DECIDED,
)
"""Every state, in the order of the contract."""

REVIEW_INITIAL: Final[tuple[str, ...]] = (REVIEW_OPEN,)
"""The states in which an entity is made."""

REVIEW_NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        REVIEW_OPEN: frozenset({REVIEW_PROPOSED}),
        REVIEW_PROPOSED: frozenset({REVIEW_OPEN, REVIEW_DECIDED}),
        REVIEW_DECIDED: frozenset(),
    }
)
"""State -> the states that may follow it; none: at rest for ever."""

REVIEW_EVENTS: Final[Mapping[str, str]] = MappingProxyType({})
"""State -> the topic of the event that entering it publishes."""

REVIEW_CHECK: Final = f"({', '.join(map(repr, REVIEW_ALL))})"
"""The list behind IN of the SQL CHECK."""

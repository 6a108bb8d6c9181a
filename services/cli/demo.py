"""`paymesh demo`."""

from __future__ import annotations


def demo() -> None:
    """Buy, pay and refund."""

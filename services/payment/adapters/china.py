"""Amounts and times as the Chinese providers write them: yuan with two decimals, China time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal

from services.kernel.money import MINOR_UNITS_MAX, Money

CNY = "CNY"

CHINA = timezone(timedelta(hours=8))
"""China has one time zone and no summer time (since 1991)."""

_YUAN = re.compile(r"(0|[1-9][0-9]{0,13})(?:\.([0-9]{1,2}))?", re.ASCII)
_BILL_YUAN = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,13})(?:\.[0-9]{1,8})?", re.ASCII)
_TIME = "%Y-%m-%d %H:%M:%S"
_SECONDS = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)
_EPOCH, _MS = datetime.fromtimestamp(0, UTC), timedelta(milliseconds=1)


def yuan(amount: Money) -> str:
    """Write fen as yuan: 1 is ``0.01``. The amount is CNY."""
    major, minor = divmod(amount.minor_units, 100)
    return f"{major}.{minor:02d}"


def fen(text: str) -> Money:
    """Read yuan: at most two decimals, no sign, no exponent, no spaces, no leading zeros. Raises ValueError."""
    found = _YUAN.fullmatch(text)
    if not found:
        raise ValueError("not an amount in yuan")
    major, minor = found.groups()
    return cny(int(major) * 100 + int((minor or "0").ljust(2, "0")))


def cny(minor_units: int) -> Money:
    """Make an amount of fen. Raises ValueError where it cannot be one."""
    if not 0 <= minor_units <= MINOR_UNITS_MAX:
        raise ValueError("not an amount")
    return Money(CNY, minor_units)


def bill_fen(text: str) -> int:
    """Read a bill's column: yuan with a sign and up to eight decimals (fees have five), rounded to fen. Raises ValueError."""
    if not _BILL_YUAN.fullmatch(text):
        raise ValueError("not an amount in yuan")
    return int((Decimal(text) * 100).quantize(Decimal(1), ROUND_HALF_UP))


def china_time(ms: int) -> str:
    """Write a time as Alipay does: ``2026-11-23 14:33:26``, China time."""
    return _at(ms).strftime(_TIME)


def china_rfc3339(ms: int) -> str:
    """Write a time as WeChat Pay does: ``2026-11-23T14:33:26+08:00``."""
    return _at(ms).isoformat(timespec="seconds")


def china_ms(text: str) -> int:
    """Read what `china_time` writes, milliseconds since 1970 UTC; an empty text is 0. Raises ValueError."""
    if not text:
        return 0
    if not _SECONDS.fullmatch(text):  # strptime would know, too, and take ten times as long: a bill has many times
        raise ValueError("not a time")
    return (datetime.fromisoformat(text).replace(tzinfo=CHINA) - _EPOCH) // _MS


def rfc3339_ms(text: str) -> int:
    """Read RFC 3339, milliseconds since 1970 UTC; an empty text is 0. Raises ValueError, also without a zone."""
    if not text:
        return 0
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return (at - _EPOCH) // _MS


def plain(text: str, without: str, length_max: int) -> str:
    """Return ``text`` for people in one line, with spaces for what a protocol gives a meaning to (``without``)."""
    kept = "".join(" " if each in without or not each.isprintable() else each for each in text)
    return " ".join(kept.split())[:length_max].strip()


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, CHINA)

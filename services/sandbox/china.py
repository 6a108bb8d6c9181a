"""Amounts and times as both Chinese wallets write them: yuan with two decimals, wall clock of UTC+8."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

CHINA = timezone(timedelta(hours=8))


def fen_of(text: str) -> int:
    """Read yuan with up to two decimals as fen."""
    yuan, _, fen = text.partition(".")
    return int(yuan) * 100 + int(fen.ljust(2, "0"))


def yuan(fen: int) -> str:
    """Write fen as yuan with two decimals."""
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02}"


def china_time(ms: int) -> str:
    """Write a time as the gateway does."""
    return datetime.fromtimestamp(ms / 1000, CHINA).strftime("%Y-%m-%d %H:%M:%S")


def china_ms(text: str) -> int | None:
    """Read a time of the gateway; None: it is none."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", text):
        return None
    try:
        found = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA)
    except ValueError:
        return None
    return int(found.timestamp()) * 1000

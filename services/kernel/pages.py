"""Pages of a list: a size, and an opaque token that says where the page before ended."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.kernel.errors import DomainError

T = TypeVar("T")

DEFAULT_SIZE = 20


@dataclass(frozen=True, slots=True)
class Page:
    """Which page is wanted: ``size`` items after the one whose sort key is ``after`` ("" on the first page)."""

    size: int
    after: str

    @property
    def limit(self) -> int:
        """How many rows to read: one more than the page holds, to know whether another follows."""
        return self.size + 1

    def after_id(self) -> int | None:
        """Return ``after`` as an id; None on the first page. Raises PAGE_TOKEN_INVALID."""
        if not self.after:
            return None
        if not self.after.isdecimal() or len(self.after) > 19 or (found := int(self.after)) >= 2**63:
            raise DomainError("PAGE_TOKEN_INVALID")
        return found

    def cut(self, rows: Sequence[T], key: Callable[[T], object]) -> tuple[Sequence[T], str]:
        """Split ``limit`` rows into the page and the token of the next one ("" when there is none)."""
        if len(rows) <= self.size:
            return rows, ""
        kept = rows[: self.size]
        return kept, base64.urlsafe_b64encode(str(key(kept[-1])).encode()).decode().rstrip("=")


def page(size: int, token: str) -> Page:
    """Read a request's page_size (0: 20) and page_token. Raises PAGE_TOKEN_INVALID."""
    try:
        after = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise DomainError("PAGE_TOKEN_INVALID") from None
    return Page(size or DEFAULT_SIZE, after)

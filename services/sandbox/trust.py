"""Whose certificates of merchants are believed: a file of CAs that may change while the providers stand."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any


class FollowedTrust(ssl.SSLContext):
    """A client's context that reads its CAs again, before a connection, when their file was replaced."""

    _path: Path
    _seen: tuple[int, int] | None

    @classmethod
    def of(cls, ca_file: str) -> FollowedTrust:
        """Believe who is in ``ca_file``."""
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made._path, made._seen = Path(ca_file), None
        made._follow()
        return made

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:  # noqa: ANN401 - handed on as they are
        """Begin a connection."""
        self._follow()
        return super().wrap_bio(*args, **named)

    def _follow(self) -> None:
        """Add what is new; what was believed before stays so until the providers stand anew."""
        stat = self._path.stat()
        if self._seen != (stat.st_mtime_ns, stat.st_ino):
            self.load_verify_locations(cafile=str(self._path))
            self._seen = (stat.st_mtime_ns, stat.st_ino)

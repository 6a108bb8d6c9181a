"""Join tokens: which stream may be served as which node."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import orjson

from services.mesh.node import from_metadata
from services.platform import telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from services.mesh.node import Node

_NOBODY = "0" * 64
"""Compared with the token of an unknown node, so that it takes as long as a known one's."""


class JoinTokens:
    """Lets in a node that brings its own token. The file is ``{node id: SHA-256 of its token, in hex}``.

    The file is read again when it changes, so the supervisor adds a node without a restart.
    """

    def __init__(self, path: Path) -> None:
        """Read ``path`` when it is first needed."""
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._digests: dict[str, str] = {}

    def admit(self, node_id: str, cluster: str, layout: Mapping[str, object], token: str) -> Node | str:
        """Return the node; or why the stream is not its."""
        self._refresh()
        digest = hashlib.sha256(token.encode()).hexdigest()
        if not hmac.compare_digest(self._digests.get(node_id, _NOBODY), digest):
            return f"the join token is not that of node {node_id!r}"
        try:
            return from_metadata(node_id, cluster, layout)
        except ValueError as error:
            return str(error)

    def ids(self) -> Iterable[str]:
        """Return the ids of the nodes that may join."""
        self._refresh()
        return self._digests.keys()

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                digests = orjson.loads(self._path.read_bytes())
                self._digests = {str(node): str(digest) for node, digest in digests.items()}
                self._seen = seen
        except (OSError, ValueError, AttributeError) as error:
            # What was read last holds: a file that is being replaced must not shut the mesh out.
            telemetry.log.error("join_tokens.unreadable", path=str(self._path), error=str(error))

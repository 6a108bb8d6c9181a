"""The CA of the mesh on disk, and its change to a new one: each step is one rename, so that a kill leaves a defined phase.

ca.pem holds every CA that is trusted, ca.key the key of the one that signs, next.key that of the one to come.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from services.config.domain import Phase
from services.platform import pki

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEXT_KEY_FILE = "next.key"


class AuthorityFiles:
    """The port Authorities, in a folder that only we may enter."""

    def __init__(self, directory: Path, use: Callable[[pki.Trust], None] = lambda _: None) -> None:
        """Read what `pki.save` made; each step is told to ``use``."""
        self._directory, self._use = directory, use
        self._trust = pki.load_trust(directory)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256 of each CA that is trusted; the one that signs first."""
        return self._trust.fingerprints

    @property
    def phase(self) -> Phase:
        """How far a change is: what the files say, and nothing else."""
        if len(self._trust.authorities) == 1:
            return Phase.STABLE
        return Phase.TRUSTING_BOTH if (self._directory / NEXT_KEY_FILE).exists() else Phase.ISSUING_NEW

    def advance(self) -> None:
        """Take the next step."""
        bundle, present = self._directory / pki.CERTIFICATE_FILE, self._trust
        match self.phase:
            case Phase.STABLE:
                fresh = pki.make_authority()
                # A key without its certificate in ca.pem, from a step that was killed here, is overwritten.
                _write(self._directory / NEXT_KEY_FILE, pki.key_pem(fresh))
                _write(bundle, present.pem + fresh.cert_pem)
            case Phase.TRUSTING_BOTH:
                (self._directory / NEXT_KEY_FILE).replace(self._directory / pki.KEY_FILE)
                _sync(self._directory)
            case Phase.ISSUING_NEW:
                _write(bundle, present.issuer.cert_pem)
        self._trust = pki.load_trust(self._directory)
        self._use(self._trust)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

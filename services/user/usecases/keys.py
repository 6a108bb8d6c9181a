"""The keys that sign access tokens: made once, at the first start, and listed by GetJwks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.user.domain import PublicKey
    from services.user.ports import Ports


def open_keys(ports: Ports) -> None:
    """Load the signing keys. When there is none, make the first; of two instances that do so at once, one's key stays."""
    keys = ports.store.signing_keys()
    if not keys:
        ports.store.keep_signing_key(ports.signer.make(1, ports.clock.now_ms()))
        keys = ports.store.signing_keys()
    ports.signer.load(keys)


def get_jwks(ports: Ports) -> Sequence[PublicKey]:
    """Return the public keys, the one in use first."""
    return ports.signer.public_keys()

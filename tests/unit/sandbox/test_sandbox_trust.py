"""Whose merchants' certificates the sandbox believes."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from services.platform import pki
from services.sandbox.trust import FollowedTrust

if TYPE_CHECKING:
    from pathlib import Path


def test_ca_that_is_added_to_the_file_is_believed_with_the_next_connection(tmp_path: Path) -> None:
    """The mesh may get a new CA while the providers stand, and its edge is called back all the same."""
    file = tmp_path / "ca.pem"
    file.write_text(pki.make_authority().cert_pem)
    trust = FollowedTrust.of(str(file))
    assert trust.verify_mode is ssl.CERT_REQUIRED
    assert trust.check_hostname
    assert len(trust.get_ca_certs()) == 1
    fresh = tmp_path / "fresh"
    fresh.write_text(file.read_text() + pki.make_authority().cert_pem)
    fresh.replace(file)
    trust.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    assert len(trust.get_ca_certs()) == 2

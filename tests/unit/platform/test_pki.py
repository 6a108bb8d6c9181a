"""The CA: who its leaves say they are, how long, and that its key is kept."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from services.platform import pki

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _leaf(pair: pki.KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.cert_pem.encode())


def test_leaf_names_its_service() -> None:
    """By SPIFFE id and DNS name, and what more was asked for."""
    leaf = _leaf(pki.make_authority().issue("edge", names=("localhost", "127.0.0.1")))
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://paymesh/ns/default/sa/edge"]
    assert san.get_values_for_type(x509.DNSName) == ["edge.paymesh.internal", "localhost"]
    assert [str(ip) for ip in san.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_leaf_is_verified_by_its_ca_alone() -> None:
    """And only while it lives."""
    ours, theirs = pki.make_authority(NOW), pki.make_authority(NOW)
    leaf = _leaf(ours.issue("user", now=NOW))
    name = x509.DNSName("user.paymesh.internal")

    def verify(authority: pki.Authority, at: datetime) -> None:
        store = Store([authority.certificate])
        PolicyBuilder().store(store).time(at).build_server_verifier(name).verify(leaf, [])

    verify(ours, NOW + timedelta(hours=23))
    for authority, at in ((theirs, NOW), (ours, NOW + timedelta(hours=25)), (ours, NOW - timedelta(hours=1))):
        with pytest.raises(VerificationError):
            verify(authority, at)


def test_leaf_is_due_at_half_of_its_day() -> None:
    """Renewal has half a day to succeed."""
    pair = pki.make_authority(NOW).issue("user", now=NOW)
    assert pki.half_life(pair) == NOW + timedelta(hours=12)


def test_server_outside_the_mesh_has_no_mesh_identity() -> None:
    """A sandbox's certificate opens no sidecar."""
    leaf = _leaf(pki.make_authority().issue_server("alipay", names=("localhost",)))
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert not san.get_values_for_type(x509.UniformResourceIdentifier)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH not in usage


def test_ca_is_the_same_when_read_back_and_never_replaced(tmp_path: Path) -> None:
    """Its key is for the owner alone."""
    made = pki.make_authority()
    pki.save(made, tmp_path / "pki")
    assert pki.load(tmp_path / "pki").cert_pem == made.cert_pem
    assert stat.S_IMODE((tmp_path / "pki" / pki.KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    with pytest.raises(FileExistsError):
        pki.save(pki.make_authority(), tmp_path / "pki")


def test_ca_is_refused_when_the_key_is_another_s(tmp_path: Path) -> None:
    """A mix-up is said at start, not by every handshake."""
    pki.save(pki.make_authority(), tmp_path / "one")
    pki.save(pki.make_authority(), tmp_path / "two")
    (tmp_path / "one" / pki.KEY_FILE).write_bytes((tmp_path / "two" / pki.KEY_FILE).read_bytes())
    with pytest.raises(ValueError, match="is not the key"):
        pki.load(tmp_path / "one")


def test_repr_of_a_pair_shows_no_key() -> None:
    """Logs may hold a repr."""
    assert "PRIVATE" not in repr(pki.make_authority().issue("user"))

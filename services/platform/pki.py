"""The mesh's own certificate authority: a root, and short-lived leaves whose identity is a SPIFFE id.

All keys are ECDSA P-256, all PEM. A leaf lives a day and is issued again at half of it, so that what is
stolen ends by itself. A change of CA leaves two in ca.pem for a while; ca.key says which of them signs.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.platform.identity import dns_name, spiffe_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LEAF_LIFE = timedelta(hours=24)
_CA_LIFE = timedelta(days=3650)
_SKEW = timedelta(minutes=5)
"""A certificate is valid from a little before it was made: clocks of peers differ."""

CERTIFICATE_FILE = "ca.pem"
KEY_FILE = "ca.key"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, PEM."""

    cert_pem: str
    key_pem: str = field(repr=False)

    @property
    def not_after(self) -> datetime:
        """When the certificate ends, UTC."""
        return x509.load_pem_x509_certificate(self.cert_pem.encode()).not_valid_after_utc

    @property
    def start(self) -> datetime:
        """When it was made, UTC."""
        return x509.load_pem_x509_certificate(self.cert_pem.encode()).not_valid_before_utc + _SKEW


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign: whoever holds it can be anybody in the mesh."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def cert_pem(self) -> str:
        """The CA's certificate, which everybody may see."""
        return _pem(self.certificate)

    def issue(
        self, service: str, *, names: Sequence[str] = (), now: datetime | None = None, life: timedelta = LEAF_LIFE
    ) -> KeyPair:
        """Issue a leaf, for server and client alike, to a service (or `edge`).

        Args:
            service: Its SPIFFE id and its DNS name in the mesh stand in the certificate.
            names: More DNS names or IP addresses, such as `localhost` for the edge.
            now: When it starts; None: now.
            life: How long it is valid.
        """
        san: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(spiffe_id(service)),
            x509.DNSName(dns_name(service)),
            *map(_name, names),
        ]
        usage = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._sign(service, san, usage, now, life)

    def issue_server(self, common_name: str, *, names: Sequence[str], now: datetime | None = None) -> KeyPair:
        """Issue a leaf to a server outside the mesh, such as a sandbox provider or a broker: no SPIFFE id."""
        return self._sign(common_name, [_name(name) for name in names], (ExtendedKeyUsageOID.SERVER_AUTH,), now)

    def _sign(
        self,
        common_name: str,
        san: Sequence[x509.GeneralName],
        usage: Sequence[x509.ObjectIdentifier],
        now: datetime | None,
        life: timedelta = LEAF_LIFE,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        start = now or datetime.now(UTC)
        ca_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = (
            x509.CertificateBuilder()
            .subject_name(_subject(common_name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - _SKEW)
            .not_valid_after(start + life)
            .add_extension(x509.SubjectAlternativeName(san), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(usage)), critical=False)
            .add_extension(ca_key_id, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return KeyPair(_pem(made), _key_pem(key))


@dataclass(frozen=True, slots=True)
class Trust:
    """Who signs, and every CA whose certificates are believed: the same one, but for the time of a change."""

    issuer: Authority
    authorities: tuple[x509.Certificate, ...]

    @property
    def pem(self) -> str:
        """The certificates that are believed, one after the other."""
        return "".join(map(_pem, self.authorities))

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256 of each, in hex; the one that signs first."""
        signs = self.issuer.certificate
        ordered = (signs, *(each for each in self.authorities if each != signs))
        return tuple(each.fingerprint(hashes.SHA256()).hex() for each in ordered)


def make_authority(now: datetime | None = None) -> Authority:
    """Make a root with a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = now or datetime.now(UTC)
    name = _subject("paymesh root")
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _SKEW)
        .not_valid_after(start + _CA_LIFE)
        # Nothing below it may sign.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(made, key)


def key_pem(authority: Authority) -> str:
    """Return the private key of a CA, to be kept for the owner alone."""
    return _key_pem(authority.key)


def save(authority: Authority, directory: Path) -> None:
    """Write ca.pem, and ca.key for the owner alone. A key that is there is never overwritten.

    Raises:
        FileExistsError: there is a CA already; replacing it would lock everybody out.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(directory / KEY_FILE, flags, 0o600), "w") as file:
        file.write(_key_pem(authority.key))
    (directory / CERTIFICATE_FILE).write_text(authority.cert_pem)


def load(directory: Path) -> Authority:
    """Read what save() wrote.

    Raises:
        OSError: a file is missing or not for us.
        ValueError: a file holds something else, or the key is not the certificate's.
    """
    return load_trust(directory).issuer


def load_trust(directory: Path) -> Trust:
    """Read ca.key, and ca.pem, which may hold more than the certificate of that key.

    Raises as load() does.
    """
    authorities = tuple(x509.load_pem_x509_certificates((directory / CERTIFICATE_FILE).read_bytes()))
    key = serialization.load_pem_private_key((directory / KEY_FILE).read_bytes(), password=None)
    own = next((each for each in authorities if each.public_key() == key.public_key()), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or own is None:
        raise ValueError(f"{directory / KEY_FILE} is not the key of {CERTIFICATE_FILE} beside it")
    return Trust(Authority(own, key), authorities)


def half_life(pair: KeyPair) -> datetime:
    """When a leaf is issued again, UTC."""
    return pair.not_after - (pair.not_after - pair.start) / 2


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "paymesh"), x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()

"""The key material between a mesh and its providers, made once in DIR/providers.

`make(DIR/providers)` writes all of it, or finds it there; the supervisor and the sandbox may both call it, at once too.

merchant/ is what the payment service holds, one JSON object a provider (PEM texts, base64 where said):
  alipay.json  app_id, seller_id, private_key (PKCS #8), alipay_public_key
  wechat.json  appid, mchid, serial_no (of the merchant's certificate), private_key, certificate, api_v3_key (32 characters),
               platform_certificates {serial: certificate}, public_key_id (PUB_KEY_ID_…), public_key
  cards.json   merchant_id, key_id, request_secret, answer_secret (base64 of 32 bytes)
provider/ is what the sandbox holds: the other halves. It never reads merchant/.
book/ is the sandbox's book of charges (services/sandbox/book.py).

A merchant with keys of his own puts his public key into provider/{alipay,wechat}.json (app_public_key,
merchant_certificate) and starts the sandbox again. Two platform certificates exist from the beginning, so that a change of
certificates can be played at any time; merchant/wechat.json names the first one alone, the second comes by /v3/certificates.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

_LIFE = timedelta(days=5 * 365)
"""Life of a platform's or a merchant's certificate, as at the real provider."""


@dataclass(frozen=True, slots=True)
class AlipayKeys:
    """What the gateway holds: its own key, and the public key that the merchant gave for his app."""

    app_id: str
    seller_id: str
    app_public_key: str
    private_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform certificate of WeChat Pay and its key."""

    serial: str
    certificate: str
    private_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WechatKeys:
    """What WeChat Pay holds. ``public_key_private`` signs where the merchant verifies with ``public_key_id``."""

    appid: str
    mchid: str
    merchant_serial_no: str
    merchant_certificate: str
    platforms: tuple[Platform, ...]
    public_key_id: str
    public_key_private: str = field(repr=False)
    api_v3_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CardKeys:
    """What the card network holds; both secrets base64."""

    merchant_id: str
    key_id: str
    request_secret: str = field(repr=False)
    answer_secret: str = field(repr=False)


def make(directory: Path) -> None:
    """Make everything in ``directory`` (mode 0700), unless it is there. Complete or not at all, whoever else tries."""
    if (directory / "provider").is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        for name, (merchant, provider) in {"alipay": _alipay(), "wechat": _wechat(), "cards": _cards()}.items():
            _write(made / "merchant" / f"{name}.json", merchant)
            _write(made / "provider" / f"{name}.json", provider)
        made.rename(directory)
    except OSError:
        if not (directory / "provider").is_dir():  # else somebody else was faster, and his keys count
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def alipay(directory: Path) -> AlipayKeys:
    """Read the gateway's side. Raises OSError, ValueError or TypeError for what make() did not write."""
    return AlipayKeys(**_read(directory, "alipay"))


def wechat(directory: Path) -> WechatKeys:
    """Read WeChat Pay's side; errors as above."""
    found = _read(directory, "wechat")
    return WechatKeys(**{**found, "platforms": tuple(Platform(**each) for each in found["platforms"])})


def cards(directory: Path) -> CardKeys:
    """Read the card network's side; errors as above."""
    return CardKeys(**_read(directory, "cards"))


def _read(directory: Path, name: str) -> dict[str, Any]:
    found = json.loads((directory / "provider" / f"{name}.json").read_bytes())
    if not isinstance(found, dict):
        raise TypeError(f"{name}.json holds no object")
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def _alipay() -> tuple[dict[str, Any], dict[str, Any]]:
    app, gateway = _rsa(), _rsa()
    ids = {"app_id": f"2021{_digits(12)}", "seller_id": f"2088{_digits(12)}"}
    merchant = {**ids, "private_key": _private(app), "alipay_public_key": _public(gateway)}
    return merchant, asdict(AlipayKeys(**ids, app_public_key=_public(app), private_key=_private(gateway)))


def _wechat() -> tuple[dict[str, Any], dict[str, Any]]:
    merchant_key, public = _rsa(), _rsa()
    ids = {"appid": f"wx{secrets.token_hex(8)}", "mchid": f"16{_digits(8)}"}
    api_v3_key, public_key_id = secrets.token_hex(16), f"PUB_KEY_ID_01{_digits(32)}"
    serial_no, certificate = _certificate(merchant_key, ids["mchid"])
    platforms = []
    for _ in range(2):
        key = _rsa()
        serial, pem = _certificate(key, "Tenpay.com sign")
        platforms.append(Platform(serial, pem, _private(key)))
    merchant = {
        **ids,
        "serial_no": serial_no,
        "private_key": _private(merchant_key),
        "certificate": certificate,
        "api_v3_key": api_v3_key,
        "platform_certificates": {platforms[0].serial: platforms[0].certificate},
        "public_key_id": public_key_id,
        "public_key": _public(public),
    }
    provider = WechatKeys(
        **ids,
        merchant_serial_no=serial_no,
        merchant_certificate=certificate,
        platforms=tuple(platforms),
        public_key_id=public_key_id,
        public_key_private=_private(public),
        api_v3_key=api_v3_key,
    )
    return merchant, asdict(provider)


def _cards() -> tuple[dict[str, Any], dict[str, Any]]:
    made = asdict(CardKeys(f"M{_digits(11)}", f"key_{secrets.token_hex(6)}", _secret(), _secret()))
    return made, made


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _certificate(key: rsa.RSAPrivateKey, common_name: str) -> tuple[str, str]:
    """Make a self-signed certificate; return its serial number as WeChat Pay writes it, 40 hex digits, and the PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    number, now = x509.random_serial_number(), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
        .sign(key, hashes.SHA256())
    )
    return f"{number:040X}", made.public_bytes(serialization.Encoding.PEM).decode()


def _private(key: rsa.RSAPrivateKey) -> str:
    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, plain).decode()


def _public(key: rsa.RSAPrivateKey) -> str:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()


def _digits(count: int) -> str:
    return "".join(secrets.choice("0123456789") for _ in range(count))


def _secret() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()

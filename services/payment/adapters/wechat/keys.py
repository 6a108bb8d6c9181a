"""WeChat Pay's keys: public keys that we are told, and platform certificates that are fetched and change."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from services.payment.adapters import rsa, strict_json
from services.payment.adapters.wechat import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.kernel.clock import Clock

PUBLIC_KEY = "PUB_KEY_ID_"
LIFE_S_MAX = 12 * 3600
"""WeChat Pay asks for a look at least every twelve hours: a new certificate is there a day before it signs."""

PAUSE_S = 60
"""Between two looks at least: a forged serial must not make us ask WeChat Pay at every callback."""

CERTIFICATES_MAX = 16


@dataclass(frozen=True, slots=True)
class Certificate:
    """A platform certificate's key and when it may be used, milliseconds since 1970 UTC."""

    key: RSAPublicKey
    from_ms: int
    until_ms: int

    def valid(self, now_ms: int) -> bool:
        """Whether it may be used now."""
        return self.from_ms <= now_ms < self.until_ms


class PlatformKeys:
    """Finds a key by its serial. Certificates are fetched at half-life and when a serial is unknown, once a minute at most."""

    def __init__(
        self,
        public_keys: Mapping[str, str],
        known: Mapping[str, str],
        fetch: Callable[[], dict[str, Certificate] | None] | None,
        clock: Clock,
    ) -> None:
        """Know ``public_keys`` (id -> PEM) and certificates (serial -> PEM); ``fetch`` gets more of the latter.

        Raises ValueError where one of them is none, or there is nothing to verify with.
        """
        if any(not each.startswith(PUBLIC_KEY) for each in public_keys):
            raise ValueError(f"the id of a public key begins with {PUBLIC_KEY}")
        if not public_keys and not known and fetch is None:
            raise ValueError("neither public keys nor certificates: nothing could be verified")
        self._public = {each: rsa.public_key(pem) for each, pem in public_keys.items()}
        self._certificates = {serial: _loaded(serial, pem) for serial, pem in known.items()}
        self._fetch, self._clock = fetch, clock
        self._lock = threading.Lock()
        self._due, self._asked = 0.0, float("-inf")

    @property
    def preferred(self) -> str:
        """The public key that answers are asked to be signed with; empty: WeChat Pay's choice."""
        return max(self._public, default="")

    def find(self, serial: str) -> RSAPublicKey | None:
        """Return the key that ``serial`` names."""
        if serial.startswith(PUBLIC_KEY):
            return self._public.get(serial)
        if self._fetch is not None and (serial not in self._certificates or self._clock.monotonic() >= self._due):
            self._refresh(serial)
        return self.known(serial)

    def known(self, serial: str) -> RSAPublicKey | None:
        """Return the key that ``serial`` names, if it is known now."""
        if serial in self._public:
            return self._public[serial]
        found = self._certificates.get(serial)
        return found.key if found and found.valid(self._clock.now_ms()) else None

    def _refresh(self, serial: str) -> None:
        """Fetch, unless another thread just did. Whoever needs nothing new does not wait for it."""
        if not self._lock.acquire(blocking=serial not in self._certificates):
            return
        try:
            now = self._clock.monotonic()
            if now - self._asked < PAUSE_S:
                return
            self._asked = now
            assert self._fetch is not None
            fetched = self._fetch()
            if fetched:
                # Those that WeChat Pay no longer lists may still have signed what is under way.
                now_ms = self._clock.now_ms()
                kept = {each: old for each, old in self._certificates.items() if old.valid(now_ms)}
                self._certificates = dict([*kept.items(), *fetched.items()][-CERTIFICATES_MAX:])
                self._due = now + _life_s(fetched, now_ms)
        finally:
            self._lock.release()


def certificates(key: bytes, body: str) -> dict[str, Certificate]:
    """Read what /v3/certificates answers: each certificate is encrypted with our key, so only WeChat Pay can have made it.

    Raises ValueError.
    """
    found = strict_json.parse(body).get("data")
    if not isinstance(found, list) or not 0 < len(found) <= CERTIFICATES_MAX:
        raise ValueError("no list of certificates")
    return dict(_certificate(key, each) for each in found)


def _certificate(key: bytes, entry: object) -> tuple[str, Certificate]:
    if not isinstance(entry, dict):
        raise ValueError("a certificate that is none")  # noqa: TRY004 - as everything else that came wrong
    serial = strict_json.string(entry, "serial_no")
    return serial, _loaded(serial, resource.opened(key, strict_json.nested(entry, "encrypt_certificate")))


def _loaded(serial: str, pem: str) -> Certificate:
    made = x509.load_pem_x509_certificate(pem.encode())
    if made.serial_number != int(serial, 16):
        raise ValueError("a certificate of another serial")
    return Certificate(rsa.strong(made.public_key()), _ms(made.not_valid_before_utc), _ms(made.not_valid_after_utc))


def _life_s(fetched: Mapping[str, Certificate], now_ms: int) -> float:
    """How long what was fetched is good: half of what the shortest has left, and twelve hours at most."""
    left = min(each.until_ms for each in fetched.values()) - now_ms
    return min(max(left / 2000, PAUSE_S), LIFE_S_MAX)


def _ms(at: datetime) -> int:
    return round(at.astimezone(UTC).timestamp() * 1000)

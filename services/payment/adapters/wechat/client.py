"""Requests to WeChat Pay: signed over the bytes that are sent, answered by what verifies."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from services.payment.adapters import rsa, strict_json
from services.payment.adapters.exchange import ANSWER_BYTES_MAX, Answer, Exchange, Unanswered, provider_url, same_origin
from services.payment.adapters.outcome import UNVERIFIED
from services.payment.adapters.wechat import signing
from services.payment.adapters.wechat.keys import Certificate, PlatformKeys, certificates
from services.payment.adapters.wechat.resource import KEY_BYTES
from services.platform import telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.kernel.clock import Clock
    from services.payment.adapters.wechat.settings import WechatSettings

_JSON = {"Content-Type": "application/json"}
BILL_BYTES_MAX = 64 << 20
BILL_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """A verified answer: its status, WeChat Pay's code where it is no 2xx, and its members."""

    status: int
    code: str
    members: strict_json.JsonObject

    @property
    def taken(self) -> bool:
        """Whether WeChat Pay did what was asked."""
        return self.status in {200, 204}


class Client:
    """Signs requests, sends them, and hands out answers whose signature holds."""

    def __init__(self, settings: WechatSettings, clock: Clock, transport: httpx.BaseTransport | None) -> None:
        """Take over the settings. Raises ValueError where a key or URL is none."""
        if len(settings.apiv3_key) != KEY_BYTES:
            raise ValueError(f"the APIv3 key has {KEY_BYTES} bytes")
        self._base = provider_url(settings.base_url)
        self.signer = signing.Signer(settings.mchid, settings.serial_no, rsa.private_key(settings.private_key))
        self._apiv3_key, self._clock = settings.apiv3_key, clock
        fetch = self._certificates if settings.fetch_certificates else None
        self._keys = PlatformKeys(settings.public_keys, settings.certificates, fetch, clock)
        self._exchange = Exchange(
            clock, connect_s=settings.connect_s, read_s=settings.read_s, transport=transport, provider="wechat"
        )

    def get(self, path: str) -> Said:
        """Ask. Raises Unanswered."""
        return self._said(self._send("GET", self._at(path), b""))

    def post(self, path: str, content: Mapping[str, object]) -> Said:
        """Ask for something to be done. Raises Unanswered."""
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        return self._said(self._send("POST", self._at(path), body))

    def download(self, address: str, hash_type: str, hash_value: str) -> bytes:
        """Fetch a bill. It is not signed; its hash, from a verified answer, is what it must have. Raises Unanswered."""
        try:
            url = provider_url(address)
        except ValueError as error:
            raise Unanswered("address") from error
        if hash_type != "SHA1" or not same_origin(url, self._base):
            raise Unanswered("address")
        answer = self._send("GET", url, b"", bytes_max=BILL_BYTES_MAX, total_s=BILL_S_MAX)
        if answer.status != 200:
            raise Unanswered(f"http_{answer.status}")
        # The protocol's hash; what it protects is the file, not its secrecy, and WeChat Pay makes both.
        if hashlib.sha1(answer.body, usedforsecurity=False).hexdigest() != hash_value.lower():
            raise Unanswered(UNVERIFIED)
        return answer.body

    def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> None:
        """Check that WeChat Pay signed these bytes just now. Raises Unverified."""
        signing.verify(headers, body, now_ms, self._keys.find)

    def stop(self) -> None:
        """Close the connections."""
        self._exchange.stop()

    def _at(self, path: str) -> httpx.URL:
        return httpx.URL(f"{str(self._base).rstrip('/')}{path}")

    def _send(
        self,
        method: str,
        url: httpx.URL,
        body: bytes,
        *,
        bytes_max: int = ANSWER_BYTES_MAX,
        total_s: float | None = None,
    ) -> Answer:
        seconds, nonce = self._clock.now_ms() // 1000, secrets.token_hex(16)
        path = url.raw_path.decode("ascii")
        authorization = self.signer.authorization(method, path, body, seconds=seconds, nonce=nonce)
        headers = {"Authorization": authorization, **(_JSON if body else {})}
        if self._keys.preferred:
            headers["Wechatpay-Serial"] = self._keys.preferred
        return self._exchange.send(method, url, headers, body, bytes_max=bytes_max, total_s=total_s)

    def _said(self, answer: Answer) -> Said:
        """Read an answer that verifies; also one that refuses must, else a proxy's page would refuse for WeChat Pay."""
        try:
            self.verify(answer.headers, answer.body, self._clock.now_ms())
            members = strict_json.parse(answer.body.decode()) if answer.body else {}
            code = "" if answer.status in {200, 204} else strict_json.string(members, "code")
        except signing.Unverified as error:
            word = UNVERIFIED if 200 <= answer.status < 300 else f"http_{answer.status}"
            raise Unanswered(word) from error
        except ValueError as error:
            raise Unanswered(UNVERIFIED) from error
        return Said(answer.status, code, members)

    def _certificates(self) -> dict[str, Certificate] | None:
        """Fetch the platform certificates.

        The first answer is signed with a key that is only in it. So it is opened first, which our APIv3 key alone can
        do, and then verified with what was in it; nothing of it is used before.
        """
        try:
            answer = self._send("GET", self._at("/v3/certificates"), b"")
            if answer.status != 200:
                raise Unanswered(f"http_{answer.status}")
            fetched = certificates(self._apiv3_key, answer.body.decode())
            now_ms = self._clock.now_ms()
            keys = {serial: each.key for serial, each in fetched.items() if each.valid(now_ms)}
            signing.verify(
                answer.headers, answer.body, now_ms, lambda serial: keys.get(serial) or self._keys.known(serial)
            )
        except (Unanswered, signing.Unverified, ValueError) as error:
            telemetry.log.warning("certificates.not_fetched", provider="wechat", error=str(error))
            return None
        return fetched

"""WeChat Pay in memory: it verifies what it is asked and signs what it is told to answer."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from services.payment.adapters.wechat import WechatSettings
from services.payment.ports.provider import Callback
from tests.fakes.provider_vectors import (
    MERCHANT_KEY,
    MERCHANT_PUBLIC_KEY,
    NEXT_PLATFORM_CERTIFICATE,
    NEXT_PLATFORM_KEY,
    NEXT_SERIAL,
    NOW_MS,
    PLATFORM_CERTIFICATE,
    PLATFORM_KEY,
    PUBLIC_KEY_ID,
    SERIAL,
    WECHAT_KEY,
    WECHAT_PUBLIC_KEY,
)

APIV3_KEY = b"0123456789abcdef0123456789ABCDEF"

SETTINGS = WechatSettings(
    mchid="1600000001",
    app_id="wx0000000000000001",
    serial_no="444F4864EA9B34415AAA",
    private_key=MERCHANT_KEY,
    apiv3_key=APIV3_KEY,
    base_url="https://api.mch.weixin.qq.com",
    notify_url="https://pay.example.com/api/payments/callbacks/wechat",
    public_keys={PUBLIC_KEY_ID: WECHAT_PUBLIC_KEY},
)

KEYS = {SERIAL: PLATFORM_KEY, NEXT_SERIAL: NEXT_PLATFORM_KEY, PUBLIC_KEY_ID: WECHAT_KEY}
CERTIFICATES = {SERIAL: PLATFORM_CERTIFICATE, NEXT_SERIAL: NEXT_PLATFORM_CERTIFICATE}

_AUTHORIZATION = re.compile(
    r'WECHATPAY2-SHA256-RSA2048 mchid="(\d+)",nonce_str="(\w+)",signature="([\w+/=]+)",timestamp="(\d+)",serial_no="(\w+)"'
)


def sign(text: bytes, key: str) -> str:
    """Sign as ``key``'s owner."""
    return base64.b64encode(_private(key).sign(text, PKCS1v15(), SHA256())).decode()


def signed_headers(
    body: bytes, *, serial: str = PUBLIC_KEY_ID, at_ms: int = NOW_MS, nonce: str = "n0nce"
) -> dict[str, str]:
    """The headers of an answer or callback with this body."""
    seconds = at_ms // 1000
    text = f"{seconds}\n{nonce}\n".encode() + body + b"\n"
    return {
        "wechatpay-serial": serial,
        "wechatpay-timestamp": str(seconds),
        "wechatpay-nonce": nonce,
        "wechatpay-signature": sign(text, KEYS[serial]),
    }


def encrypted(text: str, associated_data: str, *, key: bytes = APIV3_KEY) -> dict[str, str]:
    """An object as WeChat Pay encrypts it."""
    nonce = "fdasflkja484"
    raw = AESGCM(key).encrypt(nonce.encode(), text.encode(), associated_data.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "nonce": nonce,
        "associated_data": associated_data,
        "ciphertext": base64.b64encode(raw).decode(),
    }


def certificate_list(serials: tuple[str, ...] = (SERIAL,), *, key: bytes = APIV3_KEY) -> dict[str, Any]:
    """What /v3/certificates answers."""
    return {
        "data": [
            {"serial_no": each, "encrypt_certificate": encrypted(CERTIFICATES[each], "certificate", key=key)}
            for each in serials
        ]
    }


def transaction(**changed: object) -> dict[str, Any]:
    """A transaction of P1002 that was paid with 1.00 CNY; None takes a member away."""
    made: dict[str, Any] = {
        "appid": SETTINGS.app_id,
        "mchid": SETTINGS.mchid,
        "out_trade_no": "P1002",
        "transaction_id": "4200001",
        "trade_state": "SUCCESS",
        "success_time": "2026-11-24T07:59:30+08:00",
        "amount": {"total": 100, "payer_total": 100, "currency": "CNY", "payer_currency": "CNY"},
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def refund(**changed: object) -> dict[str, Any]:
    """A refund R1 of 0.40 CNY of P1002 that arrived, as an answer has it; None takes a member away."""
    made: dict[str, Any] = {
        "refund_id": "5030001",
        "out_refund_no": "R1",
        "transaction_id": "4200001",
        "out_trade_no": "P1002",
        "status": "SUCCESS",
        "success_time": "2026-11-24T07:59:30+08:00",
        "amount": {"total": 100, "refund": 40, "currency": "CNY"},
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def callback(
    content: Mapping[str, Any], event: str = "TRANSACTION.SUCCESS", *, serial: str = PUBLIC_KEY_ID, at_ms: int = NOW_MS
) -> Callback:
    """A callback as WeChat Pay sends it."""
    envelope = {
        "id": "EV-1",
        "create_time": "2026-11-24T07:59:31+08:00",
        "resource_type": "encrypt-resource",
        "event_type": event,
        "summary": "…",
        "resource": encrypted(json.dumps(content, ensure_ascii=False), "transaction"),
    }
    body = json.dumps(envelope, ensure_ascii=False).encode()
    return Callback(signed_headers(body, serial=serial, at_ms=at_ms), body)


@dataclass
class FakeWechat(httpx.BaseTransport):
    """Answers each request with ``content`` and ``status`` signed by the key that ``serial`` names.

    ``headers`` replace the signed ones; ``fault`` is raised instead. ``listed`` is what /v3/certificates answers, and
    ``file`` what a download does. ``asked`` are the requests, each verified: method, path with query, body.
    """

    content: object = field(default_factory=dict)
    status: int = 200
    serial: str = PUBLIC_KEY_ID
    at_ms: int = NOW_MS
    headers: dict[str, str] | None = None
    fault: Exception | None = None
    listed: object = field(default_factory=certificate_list)
    list_serial: str = SERIAL
    file: bytes = b""
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    request_headers: list[httpx.Headers] = field(default_factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        body = b"".join(piece for piece in request.stream if isinstance(piece, bytes))  # type: ignore[union-attr]
        path = request.url.raw_path.decode()
        self._verify(request, path, body)
        self.asked.append((request.method, path, body))
        self.request_headers.append(request.headers)
        if self.fault:
            raise self.fault
        if path.startswith("/v3/billdownload"):
            return httpx.Response(200, stream=httpx.ByteStream(self.file))
        listing = path == "/v3/certificates"
        content = self.listed if listing else self.content
        raw = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
        serial = self.list_serial if listing else self.serial
        headers = signed_headers(raw, serial=serial, at_ms=self.at_ms)
        return httpx.Response(
            200 if listing else self.status,
            stream=httpx.ByteStream(raw),
            headers=headers if self.headers is None else self.headers,
        )

    @property
    def listings(self) -> int:
        """How often it was asked for its certificates."""
        return sum(path == "/v3/certificates" for _, path, _ in self.asked)

    def refuses(self, status: int, code: str) -> None:
        """Refuse from now on."""
        self.status, self.content = status, {"code": code, "message": "no"}

    @staticmethod
    def _verify(request: httpx.Request, path: str, body: bytes) -> None:
        found = _AUTHORIZATION.fullmatch(request.headers["authorization"])
        assert found, "an Authorization header of another shape"
        mchid, nonce, signature, seconds, serial = found.groups()
        assert (mchid, serial) == (SETTINGS.mchid, SETTINGS.serial_no)
        public = load_pem_public_key(MERCHANT_PUBLIC_KEY.encode())
        assert isinstance(public, RSAPublicKey)
        text = f"{request.method}\n{path}\n{seconds}\n{nonce}\n".encode() + body + b"\n"
        public.verify(base64.b64decode(signature), text, PKCS1v15(), SHA256())


@cache
def _private(pem: str) -> RSAPrivateKey:
    private = load_pem_private_key(pem.encode(), None)  # checks that the primes are some, so it takes its time
    assert isinstance(private, RSAPrivateKey)
    return private

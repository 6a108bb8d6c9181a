"""Alipay's gateway in memory: it verifies what it is asked and signs what it is told to answer."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import parse_qsl, quote_plus

import httpx
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from services.payment.adapters.alipay import AlipaySettings
from tests.fakes.provider_vectors import ALIPAY_KEY, ALIPAY_PUBLIC_KEY, MERCHANT_KEY, MERCHANT_PUBLIC_KEY

SETTINGS = AlipaySettings(
    app_id="2021000000000001",
    seller_id="2088000000000001",
    private_key=MERCHANT_KEY,
    alipay_public_key=ALIPAY_PUBLIC_KEY,
    gateway_url="https://openapi.alipay.com/gateway.do",
    notify_url="https://pay.example.com/api/payments/callbacks/alipay",
)


def sign(text: str, key: str = ALIPAY_KEY) -> str:
    """Sign as ``key``'s owner."""
    return base64.b64encode(_private(key).sign(text.encode(), PKCS1v15(), SHA256())).decode()


def verify_request(parameters: dict[str, str]) -> None:
    """Check a request's signature, by the protocol's words. Raises InvalidSignature."""
    rest = {name: value for name, value in parameters.items() if name != "sign"}
    assert all(rest.values()), "an empty parameter was sent"
    public = load_pem_public_key(MERCHANT_PUBLIC_KEY.encode())
    assert isinstance(public, RSAPublicKey)
    text = "&".join(f"{name}={rest[name]}" for name in sorted(rest))
    public.verify(base64.b64decode(parameters["sign"]), text.encode(), PKCS1v15(), SHA256())


def answer_text(method: str, content: str, *, root: str = "", key: str = ALIPAY_KEY) -> str:
    """Write an answer around ``content``, which is signed as it stands."""
    name = root or f"{method.replace('.', '_')}_response"
    return f'{{"{name}":{content},"sign":"{sign(content, key)}"}}'


def notification(parameters: dict[str, str], key: str = ALIPAY_KEY) -> bytes:
    """Write a notification: every parameter signed, then URL-encoded."""
    text = "&".join(f"{name}={parameters[name]}" for name in sorted(parameters))
    whole = {**parameters, "sign_type": "RSA2", "sign": sign(text, key)}
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in whole.items()).encode()


def paid(**changed: str) -> dict[str, str]:
    """The parameters of a notification that 88.88 CNY were paid for P1002; an empty change takes one away."""
    made = {
        "app_id": SETTINGS.app_id,
        "charset": "utf-8",
        "gmt_payment": "2026-11-24 07:59:30",
        "notify_id": "n-1",
        "notify_time": "2026-11-24 07:59:31",
        "notify_type": "trade_status_sync",
        "out_trade_no": "P1002",
        "seller_id": SETTINGS.seller_id,
        "subject": "一壶茶",
        "total_amount": "88.88",
        "trade_no": "T1",
        "trade_status": "TRADE_SUCCESS",
        "version": "1.0",
        **changed,
    }
    return {name: value for name, value in made.items() if value}


@dataclass
class FakeGateway(httpx.BaseTransport):
    """Answers each request with ``content`` signed, or with ``whole`` as it is; raises ``fault`` instead, if there is one.

    ``asked`` are the requests, each verified.
    """

    content: str = '{"code":"10000","msg":"Success"}'
    whole: bytes | None = None
    status: int = 200
    fault: Exception | None = None
    file: bytes = b""
    asked: list[dict[str, str]] = field(default_factory=list)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        if self.fault:
            raise self.fault
        if request.method == "GET":
            return httpx.Response(self.status, stream=httpx.ByteStream(self.file))
        body = b"".join(piece for piece in request.stream if isinstance(piece, bytes))  # type: ignore[union-attr]
        parameters = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
        verify_request(parameters)
        self.asked.append(parameters)
        text = self.whole if self.whole is not None else answer_text(parameters["method"], self.content).encode()
        return httpx.Response(
            self.status, stream=httpx.ByteStream(text), headers={"Content-Type": "text/html;charset=utf-8"}
        )

    def says(self, **members: object) -> None:
        """Answer these members from now on, with code 10000 unless another is given."""
        self.content = json.dumps({"code": "10000", "msg": "Success", **members}, ensure_ascii=False)

    def refuses(self, sub_code: str, code: str = "40004") -> None:
        """Refuse from now on."""
        self.says(code=code, msg="Business Failed", sub_code=sub_code, sub_msg="no")


@cache
def _private(pem: str) -> RSAPrivateKey:
    private = load_pem_private_key(pem.encode(), None)  # checks that the primes are some, so it takes its time
    assert isinstance(private, RSAPrivateKey)
    return private

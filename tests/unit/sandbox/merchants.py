"""Merchants who speak the three protocols as the design page says, apart from the code that they are tested against."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.sandbox.acquirer import Acquirer, House
from services.sandbox.app import acquirers, web

START_MS = 1_893_456_000_000
"""2030-01-01 08:00 in China."""
NOTIFY = "https://merchant.test/callbacks"


@dataclass
class FakeClock:
    """A clock that a test moves."""

    ms: int = START_MS

    def now_ms(self) -> int:
        """Where the test moved it."""
        return self.ms

    def monotonic(self) -> float:
        """The same in seconds."""
        return self.ms / 1000


@dataclass
class Inbox:
    """The merchant's callback address: keeps what came, answers as told."""

    answer: Callable[[httpx.Request], httpx.Response] = lambda _request: httpx.Response(200, text="success")
    came: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Take a callback."""
        self.came.append(request)
        return self.answer(request)


class World:
    """The three providers without a socket, a clock to move and the merchant's inbox."""

    def __init__(self, folder: Path, time_scale: float = 1e-7) -> None:
        self.folder, self.clock, self.inbox = folder, FakeClock(), Inbox()
        house = House(folder, self.clock, time_scale, transport=httpx.MockTransport(self.inbox))
        self.acquirers: dict[str, Acquirer] = {each.name: each for each in acquirers(house)}
        app = web([*self.acquirers.values()])
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:1")

    async def rule(self, name: str, **rule: object) -> None:
        """Add one rule to a provider's script."""
        answer = await self.http.post(f"/scripts/{name}", json={"rules": [rule]})
        assert answer.status_code == 200, answer.text

    async def pays(self, name: str, number: str, deed: str = "pay", **action: str) -> httpx.Response:
        """Do what the payer does."""
        return await self.http.post(f"/payer/{name}/{number}/{deed}", json=action)

    async def called(self, name: str) -> list[httpx.Request]:
        """Return every callback once none is under way."""
        await self.acquirers[name].notifier.settled()
        return self.inbox.came

    async def booked(self, number: str) -> dict[str, Any]:
        """Return the charge of a number as the book has it."""
        (charge,) = (await self.http.get("/book", params={"request_id": number})).json()["charges"]
        return dict(charge)


def _held(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / "merchant" / f"{name}.json").read_text()))


@cache
def _key(pem: str) -> RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def _sign(pem: str, text: bytes) -> str:
    return base64.b64encode(_key(pem).sign(text, padding.PKCS1v15(), hashes.SHA256())).decode()


def _verify(key: RSAPublicKey, signature: str, text: bytes) -> None:
    key.verify(base64.b64decode(signature, validate=True), text, padding.PKCS1v15(), hashes.SHA256())


class AlipayMerchant:
    """An app of the open gateway."""

    def __init__(self, world: World) -> None:
        self.world, self.held = world, _held(world.folder, "alipay")
        self._gateway: Any = serialization.load_pem_public_key(self.held["alipay_public_key"].encode())

    def params(self, method: str, biz: dict[str, Any], /, **changed: str) -> dict[str, str]:
        """Parameters with their signature; ``changed`` before it is made."""
        at = datetime.fromtimestamp(self.world.clock.ms / 1000, UTC) + timedelta(hours=8)
        params = {
            "app_id": self.held["app_id"],
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": at.strftime("%Y-%m-%d %H:%M:%S"),
            "version": "1.0",
            "notify_url": NOTIFY,
            "biz_content": json.dumps(biz, ensure_ascii=False),
            **changed,
        }
        text = "&".join(f"{k}={v}" for k, v in sorted(params.items()) if v)
        return {**params, "sign": _sign(self.held["private_key"], text.encode(params["charset"] or "utf-8"))}

    async def send(self, params: dict[str, str]) -> dict[str, Any]:
        """Send, verify the raw substring, return the node."""
        form = urlencode(params, encoding=params.get("charset") or "utf-8").encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await self.world.http.post("/alipay/gateway.do", content=form, headers=headers)
        assert answer.status_code == 200
        return self.verified(answer.content, params)

    def verified(self, body: bytes, params: dict[str, str]) -> dict[str, Any]:
        """Verify an answer; one without a signature must be an error of the gateway."""
        charset = params.get("charset") or "utf-8"
        name, found = next((k, v) for k, v in json.loads(body.decode(charset)).items() if k != "sign")
        if b'"sign":"' not in body:
            assert found["code"] != "10000"
            return dict(found)
        start, end = body.index(b":") + 1, body.rindex(b',"sign":"')
        assert name == params["method"].replace(".", "_") + "_response"
        _verify(self._gateway, json.loads(body.decode(charset))["sign"], body[start:end])
        return dict(found)

    async def call(self, method: str, changed: dict[str, str] | None = None, /, **biz: object) -> dict[str, Any]:
        """Call a method of alipay.trade."""
        return await self.send(self.params(f"alipay.trade.{method}", biz, **(changed or {})))

    async def precreate(self, number: str, amount: str = "12.34", **more: object) -> dict[str, Any]:
        """Order a QR code."""
        return await self.call("precreate", None, out_trade_no=number, total_amount=amount, subject="茶/tea", **more)

    def noticed(self, request: httpx.Request) -> dict[str, str]:
        """Verify a notice by the page, return its parameters."""
        params = dict(parse_qsl(request.content.decode(), strict_parsing=True))
        sign, sign_type = params.pop("sign"), params.pop("sign_type")
        assert sign_type == "RSA2"
        _verify(self._gateway, sign, "&".join(f"{k}={v}" for k, v in sorted(params.items())).encode())
        return params


class WechatMerchant:
    """A merchant of WeChat Pay v3."""

    def __init__(self, world: World) -> None:
        self.world, self.held = world, _held(world.folder, "wechat")
        self.keys: dict[str, Any] = {
            serial: x509.load_pem_x509_certificate(pem.encode()).public_key()
            for serial, pem in self.held["platform_certificates"].items()
        }
        self.keys[self.held["public_key_id"]] = serialization.load_pem_public_key(self.held["public_key"].encode())

    def authorization(self, method: str, target: str, body: bytes, **changed: str) -> str:
        """The header; ``changed`` after the signature is made, but timestamp and nonce before."""
        timestamp = changed.pop("timestamp", str(self.world.clock.ms // 1000))
        nonce = changed.pop("nonce_str", secrets.token_hex(16))
        text = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
        parts = {
            "mchid": self.held["mchid"],
            "nonce_str": nonce,
            "signature": _sign(self.held["private_key"], text),
            "timestamp": timestamp,
            "serial_no": self.held["serial_no"],
            **changed,
        }
        return "WECHATPAY2-SHA256-RSA2048 " + ",".join(f'{k}="{v}"' for k, v in parts.items())

    async def send(self, method: str, target: str, body: object = None, **headers: str) -> httpx.Response:
        """Send a signed request; ``headers`` replace what would be sent."""
        raw = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        sent = {"accept": "application/json", "user-agent": "merchant/1"} | (
            {"content-type": "application/json"} if raw else {}
        )
        sent["authorization"] = self.authorization(method, target, raw)
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.world.http.request(method, target, content=raw, headers=sent)

    async def call(self, method: str, target: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """Send, verify the answer's signature, return status and JSON."""
        answer = await self.send(method, target, body)
        self.verify(answer.headers, answer.content)
        return answer.status_code, answer.json() if answer.content else {}

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Verify an answer or a callback by the page."""
        assert abs(self.world.clock.ms // 1000 - int(headers["wechatpay-timestamp"])) < 300
        text = f"{headers['wechatpay-timestamp']}\n{headers['wechatpay-nonce']}\n".encode() + body + b"\n"
        _verify(self.keys[headers["wechatpay-serial"]], headers["wechatpay-signature"], text)

    def decrypt(self, resource: dict[str, str]) -> bytes:
        """Decrypt a resource under the APIv3 key."""
        key, aad = self.held["api_v3_key"].encode(), resource["associated_data"].encode()
        return AESGCM(key).decrypt(resource["nonce"].encode(), base64.b64decode(resource["ciphertext"]), aad)

    def order(self, number: str, fen: int = 1234, **more: object) -> dict[str, Any]:
        """The body of an order."""
        ids = {name: self.held[name] for name in ("appid", "mchid")}
        return {**ids, "description": "茶", "out_trade_no": number, "notify_url": NOTIFY,
                "amount": {"total": fen, "currency": "CNY"}, **more}  # fmt: skip

    async def native(self, number: str, fen: int = 1234, **more: object) -> tuple[int, dict[str, Any]]:
        """Order a code."""
        return await self.call("POST", "/v3/pay/transactions/native", self.order(number, fen, **more))

    async def query(self, number: str) -> tuple[int, dict[str, Any]]:
        """Ask for an order."""
        return await self.call("GET", f"/v3/pay/transactions/out-trade-no/{number}?mchid={self.held['mchid']}")

    async def refund(self, number: str, refund_no: str, fen: int, total: int = 1234) -> tuple[int, dict[str, Any]]:
        """Give back."""
        amount = {"refund": fen, "total": total, "currency": "CNY"}
        body = {"out_trade_no": number, "out_refund_no": refund_no, "amount": amount, "notify_url": NOTIFY}
        return await self.call("POST", "/v3/refund/domestic/refunds", body)

    def noticed(self, request: httpx.Request) -> tuple[str, dict[str, Any]]:
        """Verify and decrypt a callback; return its event and resource."""
        self.verify(request.headers, request.content)
        event = json.loads(request.content)
        return event["event_type"], json.loads(self.decrypt(event["resource"]))

    def client_sign(self, *lines: str) -> str:
        """Sign what a client hands to WeChat."""
        return _sign(self.held["private_key"], "".join(f"{line}\n" for line in lines).encode())


class CardMerchant:
    """A merchant of the card network."""

    def __init__(self, world: World) -> None:
        self.world, self.held = world, _held(world.folder, "cards")
        self._request, self._answer = (
            base64.b64decode(self.held[name]) for name in ("request_secret", "answer_secret")
        )

    async def send(self, method: str, target: str, body: object = None, **headers: str) -> httpx.Response:
        """Send a signed request; Card-Timestamp and Card-Nonce given are signed, other ``headers`` replace."""
        raw = b"" if body is None else json.dumps(body).encode()
        timestamp = headers.pop("card_timestamp", str(self.world.clock.ms // 1000))
        nonce = headers.pop("card_nonce", secrets.token_hex(16))
        text = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + raw + b"\n"
        sent = {
            "content-type": "application/json",
            "card-merchant": self.held["merchant_id"],
            "card-key": self.held["key_id"],
            "card-timestamp": timestamp,
            "card-nonce": nonce,
            "card-signature": base64.b64encode(hmac.digest(self._request, text, hashlib.sha256)).decode(),
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.world.http.request(method, target, content=raw, headers=sent)

    async def call(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """Send, verify the answer, return status and content."""
        answer = await self.send(method, target, body)
        assert answer.headers["card-nonce"] == answer.request.headers["card-nonce"]
        self.verify(f"{answer.status_code}\n", answer.headers, answer.content)
        return answer.status_code, answer.json() if "json" in answer.headers["content-type"] else answer.text

    def verify(self, head: str, headers: Mapping[str, str], body: bytes) -> None:
        """Verify an answer (``head``: its status) or a callback."""
        assert abs(self.world.clock.ms // 1000 - int(headers["card-timestamp"])) < 300
        text = f"{head}{headers['card-timestamp']}\n{headers['card-nonce']}\n".encode() + body + b"\n"
        wanted = base64.b64encode(hmac.digest(self._answer, text, hashlib.sha256)).decode()
        assert hmac.compare_digest(headers["card-signature"], wanted)

    def body(self, request_id: str, number: str = "4242424242424242", **more: object) -> dict[str, Any]:
        """The body of a charge."""
        return {"request_id": request_id, "amount": {"minor_units": 1234, "currency": "USD"}, "capture": True,
                "card": {"number": number, "exp_month": 12, "exp_year": 2031, "cvc": "123"},
                "description": "tea", "notify_url": NOTIFY, **more}  # fmt: skip

    async def charge(self, request_id: str, number: str = "4242424242424242", **more: object) -> tuple[int, Any]:
        """Charge a card."""
        return await self.call("POST", "/cards/v1/charges", self.body(request_id, number, **more))

    async def query(self, request_id: str) -> tuple[int, Any]:
        """Ask for a charge."""
        return await self.call("GET", f"/cards/v1/charges/{request_id}")

    async def refund(self, request_id: str, charge: str, units: int) -> tuple[int, Any]:
        """Give back."""
        amount = {"minor_units": units, "currency": "USD"}
        body = {"request_id": request_id, "charge_request_id": charge, "amount": amount}
        return await self.call("POST", "/cards/v1/refunds", body)

    def noticed(self, request: httpx.Request) -> dict[str, Any]:
        """Verify a callback and return it."""
        self.verify("", request.headers, request.content)
        return dict(json.loads(request.content))

"""The keys of the platform: which one signs what, and callbacks signed and encrypted, true ones and forged ones."""

from __future__ import annotations

import base64
import itertools
import secrets
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from cryptography import x509

from services.sandbox import signing
from services.sandbox.china import CHINA
from services.sandbox.notifier import Notice, Outgoing

if TYPE_CHECKING:
    from services.kernel.clock import Clock
    from services.sandbox.keys import WechatKeys
    from services.sandbox.rules import Rules

SIGN_WITH = ("certificate", "next_certificate", "both_certificates", "public_key", "both")
CALLBACK_FORGERIES = frozenset(
    {"signature", "amount", "seller", "app_id", "currency", "order", "timestamp", "probe", "serial", "tag"}
)
ANSWER_FORGERIES = frozenset({"signature", "unsigned", "timestamp", "probe", "serial", "amount", "order"})
PROBE = "WECHATPAY/SIGNTEST/"
_OLD_S = 3_600


class Seals:
    """Signs and encrypts in the platform's name."""

    def __init__(self, held: WechatKeys, script: Rules, clock: Clock) -> None:
        """Sign with the keys of ``held``, chosen by the script's option sign_with."""
        self._held, self._script, self._clock = held, script, clock
        self._keys = {each.serial: signing.private_key(each.private_key) for each in held.platforms}
        self._keys[held.public_key_id] = signing.private_key(held.public_key_private)
        self._turns = itertools.count()

    @property
    def serials(self) -> tuple[str, ...]:
        """The keys in use at present."""
        first, second = (each.serial for each in self._held.platforms)
        public = self._held.public_key_id
        return {
            "certificate": (first,),
            "next_certificate": (second,),
            "both_certificates": (first, second),
            "public_key": (public,),
            "both": (first, public),
        }[str(self._script.option("sign_with"))]

    def known(self, serial: str) -> bool:
        """Tell whether a merchant may name this key."""
        return serial in self._keys

    def headers(self, body: bytes, *, wanted: str = "", forge: str = "") -> dict[str, str]:
        """Sign a body; ``wanted`` is the key that the request named."""
        if forge == "unsigned":
            return {}
        in_use = self.serials
        serial = wanted if wanted in in_use else in_use[next(self._turns) % len(in_use)]
        timestamp = str(self._clock.now_ms() // 1000 - (_OLD_S if forge == "timestamp" else 0))
        nonce = secrets.token_hex(16)
        signed = f"{timestamp}\n{nonce}\n".encode() + body + (b" \n" if forge == "signature" else b"\n")
        signature = signing.sign(self._keys[serial], signed)
        if forge == "probe":
            signature = PROBE + signature[len(PROBE) :]
        return {
            "Wechatpay-Timestamp": timestamp,
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Signature": signature,
            "Wechatpay-Serial": f"{secrets.randbits(159):040X}" if forge == "serial" else serial,
            "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
            "Request-ID": uuid.uuid4().hex,
        }

    def certificates(self) -> list[dict[str, Any]]:
        """Return what /v3/certificates lists: encrypted under the APIv3 key."""
        platforms, mode = self._held.platforms, self._script.option("sign_with")
        listed = {"public_key": (), "next_certificate": platforms, "both_certificates": platforms}.get(
            str(mode), platforms[:1]
        )
        made = []
        for each in listed:
            found = x509.load_pem_x509_certificate(each.certificate.encode())
            made.append({
                "serial_no": each.serial,
                "effective_time": _rfc3339(found.not_valid_before_utc),
                "expire_time": _rfc3339(found.not_valid_after_utc),
                "encrypt_certificate": self.encrypted(each.certificate.encode(), "certificate"),
            })  # fmt: skip
        return made

    def encrypted(self, text: bytes, associated: str) -> dict[str, str]:
        """Encrypt under the merchant's APIv3 key."""
        nonce = secrets.token_hex(6)
        sealed = signing.encrypt(self._held.api_v3_key.encode(), text, nonce=nonce, associated=associated)
        return {"algorithm": "AEAD_AES_256_GCM", "nonce": nonce, "associated_data": associated, "ciphertext": sealed}

    def notice(
        self, kind: str, event: str, summary: str, resource: Mapping[str, Any], *, ids: tuple[str, ...], url: str
    ) -> Notice:
        """Return a callback about ``resource``; ``kind`` is transaction or refund."""
        notice_id, created = str(uuid.uuid4()), rfc3339(self._clock.now_ms())

        def render(forge: str) -> Outgoing:
            if kind == "refund" and forge in {"app_id", "currency"}:
                forge = "signature"  # a notice of a refund has neither; a forger finds another way
            sealed = self.encrypted(orjson.dumps(_forged(resource, forge)), kind)
            if forge == "tag":
                broken = bytearray(base64.b64decode(sealed["ciphertext"]))
                broken[-1] ^= 1
                sealed["ciphertext"] = base64.b64encode(broken).decode()
            body = orjson.dumps({
                "id": notice_id,
                "create_time": created,
                "resource_type": "encrypt-resource",
                "event_type": event,
                "summary": summary,
                "resource": {"original_type": kind, **sealed},
            })  # fmt: skip
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "Mozilla/4.0",
                **self.headers(body, forge=forge),
            }
            return Outgoing(headers, body)

        return Notice(notice_id=notice_id, ids=ids, url=url, render=render)


def rfc3339(ms: int) -> str:
    """Write a time in China with its offset, whole seconds."""
    return datetime.fromtimestamp(ms // 1000, CHINA).isoformat()


def _rfc3339(time: datetime) -> str:
    return time.astimezone(CHINA).isoformat()


def _forged(resource: Mapping[str, Any], forge: str) -> dict[str, Any]:
    """Return what a forger who has the keys would write differently."""
    amount = dict(resource["amount"])
    if forge == "amount":
        amount |= {name: value + 1 for name, value in amount.items() if isinstance(value, int)}
    if forge == "currency":
        amount |= {"currency": "USD", "payer_currency": "USD"}
    changed = {
        "seller": {"mchid": "1900000001"},
        "app_id": {"appid": "wx0000000000000000"},
        "order": {"out_trade_no": f"{resource['out_trade_no']}0"[-32:]},
    }.get(forge, {})
    return {**resource, "amount": amount, **changed}

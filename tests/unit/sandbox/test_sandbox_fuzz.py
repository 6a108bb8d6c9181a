"""Whatever comes over the wire is refused in the provider's words: nothing raises anything else, nothing is let in."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from services.sandbox import bills, keys, signing
from services.sandbox.alipay.requests import Refused, decoded, verified
from services.sandbox.cards import requests as cards
from services.sandbox.china import CHINA, fen_of, yuan
from services.sandbox.rules import WALLET, Rules
from services.sandbox.wechat import requests as wechat
from tests.unit.sandbox.merchants import START_MS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(parts=st.lists(st.binary(max_size=200), max_size=2))
def test_form_of_any_bytes(key_folder: Path, parts: list[bytes]) -> None:
    """Any bytes are a form that is refused."""
    held = keys.alipay(key_folder)
    with pytest.raises(Refused):
        verified(decoded(*parts), held.app_id, signing.public_key(held.app_public_key), START_MS)


@settings(deadline=None)
@given(params=st.dictionaries(st.sampled_from(["method", "app_id", "sign", "sign_type", "charset", "timestamp", "version",
                                               "biz_content", "format"]), st.text(max_size=20)))  # fmt: skip
def test_parameters_of_any_text(key_folder: Path, params: dict[str, str]) -> None:
    """Any parameters under the right names are refused."""
    held = keys.alipay(key_folder)
    with pytest.raises(Refused):
        verified(params, held.app_id, signing.public_key(held.app_public_key), START_MS)


@settings(deadline=None)
@given(header=st.text(max_size=200), known=st.booleans())
def test_authorization_of_any_text(key_folder: Path, header: str, *, known: bool) -> None:
    """Any Authorization is refused, with the right scheme too."""
    held = keys.wechat(key_folder)
    key = x509.load_pem_x509_certificate(held.merchant_certificate.encode()).public_key()
    assert isinstance(key, RSAPublicKey)
    gate = wechat.Gate(held.mchid, held.merchant_serial_no, key)
    headers = {"authorization": f"{wechat.SCHEME} {header}" if known else header, "accept": "*/*", "user-agent": "x"}
    with pytest.raises(wechat.ApiError):
        gate.admit(wechat.Received("GET", "/v3/certificates", headers, b""), START_MS / 1000)


@settings(deadline=None)
@given(nonce=st.text(max_size=80), timestamp=st.text(max_size=12), signature=st.text(max_size=60))
def test_card_headers_of_any_text(key_folder: Path, nonce: str, timestamp: str, signature: str) -> None:
    """Any nonce, timestamp and signature are refused."""
    held = keys.cards(key_folder)
    headers = {"card-merchant": held.merchant_id, "card-key": held.key_id, "card-nonce": nonce,
               "card-timestamp": timestamp, "card-signature": signature}  # fmt: skip
    with pytest.raises(cards.ApiError):
        cards.Gate(held).admit("GET", "/cards/v1/charges/C1", headers, b"", START_MS / 1000)


@given(amount=JSON, card=JSON)
def test_card_charge_of_any_json(amount: object, card: object) -> None:
    """Any amount and card is either read whole or refused."""
    body = object.__new__(cards.Json)
    body._content = {"amount": amount, "card": card}
    for read, keys_wanted in ((body.amount, amount), (body.card, card)):
        with contextlib.suppress(cards.ApiError):
            assert read()
            assert isinstance(keys_wanted, dict)


@given(wanted=st.dictionaries(st.sampled_from(["rules", "bill_today", "x"]), JSON | st.lists(st.dictionaries(
    st.sampled_from(["on", "do", "times", "forge", "request_id"]), JSON), max_size=3)))  # fmt: skip
def test_script_of_any_json(wanted: dict[str, object]) -> None:
    """Any script is either taken whole, or its faults are named and nothing of it is taken."""
    script = Rules(WALLET, {"amount"}, {"signature"})
    faults, rules = script.set(wanted), wanted.get("rules", [])
    assert isinstance(rules, list) or faults
    assert len(script.rules) == (0 if faults or not isinstance(rules, list) else len(rules))


@given(fen=st.integers(1, 10**10), day=st.text(max_size=12))
def test_amounts_and_days(fen: int, day: str) -> None:
    """Yuan come back as the same fen; any text is a day or none."""
    assert fen_of(yuan(fen)) == fen
    found = bills.day_of(day, CHINA, START_MS, today=True)
    assert found is None or found.isoformat() == day


def test_sockets_without_one() -> None:
    """An answer that hangs ends with the client, quietly."""

    async def hang() -> list[str]:
        from services.sandbox.sockets import Hanging  # noqa: PLC0415 - the one test of it

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        sent: list[str] = []

        async def send(_message: object) -> None:
            sent.append("something")

        await Hanging()({"type": "http"}, receive, send)
        return sent

    assert asyncio.run(hang()) == []

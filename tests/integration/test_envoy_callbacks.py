"""Callbacks of providers through a real edge: the exact bytes and headers come in, the provider's own words go out."""

from __future__ import annotations

import base64
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from grpc_status import rpc_status

from services.contract.load import contract
from services.kernel.errors import DomainError
from services.mesh.filters import BODY_BYTES_MAX
from services.payment.adapters.card.signing import Secrets, signature
from services.platform.status import status_of
from tests.integration.envoys import Mesh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALIPAY, WECHAT, CARDS = (f"/api/payments/callbacks/{name}" for name in ("alipay", "wechat", "bank_card"))
FORM = "application/x-www-form-urlencoded; charset=utf-8"
JSON = "application/json"
SUCCESS = HttpBody(content_type="text/plain", data=b"success")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("m"), instances=("payment-1",)).running() as running:
        yield running


@pytest.fixture(autouse=True)
def _plain(mesh: Mesh) -> None:
    mesh.seen.behave, mesh.seen.answer = None, SUCCESS
    mesh.seen.calls.clear()
    mesh.seen.callbacks.clear()


@pytest.fixture(params=["http/1.1", "h2"])
def rest(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with mesh.rest(http2=request.param == "h2") as client:
        yield client


BODIES = [
    pytest.param(
        FORM, b"subject=%E4%B8%80%E5%A3%B6%e8%8c%b6&sign=a%2Bb%2f%3D%3D&fund_bill_list=%5B%7B%7D%5D", id="form"
    ),
    pytest.param(FORM, b"b=1&a= 2 &&c=x+y%20z&a=again&=nothing&half=%z&end=%", id="form that no encoder wrote"),
    pytest.param(FORM, "subject=一壶茶".encode("gb18030"), id="form in gb18030"),
    pytest.param(JSON, b'{ "id" :"7",\r\n\t"amount":{"total":1.0e2},"id":"8","\\u4e00":"\xe4\xb8\x80"}\n\n', id="JSON"),
    pytest.param(JSON, b'\xef\xbb\xbf{"unclosed": ', id="JSON that is none"),
    pytest.param(JSON, bytes(range(256)) * 2, id="every byte"),
    pytest.param(JSON, b"", id="empty JSON"),
    pytest.param(FORM, b"", id="empty form"),
    pytest.param("text/xml", b"<xml><a><![CDATA[b]]></a></xml>", id="another type"),
    pytest.param(None, b"a=b", id="no type"),
]


@pytest.mark.parametrize(("content_type", "body"), BODIES)
def test_bytes_reach_the_service_as_they_came(
    mesh: Mesh, rest: httpx.Client, content_type: str | None, body: bytes
) -> None:
    """Nobody on the way reads the body as the JSON or the form that it says it is: it is what is signed."""
    answer = rest.post(ALIPAY, content=body, headers={"content-type": content_type} if content_type else {})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "text/plain", b"success")
    (callback,) = mesh.seen.callbacks
    assert callback.provider == "alipay"
    assert callback.body == HttpBody(content_type=content_type or "", data=body)


def test_bytes_reach_the_service_when_they_come_in_parts(mesh: Mesh, rest: httpx.Client) -> None:
    """A body without a length is put together again."""
    parts = [b"a=%E4%B8", b"", b"%80&b=", b"c" * 70_000]
    assert rest.post(ALIPAY, content=iter(parts), headers={"content-type": FORM}).status_code == 200
    assert mesh.seen.callbacks[0].body.data == b"".join(parts)


def test_headers_of_wechat_arrive_as_metadata(mesh: Mesh, rest: httpx.Client) -> None:
    """The four that make the signature, values untouched, names in lower case."""
    sent = {
        "Wechatpay-Signature": base64.b64encode(bytes(range(256))).decode(),
        "Wechatpay-Serial": "PUB_KEY_ID_0114232134912410000000000000",
        "Wechatpay-Timestamp": "1554209980",
        "Wechatpay-Nonce": "c5ac7061fccab6bf3e254dcf98995b8c",
        "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
    }
    assert rest.post(WECHAT, content=b"{}", headers={"content-type": JSON, **sent}).status_code == 200
    assert mesh.seen.callbacks[0].provider == "wechat"
    assert {name: mesh.seen.last[name.lower()] for name in sent} == sent


def test_signature_of_the_card_network_verifies_behind_the_edge(mesh: Mesh, rest: httpx.Client) -> None:
    """What the network signed is checked by the adapter's own code with what the service was given, and nothing else fits."""
    secrets = Secrets("M1", "key_1", b"q" * 32, b"a" * 32)
    body, seconds, nonce = b'{"id": "evt_1",\n "type":"charge.captured", "data": {}}', "1800000000", "0123456789abcdef"
    signed = signature(secrets.answer_secret, f"{seconds}\n{nonce}\n".encode() + body + b"\n")
    sent = {"Card-Key": "key_1", "Card-Timestamp": seconds, "Card-Nonce": nonce, "Card-Signature": signed}
    assert rest.post(CARDS, content=body, headers={"content-type": JSON, **sent}).status_code == 200
    (callback,) = mesh.seen.callbacks
    assert callback.provider == "bank_card"
    secrets.check_callback(mesh.seen.last, callback.body.data, 1_800_000_000_000)


@pytest.mark.parametrize(("content_type", "body"), [("text/plain", b"success"), (JSON, b'{"code": "SUCCESS"}')])
def test_answer_is_in_the_provider_s_own_words(mesh: Mesh, rest: httpx.Client, content_type: str, body: bytes) -> None:
    """Status 200, the content type and the bytes that the service gave, without JSON around them."""
    mesh.seen.answer = HttpBody(content_type=content_type, data=body)
    answer = rest.post(ALIPAY, content=b"a=b", headers={"content-type": FORM})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, content_type, body)
    assert answer.headers["content-length"] == str(len(body))


def test_refusal_is_the_status_as_json(mesh: Mesh, rest: httpx.Client) -> None:
    """What is not taken is answered as everywhere: no word of the provider's is in it, so it is sent again."""

    def refuse(context: grpc.ServicerContext) -> None:
        status = status_of(DomainError("CALLBACK_REFUSED", provider="alipay"))
        context.abort_with_status(rpc_status.to_status(status))

    mesh.seen.behave = refuse
    answer = rest.post(ALIPAY, content=b"a=b", headers={"content-type": FORM})
    reason = contract().reasons["CALLBACK_REFUSED"]
    assert (answer.status_code, answer.headers["content-type"]) == (401, JSON)
    assert answer.json()["code"] == reason.code_number
    (info,) = answer.json()["details"]
    assert (info["reason"], info["metadata"]) == ("CALLBACK_REFUSED", {"provider": "alipay"})
    assert b"success" not in answer.content
    assert len(mesh.seen.calls) == 1, "nobody on the way sends it again"


def test_503_when_the_service_is_down(mesh: Mesh, rest: httpx.Client) -> None:
    """A refusal of the mesh's own has the same shape."""
    mesh.stop("payment-1")
    answer = rest.post(ALIPAY, content=b"a=b", headers={"content-type": FORM})
    mesh.serve("payment-1")
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (503, "UNAVAILABLE")


def test_413_when_the_body_is_over_1_mib(mesh: Mesh, rest: httpx.Client) -> None:
    """A callback is as bounded as any other request: exactly the limit passes whole, a byte more reaches nobody."""
    body = b"x" * BODY_BYTES_MAX
    assert rest.post(ALIPAY, content=body, headers={"content-type": FORM}).status_code == 200
    assert mesh.seen.callbacks[0].body.data == body
    answer = rest.post(ALIPAY, content=body + b"x", headers={"content-type": FORM})
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (413, "REQUEST_TOO_LARGE")
    assert len(mesh.seen.calls) == 1


@pytest.mark.parametrize("word", ["alipay", "refund", "capture", "void", "close"])
def test_callback_is_never_a_payment_called_callbacks(mesh: Mesh, rest: httpx.Client, word: str) -> None:
    """`callbacks` is no payment's id, even where the next word is one that follows an id."""
    assert (
        rest.post(f"/api/payments/callbacks/{word}", content=b"{}", headers={"content-type": JSON}).status_code == 200
    )
    assert [callback.provider for callback in mesh.seen.callbacks] == [word]


NO_ROUTE, WRONG_VERB = (404, "ROUTE_NOT_FOUND"), (405, "VERB_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("verb", "path", "said"),
    [
        ("GET", ALIPAY, WRONG_VERB),
        ("PUT", ALIPAY, WRONG_VERB),
        ("DELETE", ALIPAY, WRONG_VERB),
        ("POST", "/api/payments/callbacks", WRONG_VERB),  # the path of a payment, which is read
        ("POST", f"{ALIPAY}/refund", NO_ROUTE),
        ("POST", "/api/payments/7/callbacks/alipay", NO_ROUTE),
    ],
)
def test_refused_when_it_is_no_callback(
    mesh: Mesh, rest: httpx.Client, verb: str, path: str, said: tuple[int, str]
) -> None:
    """Another verb, no provider, something after it: no route, and nothing reaches the service."""
    answer = rest.request(verb, path, content=b"{}" if verb == "POST" else None)
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == said
    assert mesh.seen.calls == []


def test_query_cannot_replace_the_body(mesh: Mesh, rest: httpx.Client) -> None:
    """A field of the body in the query changes nothing of the bytes; a parameter that is none is refused."""
    assert rest.post(f"{ALIPAY}?body.data=ZXZpbA==", content=b"a=b", headers={"content-type": FORM}).status_code == 200
    assert mesh.seen.callbacks[0].body == HttpBody(content_type=FORM, data=b"a=b")
    answer = rest.post(f"{ALIPAY}?sign=1", content=b"a=b", headers={"content-type": FORM})
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (400, "BODY_MALFORMED")


def test_token_is_neither_needed_nor_a_hindrance(mesh: Mesh, rest: httpx.Client) -> None:
    """A callback is public: a stale token beside it is not looked at, and makes nobody of the caller."""
    assert rest.post(ALIPAY, content=b"a=b", headers={"authorization": "Bearer x.y.z"}).status_code == 200
    assert "x-paymesh-sub" not in mesh.seen.last


@contextmanager
def _limited(folder: Path, requests: int) -> Iterator[Mesh]:
    """A mesh that takes a few callbacks a minute."""
    path = "/paymesh.payment.v1.PaymentService/HandleCallback"
    method = contract().methods[path]
    assert method.rate_limit
    narrow = replace(method, rate_limit=replace(method.rate_limit, requests=requests))
    policy = replace(contract(), methods={**contract().methods, path: narrow})
    with Mesh(folder, contract=policy, instances=("payment-1",)).running() as mesh:
        yield mesh


def test_429_when_an_address_calls_too_often(tmp_path: Path) -> None:
    """The limit counts addresses, whoever the provider is said to be, and says when to come back."""
    with _limited(tmp_path, 3) as mesh, mesh.rest() as rest:
        answers = [rest.post(path, content=b"{}") for path in (ALIPAY, WECHAT, CARDS, ALIPAY)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].json()["details"][0]["reason"] == "RATE_LIMITED"
        assert answers[-1].headers["retry-after"] == "20"
        assert len(mesh.seen.callbacks) == 3


def test_504_when_the_service_does_not_answer(mesh: Mesh) -> None:
    """After the contract's five seconds the provider is told so, and sends it again."""
    mesh.seen.behave = lambda _: time.sleep(6)
    began = time.monotonic()
    with mesh.rest() as rest:
        answer = rest.post(ALIPAY, content=b"a=b", headers={"content-type": FORM})
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert 4.9 < time.monotonic() - began < 6

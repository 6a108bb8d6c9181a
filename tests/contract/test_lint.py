"""Every rule of the linter refuses the fault that it is for, alone, and says what to write."""

from __future__ import annotations

import pytest

from services.contract.lint import RULES, complaints
from tests.contract.planted import compiled, sound, with_fault

RETRY = "retry: {\n        attempts: 2"
READS = 'mode: IDEMPOTENCY_MODE_NONE\n        reason: "It reads."'
UNHANDLED = "on: RETRY_ON_CONNECT_FAILURE on: RETRY_ON_REFUSED_STREAM"
LIMIT = "rate_limit: {\n        requests: 600\n        per: {seconds: 60}\n        by: RATE_LIMIT_BY_IP\n      }\n"
CLASS = "(paymesh.mesh.v1.data_class) ="
SCOPES = 'auth: AUTH_SCOPES\n      scopes: "things:write"'

# rule, what stands in the sound contract, what is planted instead, what the complaint says
FAULTS = [
    ("auth", 'auth: AUTH_USER\n      callers: "edge"\n      owner', 'callers: "edge"\n owner', "write `auth: AUTH_USER`"),
    ("auth", "{\n    option (paymesh.mesh.v1.method) = {\n      auth: AUTH_INTERNAL", ('{\n    option (google.api.http) = '
     '{get: "/api/stock"};\n    option (paymesh.mesh.v1.method) = {\n      auth: AUTH_INTERNAL'), "write no `google.api.http`"),
    ("scopes", SCOPES, "auth: AUTH_SCOPES", 'write `scopes: "shop:read"`'),
    ("scopes", '"things:write"', '"everything"', 'write it as "shop:read"'),
    ("scopes", "auth: AUTH_USER", 'auth: AUTH_USER scopes: "things:write"', "write `auth: AUTH_SCOPES`"),
    ("callers", 'scopes: "things:write"\n      callers: "edge"', 'scopes: "things:write"', "write which of edge, till"),
    ("callers", "auth: AUTH_PUBLIC\n", 'auth: AUTH_PUBLIC\n callers: "bank"\n', 'write `callers: "bank"`'),
    ("callers", 'auth: AUTH_INTERNAL\n      callers: "till"', 'auth: AUTH_INTERNAL\n callers: "till"\n callers: "edge"',
     "write the services that call it"),
    ("callers", 'scopes: "things:write"\n      callers: "edge"', 'scopes: "things:write"\n callers: "till"',
     'write `callers: "edge"`'),
    ("callers_of_services", 'name: "shop"', 'name: "shop"\n callers: "moon"', "no service; write one of edge, shop, till"),
    ("callers_of_services", 'name: "shop"', 'name: "shop"\n callers: "shop"', "write it at the method it calls"),
    ("on_behalf", '    on_behalf: "till"\n', "", 'write `on_behalf: "till"`'),
    ("on_behalf", "port: 50102", 'on_behalf: "shop"\n port: 50102', "write no `on_behalf`"),
    ("owner", "      owner: {resource: true}\n", "", "or `owner: {resource: true}`"),
    ("owner", 'field: "user_id"', "", 'write `owner: {field: "user_id"}`'),
    ("owner", 'field: "user_id"', 'field: "page_token"', "write the int64 field"),
    ("owner", SCOPES, f"{SCOPES}\n owner: {{resource: true}}", "write `auth: AUTH_USER`, or no `owner`"),
    ("scopes_in_comments", '\n        lifted_by: "things:read"', "", 'write `lifted_by: "things:read"`'),
    ("scopes_in_comments", ": one's own, or any with the scope things:read", "", "write in its comment"),
    ("api_key", "auth: AUTH_PUBLIC\n", "auth: AUTH_PUBLIC\n api_key: true\n", "or no `api_key`"),
    ("api_key", "by: RATE_LIMIT_BY_USER", "by: RATE_LIMIT_BY_API_KEY", "write `api_key: true`, or `by: RATE_LIMIT_BY_USER`"),
    ("unary", "rpc GetStock(GetStockRequest) returns (", "rpc GetStock(GetStockRequest) returns (stream ",
     "write it with one request and one answer"),
    ("timeout", "      timeout: {seconds: 5}\n", "", "ends after 0 ms; write `timeout: {seconds: 2}`"),
    ("timeout", "timeout: {seconds: 5}", "timeout: {seconds: 11}", "at most 10 s"),
    ("retry", "      retry: {}\n", "", "or `retry: {}` for nothing"),
    ("retry", RETRY, "retry: {", "repeats 0 times on 3 failures; write both"),
    ("retry", f"{RETRY}\n        on: RETRY_ON_CONNECT_FAILURE", RETRY, "write `on: RETRY_ON_CONNECT_FAILURE` too"),
    ("retry", "retry: {}", f"retry: {{attempts: 1 {UNHANDLED} on: RETRY_ON_UNAVAILABLE}}",
     "may have been done; take `on: RETRY_ON_UNAVAILABLE` out, or write why it is safe"),
    ("retry", "    option idempotency_level = IDEMPOTENT;\n", "", "`option idempotency_level = IDEMPOTENT`"),
    ("retry", "\n        on: RETRY_ON_UNAVAILABLE", "", "write `on: RETRY_ON_UNAVAILABLE`"),
    ("idempotency", f"idempotency: {{\n        {READS}\n      }}", "", "write `idempotency: {mode: IDEMPOTENCY_MODE_REQUIRED}`"),
    ("idempotency", '\n        reason: "It reads."', "", 'write `reason: "It reads."`'),
    ("idempotency", "{mode: IDEMPOTENCY_MODE_REQUIRED}", '{mode: IDEMPOTENCY_MODE_REQUIRED reason: "Key."}', "write no other"),
    ("idempotency", "string request_id = 5", "string requested = 5", "write `string request_id`"),
    ("idempotency", "message GetStockRequest {", ("message GetStockRequest {\n // A key.\n string request_id = 2 "
     "[(buf.validate.field).string.max_len = 64];"), "write `mode: IDEMPOTENCY_MODE_OPTIONAL`"),
    ("idempotency", " A repeat with the same key gets the first answer.", "", "write in its comment what a repeat gets"),
    ("idempotency_level", '{get: "/api/till"};', '{get: "/api/till"}; option idempotency_level = NO_SIDE_EFFECTS;',
     "write no `idempotency_level`"),
    ("rate_limit", LIMIT, "", "write `rate_limit: {requests: 600 per: {seconds: 60} by: RATE_LIMIT_BY_IP}`"),
    ("rate_limit", "        requests: 600\n", "", "write all of it"),
    ("rate_limit", "by: RATE_LIMIT_BY_IP", "by: RATE_LIMIT_BY_USER", "write `by: RATE_LIMIT_BY_IP`"),
    ("rate_limit", "timeout: {nanos: 250000000}", ("timeout: {seconds: 1} rate_limit: {requests: 1 per: {seconds: 1} by: "
     "RATE_LIMIT_BY_IP}"), "write no `rate_limit`"),
    ("audit", "\n      audit: true", "", "write `audit: true`"),
    ("comments", "  // Counts what is left.\n", "", "write what success means"),
    ("comments", "Fails with PAGE_TOKEN_INVALID", "Fails with PAGE_TOKEN_LOST", "write one of ErrorReason"),
    ("business", "    business: true\n", "", "write `business: true`"),
    ("business", 'metadata: "thing_id"\n    business: true', ('metadata: "thing_id"\n    business: true\n  }];\n // Said.\n'
     ' ERROR_REASON_ODD = 102 [(paymesh.mesh.v1.reason) = {code: "ABORTED" en: "Odd." zh: "奇。" business: true'),
     "write no `business: true`"),
    ("names", 'name: "shop"', 'name: "bank"', 'write `name: "shop"`'),
    ("names", "// Counts money.\n", "", "write what it is for"),
    ("ports", "port: 50102", "port: 50101", "write one of its own: `port: 50102`"),
    ("ports", "    port: 50102\n", "", "write one of its own: `port: 50102`"),
    ("balancing", "    load_balancing: LOAD_BALANCING_ROUND_ROBIN\n", "", "write `load_balancing: LOAD_BALANCING_LEAST_REQUEST`"),
    ("circuit_breaker", "      pending_max: 512\n", "", "write `circuit_breaker: {connections_max: 256"),
    ("circuit_breaker", "      retry_budget_percent: 20\n", "", "write `retry_budget_percent: 20`"),
    ("outlier_detection", "      consecutive_failures: 5\n", "", "write `outlier_detection: {consecutive_failures: 5"),
    ("outlier_detection", "ejection_percent_max: 50", "ejection_percent_max: 101", "ejection_percent_max: 50}`"),
    ("data_classes", f",\n    {CLASS} DATA_CLASS_PAN", "", f"write `{CLASS} DATA_CLASS_PAN`"),
    ("data_classes", f"string email = 3 [{CLASS} DATA_CLASS_PII]", "string email = 3", "DATA_CLASS_PII`"),
    ("data_classes", "string kind = 1", "string cvv = 1", "DATA_CLASS_CVV`"),
    ("data_classes", "string kind = 1", "string password = 1", "DATA_CLASS_SECRET`"),
    ("data_classes", "string kind = 1", "string api_token = 1", "DATA_CLASS_SECRET`"),
    ("data_classes", "string kind = 1", "string mobile_phone = 1", "DATA_CLASS_PII`"),
    ("data_classes", f"string moniker = 2 [{CLASS} DATA_CLASS_PII]", "string moniker = 2", "DATA_CLASS_PII`"),
    ("raw_bodies", f"body = 2 [{CLASS} DATA_CLASS_PII]", "body = 2", "DATA_CLASS_PII`"),
    ("lists", "lines = 1 [(buf.validate.field).repeated.max_items = 100]", "lines = 1", "write a `List…` with pages"),
    ("lists", "message GetStockRequest {", ("message GetStockRequest {\n // Some.\n int32 page_size = 1 "
     "[(buf.validate.field).int32.lte = 100];"), "write its name as `List…`"),
    ("lists", "(buf.validate.field).int32.lte = 100", "(buf.validate.field).int32.lte = 5000", "write `int32 page_size`"),
    ("lists", "1 to 100; 0 means 20", "a few", "write the limit in its comment"),
    ("lists", "string page_token = 3", "string page_mark = 3", "write `string page_token`"),
    ("lists", "string next_page_token = 2", "string next_page_mark = 2", "write `string next_page_token`"),
    ("lists", "// Gets the next page.", "// Others.\n repeated Thing others = 3;\n // Gets the next page.", "write one list"),
    ("requests", "// Which one.\n", "", "write what it is"),
    ("requests", "// Whose.", ("// Some.\n repeated int64 some = 4 [(buf.validate.field).repeated.items.int64.gt = 0];\n"
     "// Whose."), "write `(buf.validate.field).repeated.max_items = 100`"),
    ("requests", "int64 id = 1 [(buf.validate.field).int64.gt = 0]", "int64 id = 1", "write with `(buf.validate.field)`"),
    ("requests", "supplier = 1 [(buf.validate.field).string.max_len", "supplier = 1 [(buf.validate.field).string.min_len",
     "write `(buf.validate.field).string.max_len = 200`"),
    ("requests", ",\n    (buf.validate.field).enum.not_in = 0", "", "`.enum.not_in = 0`"),
    ("routes", "/api/till", "/api/users/{user}/things", "write a path of its own"),
    ("routes", "/api/things/{id}", "/api/things/{number}", "write a field that is there"),
    ("routes", '{\n      post: "/api/things"\n      body: "*"\n    }', '{post: "/api/things"}', 'write `body: "*"`'),
    ("routes", 'body: "body"\n      response_body: "body"', 'body: "supplier"', 'write `body: "*"`, unless it is a raw one'),
    ("routes", "/api/suppliers/{supplier}", "/api/suppliers", "write them in the path"),
    ("routes", "/api/things/{id}", "/api/things", "write it in the path"),
    ("routes", '{get: "/api/till"}', '{get: "/api/till" response_body: "open"}', "write a field that is a google.api.HttpBody"),
    ("events", "// A thing was sold.", ('// Given.\nmessage ThingGiven {\n option (paymesh.mesh.v1.event) = {topic: "till.given" '
     'key: "id" version: "id" retention: {seconds: 1}};\n int64 id = 1;\n google.protobuf.Timestamp event_time = 2;\n}\n'
     "// A thing was sold."), 'write one of its own: `topic: "shop.…"`'),
    ("events", '    key: "thing_id"\n', "", "write the int64 or string field"),
    ("events", '    version: "version"\n', "", 'write `version: "version"`'),
    ("events", "Timestamp event_time", "Timestamp time", "write `google.protobuf.Timestamp event_time`"),
    ("events", "    retention: {seconds: 604800}\n", "", "write `retention: {seconds: 604800}`"),
    ("events", 'consumers: "till"', 'consumers: "bank"', "which is no service; write one of shop, till"),
    ("events", "// A thing was sold.\n", "", "write what happened"),
    ("published", "// A thing was sold.", ("// Hm.\nmessage Hm {\n // At.\n google.protobuf.Timestamp event_time = 1;\n}\n"
     "// A thing was sold."), "write `option (paymesh.mesh.v1.event)`"),
    ("states", "      initial: true\n", "", "write `initial: true`"),
    ("states", 'STATUS_REVIEW = 3 [(paymesh.mesh.v1.state) = {next: "STATUS_SOLD"}]', "STATUS_REVIEW = 3", "a state without"),
    ("states", 'next: "STATUS_SOLD"\n', 'next: "STATUS_GONE"\n', "no state of the enum; write one that is"),
    ("states", "STATUS_REVIEW = 3", 'STATUS_LOST = 4 [(paymesh.mesh.v1.state) = {next: "STATUS_REVIEW"}];\n STATUS_REVIEW = 3',
     'never reached; write `next: "STATUS_LOST"`'),
    ("states_that_tell", 'event: "shop.thing.sold"', 'event: "shop.thing.bought"', "write one that is there"),
    ("states_that_tell", '\n      event: "shop.thing.sold"', "", 'write `event: "shop.thing.sold"`'),
    ("reviews", 'next: "STATUS_REVIEW"\n      event', "event", 'write `next: "STATUS_REVIEW"`'),
    ("reasons", 'code: "FAILED_PRECONDITION"', 'code: "SOLD"', 'write a google.rpc.Code: `code: "FAILED_PRECONDITION"`'),
    ("reasons", "// Somebody else was faster.\n", "", "write when it is said"),
    ("reasons", '    en: "The page token is not ours. Begin with the first page."\n', "", "write `en:`"),
    ("reasons", '    zh: "分页标记无效。"\n', "", "write `zh:`"),
    ("reasons", '    metadata: "thing_id"\n', "", 'write `metadata: "thing_id"`'),
]  # fmt: skip


def test_sound_contract_has_no_complaint() -> None:
    """What the faults are planted into is refused by no rule, so each refusal is of the fault."""
    assert list(map(str, complaints(compiled(sound())))) == []


@pytest.mark.parametrize(("rule", "there", "instead", "said"), FAULTS, ids=[f"{f[0]}-{f[3]}" for f in FAULTS])
def test_fault_is_refused_by_its_rule(rule: str, there: str, instead: str, said: str) -> None:
    """The rule complains, names the element and its line, and says what to write; no other rule minds."""
    found = list(complaints(compiled(with_fault(there, instead))))
    assert {complaint.rule for complaint in found} == {rule}, [*map(str, found)]
    assert any(said in complaint.text for complaint in found), [*map(str, found)]
    for complaint in found:
        assert complaint.line > 0
        assert "write" in complaint.text
        assert complaint.element.startswith(f"paymesh.{complaint.file.split('/')[1]}.v1.")


def test_every_rule_has_a_fault() -> None:
    """A rule that nobody has seen refuse anything may refuse nothing."""
    assert {fault[0] for fault in FAULTS} == set(RULES)

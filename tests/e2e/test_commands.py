"""The commands on real meshes: what they say, how they end, and that nothing is left behind."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.e2e.clients import PASSWORD, People, Rest, Shop
from tests.e2e.mesh import Mesh, paymesh, until
from tests.e2e.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE_PSS_MAX = 1.2 * (1 << 30)
"""Bytes of all processes of an idle mesh together, each shared page counted once."""


@pytest.fixture
def own() -> Iterator[Mesh]:
    """A mesh that a test may start and end as it likes."""
    mesh = Mesh()
    yield mesh
    if mesh.process and mesh.process.poll() is None:
        mesh.stop(signal.SIGKILL)
    mesh.remove()


def test_status_of_a_mesh_that_serves(mesh: Mesh, people: People) -> None:
    """0, with every service and its instances; as JSON the record of the ready file without secrets, with health."""
    assert people.operator.token  # it has served
    said = paymesh("status", "--data", str(mesh.data))
    assert said.returncode == 0, said.stdout + said.stderr
    for service, instances in mesh.record["services"].items():
        assert f"{service} " in said.stdout
        assert str(instances[0]["pid"]) in said.stdout
    told = json.loads(paymesh("status", "--data", str(mesh.data), "--json").stdout)
    assert told["health"]["status"] == "STATUS_SERVING"
    assert told["services"] == mesh.record["services"]
    assert told.keys() == mesh.record.keys() - {"admin"} | {"health"}


def test_verify_of_a_mesh_that_runs(mesh: Mesh, people: People, shop: Shop) -> None:
    """0 while it runs, and each invariant says how many rows it looked at."""
    person = people.somebody()
    shop.stock("verified")
    shop.top_up(person, 1_000)
    shop.pay(person, shop.order(person, "verified"))
    code, said = mesh.verify()
    assert (code, said["faults"]) == (0, [])
    assert {each["invariant"] for each in said["findings"]} >= {
        "I1",
        "I2",
        "I3",
        "I4",
        "I5",
        "I6",
        "I7",
        "I8",
        "I9",
        "I10",
        "I12",
    }
    looked = {each["what"] for each in said["findings"] if each["examined"]}
    assert looked >= {"ledger transactions", "account balances", "payments and ledger agree", "payments at rest"}


def test_second_mesh_in_the_same_folder_is_refused(mesh: Mesh) -> None:
    """3, naming who has the folder and how to end it; the first one is not disturbed."""
    before = mesh.record
    said = paymesh("up", "--data", str(mesh.data))
    assert said.returncode == 3
    assert f"pid {before['pid']}" in said.stderr
    assert "paymesh down" in said.stderr
    assert mesh.record == before


def test_port_that_is_taken_is_named(own: Mesh) -> None:
    """3 at once: which port, who has it, and the setting that changes it; as JSON for programs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = str(taken.getsockname()[1])
        said = paymesh("up", "--data", str(own.data), settings={"PAYMESH_REST_PORT": port})
        assert said.returncode == 3
        assert f"Port {port}" in said.stderr
        assert "PAYMESH_REST_PORT" in said.stderr
        assert f"pid {psutil.Process().pid}" in said.stderr
        said = paymesh("up", "--json", "--data", str(own.data), settings={"PAYMESH_GRPC_PORT": port})
        (fault,) = json.loads(said.stdout)["error"]["faults"]
        assert "PAYMESH_GRPC_PORT" in fault
    assert not own.data.exists()


def test_bad_settings_are_all_said_at_once(own: Mesh) -> None:
    """3, every fault of the supervisor's and the services' settings, and nothing was started or made."""
    bad = {
        "PAYMESH_REST_PORT": "http",
        "PAYMESH_LOG_LEVEL": "loud",
        "PAYMESH_PAYMENT_INSTANCES": "99",
        "PAYMESH_CONFIG_INSTANCES": "2",
        "PAYMESH_KAFKA": "nowhere",
        "PAYMESH_ORDER_DATABASE_URL": "oracle://x",
        "PAYMESH_ACCESS_TOKEN_S": "1",
        "PAYMESH_TRACE_RATIO": "7",
    }
    said = paymesh("up", "--data", str(own.data), settings=bad)
    assert said.returncode == 3
    for name in bad:
        assert name in said.stderr, said.stderr
    assert not own.data.exists()


def test_path_that_is_too_long_for_sockets_is_refused(own: Mesh) -> None:
    """3 with the limit, instead of a bind error of each service."""
    said = paymesh("up", "--data", str(own.top / ("x" * 120)))
    assert (said.returncode, "107 bytes" in said.stderr) == (3, True)


def test_commands_when_no_mesh_runs(own: Mesh) -> None:
    """4: status, down and verify find nothing, and say where they looked."""
    for command in ("status", "down", "verify"):
        said = paymesh(command, "--data", str(own.data))
        assert (said.returncode, str(own.data) in said.stderr) == (4, True), command


@pytest.mark.timeout(400)
def test_life_of_a_mesh(own: Mesh) -> None:
    """Up within its memory; ended by `down`, by SIGTERM and by kill -9 with nothing left; what was paid is kept."""
    own.start()
    used = sum(each.memory_full_info().pss for each in own.family())
    assert used <= IDLE_PSS_MAX, f"{used / (1 << 20):.0f} MiB"
    name, first = _buy(own)

    said = paymesh("down", "--data", str(own.data))
    assert said.returncode == 0, said.stderr
    assert own.process
    assert own.process.wait(5) == 0
    assert not own.ready.exists()
    _gone(first)
    assert paymesh("status", "--data", str(own.data)).returncode == 4

    own.start()
    rest, people = _clients(own)
    person = people.logged_in(name, PASSWORD)
    assert Shop(rest, people.operator).balance(person) == 700
    (payment,) = rest.call("ListPayments", {}, token=person.token)["payments"]
    assert payment["status"] == "STATUS_SUCCESS"
    until(lambda: own.verify("--settled")[0] == 0, 60)
    assert own.stop(signal.SIGTERM) == (0, [])

    own.start()
    assert own.stop(signal.SIGKILL) == (-signal.SIGKILL, [])


def _clients(mesh: Mesh) -> tuple[Rest, People]:
    rest = Rest(mesh.record["rest"], Path(mesh.record["ca"]))
    return rest, People(rest, mesh.record["admin"])


def _buy(mesh: Mesh) -> tuple[str, list[psutil.Process]]:
    """Pay something; returns the payer's name and the processes that were there."""
    rest, people = _clients(mesh)
    shop, person = Shop(rest, people.operator), people.somebody()
    shop.stock("kept", price=300)
    shop.top_up(person, 1_000)
    order = shop.order(person, "kept")
    assert shop.pay(person, order)["status"] == "STATUS_SUCCESS"
    rest.close()
    return person.username, mesh.family()


def _gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=2)
    assert alive == []


@pytest.mark.timeout(300)
def test_dead_envoy_is_started_again(mesh: Mesh, people: People, shop: Shop) -> None:
    """A sidecar killed with -9: the supervisor brings it back, config tells it everything, calls go through again."""
    person = people.somebody()
    (envoy,) = mesh.record["envoys"]["order"]
    psutil.Process(envoy["pid"]).kill()

    def answers() -> bool:
        try:
            return bool(shop.plane.call("ListUserOrders", {"user_id": person.id}, token=person.token)["orders"] == [])
        except Refused as refused:
            if refused.refusal.reason != "UNAVAILABLE":
                raise
            return False

    until(lambda: mesh.record["envoys"]["order"][0]["pid"] not in {0, envoy["pid"]}, 10)
    until(answers, 30)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["balance", "alipay", "wechat", "bank_card"])
def test_demo_does_the_main_job(method: str) -> None:
    """0: a person registers, pays, is told and refunded, the books hold, and no process or folder stays."""
    before = {each.pid for each in psutil.process_iter()}
    said = paymesh("demo", "--method", method, "--json", seconds=240)
    assert said.returncode == 0, said.stdout + said.stderr
    steps: list[dict[str, Any]] = [json.loads(line) for line in said.stdout.splitlines()]
    assert all(each["ok"] for each in steps)
    titles = [each["step"] for each in steps]
    wanted = (f"person pays by {method}", "e-mail arrives", "whole payment is refunded", "the books are checked")
    assert [title for title in titles if title in wanted] == list(wanted)
    assert titles[-1] == "everything is gone again"
    mine = [
        each for each in psutil.process_iter(["cmdline"]) if each.pid not in before and "paymesh-" in str(each.info)
    ]
    assert mine == []

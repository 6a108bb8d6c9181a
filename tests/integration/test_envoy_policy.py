"""What an edge does with a service that fails or is slow: retries and their budget, breakers, outliers, limits.

What is promised stands here in numbers and rules of its own, not as the contract has it: a policy that is left out of a
contract is missed by one of these (`python -m tests.contract.mutation --shown`). Beside the edge nothing is an Envoy; the
instances of each service are servers with its certificate.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import descriptor_pool

from services.contract.load import contract
from services.contract.model import Auth
from services.contract.options import repeatable
from services.kernel.errors import DomainError
from services.mesh.node import EDGE
from tests.e2e.refusals import of_grpc
from tests.fakes.peer import FakePeer
from tests.fakes.rooms import FakeRooms, message_of
from tests.integration.edge_alone import LEAVING, EdgeAlone
from tests.integration.planes import Native, Who, right
from tests.integration.requests import valid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

    from services.contract.model import Method
    from tests.fakes.peer import Failure

AT_EDGE = [m for m in contract().methods.values() if EDGE in m.callers and m.auth is not Auth.INTERNAL]
METHODS = [pytest.param(method, id=method.full_name) for method in AT_EDGE]
GET_PAYMENT = next(m for m in AT_EDGE if m.name == "GetPayment")
CALLBACK = next(m for m in AT_EDGE if m.name == "HandleCallback")
"""The one that is never repeated."""
NEVER_REPEATED = {"HandleCallback", "ImportBill", "ExportLedger"}
"""A provider repeats its own callbacks, and what reads a whole bill or day takes too long to be done twice for one call."""
KEY_HEADER, KEY = "idempotency-key", "a-key-of-8"
_SUBJECTS = count(5000)
"""Users that no limit has counted yet."""


def _somebody(method: Method) -> Who:
    return Who(str(next(_SUBJECTS)), right(method, valid(method)).scopes)


# -- Retries ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Native, dict[str, FakePeer]]]:
    """The edge, and one instance of each service that fails when it is told to."""
    services = tuple(contract().services)
    made = EdgeAlone(tmp_path_factory.mktemp("m"), instances=tuple(f"{name}-1" for name in services))
    with ExitStack() as stack:
        peers = {name: stack.enter_context(FakePeer(made.at(f"{name}-1"), made.tls(name))) for name in services}
        mesh = stack.enter_context(made.running())
        yield Native("gRPC", stack.enter_context(mesh.grpc_edge()), mesh, inside=False), peers


def _repeatable(method: Method) -> bool:
    """Whether a call that may have been handled harms nobody when it is made again."""
    service, _, name = method.full_name.rpartition(".")
    return repeatable(descriptor_pool.Default().FindServiceByName(service).methods_by_name[name])


@pytest.mark.parametrize("method", METHODS)
def test_call_is_repeated_where_that_is_safe(failing: tuple[Native, dict[str, FakePeer]], method: Method) -> None:
    """What was not handled is made again, what may have been only where a repeat harms nobody; and never more than twice."""
    edge, peers = failing
    peer, request = peers[method.service], valid(method)
    never = method.name in NEVER_REPEATED
    failures: tuple[Failure, ...] = ("no connection", "stream refused", "unavailable")
    for failure in failures:
        peer.fail(failure, 1)
        time.sleep(0.05)  # until the edge has noticed that its connection is gone
        healed = edge.call(method, request, _somebody(method), KEY).reason == "OK"
        assert healed is (not never and (failure != "unavailable" or _repeatable(method))), failure
        peer.fail(failure, 10)
        time.sleep(0.05)
        assert edge.call(method, request, _somebody(method), KEY).reason == "UNAVAILABLE"
        assert peer.tried <= 3, failure


# -- Circuit breakers -------------------------------------------------------------------------------------------------

MORE = 6
"""Calls beyond a breaker's limit."""
BREAKERS = [pytest.param(name, id=name) for name in contract().services]


@contextmanager
def _rooms(made: EdgeAlone) -> Iterator[FakeRooms]:
    """Run the edge before empty servers with the certificates of their services."""
    with FakeRooms(admit_all=True) as rooms:
        for instance in made.sidecars:
            _serve(made, rooms, instance)
        with made.running():
            yield rooms


def _serve(mesh: EdgeAlone, rooms: FakeRooms, instance: str, *, streams_max: int = 2000) -> None:
    """Put an empty server where the edge looks for an instance."""
    node = mesh.sidecars[instance]
    proof = mesh.credentials(node.service)
    rooms.serve(instance, contract().services[node.service], node.inbound, credentials=proof, streams_max=streams_max)


class Crowd:
    """Many calls of one method at once, over as many connections as the edge asks for."""

    def __init__(self, mesh: EdgeAlone, method: Method, calls: int, *, every_s: float = 0.0) -> None:
        """Make the calls, each by another user, one after the other with so long between them."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        credentials = grpc.ssl_channel_credentials(mesh.authority.cert_pem.encode())
        self._channels = [grpc.secure_channel(mesh.edge.grpc, credentials, options) for _ in range(calls // 100 + 1)]
        self._calls: list[grpc.Future[Message]] = []
        request, answer, scope = valid(method), message_of(method.response), " ".join(method.scopes)
        metadata = [
            (("authorization", f"Bearer {mesh.token(subject=str(next(_SUBJECTS)), scope=scope)}"), (KEY_HEADER, KEY))
            for _ in range(calls)
        ]
        for channel in self._channels:
            grpc.channel_ready_future(channel).result(20)
        invokes: list[grpc.UnaryUnaryMultiCallable[Message, Message]] = [
            channel.unary_unary(
                method.path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            for channel in self._channels
        ]
        for i, said in enumerate(metadata):
            self._calls.append(invokes[i % len(invokes)].future(request, timeout=20, metadata=said))
            time.sleep(every_s)

    def reasons(self) -> Counter[str]:
        """Wait for all of them."""
        told = Counter[str]()
        for call in self._calls:
            error = call.exception()
            assert error is None or isinstance(error, grpc.RpcError)
            told[of_grpc(error).reason if error else "OK"] += 1
        for channel in self._channels:
            channel.close()
        return told


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EdgeAlone, FakeRooms]]:
    """The edge, and one instance of each service; of one service another that is leaving."""
    made = EdgeAlone(tmp_path_factory.mktemp("m"), instances=(*(f"{name}-1" for name in contract().services), LEAVING))
    with _rooms(made) as rooms:
        yield made, rooms


@contextmanager
def _held(rooms: FakeRooms) -> Iterator[None]:
    """Keep every call that comes until the block ends."""
    let_go = threading.Event()

    async def keep(_: str, __: Method) -> None:
        while not let_go.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.05)

    rooms.behave = keep
    try:
        yield
    finally:
        let_go.set()
        rooms.behave = None


def _settled(number: Callable[[], int], wanted: int, seconds: float = 4.0) -> int:
    """Wait until a number is as high as is wanted, and a moment longer; returns it."""
    until = time.monotonic() + seconds
    while number() < wanted and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.1)
    return number()


@pytest.mark.parametrize("service", BREAKERS)
def test_service_has_1024_calls_of_a_caller_in_hand_and_no_more(
    slow: tuple[EdgeAlone, FakeRooms], service: str
) -> None:
    """Beyond the breaker's limit a call is refused at once as OVERLOADED, and not sent."""
    mesh, rooms = slow
    known = (m for m in AT_EDGE if m.service == service and m.auth is not Auth.PUBLIC)
    method = max(known, key=lambda m: m.timeout_ms)
    heard = refused = 0
    for _ in range(3):  # a machine that is slow may not have made the last call before the first is over
        rooms.heard.clear()
        with _held(rooms):
            crowd = Crowd(mesh, method, 1024 + MORE)
            heard = _settled(lambda: len(rooms.heard), 1024, method.timeout_ms / 1000)
        refused = crowd.reasons()["OVERLOADED"]
        if refused == MORE:
            break
    assert (heard, refused) == (1024, MORE)


def test_512_calls_wait_for_a_connection_and_no_more(slow: tuple[EdgeAlone, FakeRooms]) -> None:
    """While an instance takes no connection, what is beyond the breaker's limit is refused at once."""
    mesh, rooms = slow
    rooms.stop("payment-1")
    host, _, port = mesh.at("payment-1").rpartition(":")
    told = Counter[str]()
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind((host, int(port)))
        silent.listen(1024)  # the kernel takes the connection, and nobody says a word
        for _ in range(5):  # on a slow machine the first is given up, after a second, before the last is made
            told = Crowd(mesh, CALLBACK, 512 + MORE).reasons()
            if told["OVERLOADED"] == MORE:
                break
    _serve(mesh, rooms, "payment-1")
    assert told == {"UNAVAILABLE": 512, "OVERLOADED": MORE}


def test_256_connections_are_made_to_a_service_and_no_more(slow: tuple[EdgeAlone, FakeRooms]) -> None:
    """Where a connection carries one call at a time, the others wait until one is free."""
    mesh, rooms = slow
    rooms.stop("payment-1")
    _serve(mesh, rooms, "payment-1", streams_max=1)
    rooms.heard.clear()
    method = next(m for m in AT_EDGE if m.name == "ImportBill")  # which may take longer than all others
    with _held(rooms):
        crowd = Crowd(mesh, method, 300, every_s=0.01)
        heard = _settled(lambda: len(rooms.heard), 256, 1)
        connections = mesh.stat("cluster.payment.upstream_cx_active")
    assert crowd.reasons()["OVERLOADED"] == 0
    assert (heard, connections) == (256, 256)


# -- Instances that leave or fail -------------------------------------------------------------------------------------


def test_instance_that_leaves_gets_no_new_call(slow: tuple[EdgeAlone, FakeRooms]) -> None:
    """It drains: whoever calls its service is answered by the others."""
    mesh, rooms = slow
    rooms.heard.clear()
    assert Crowd(mesh, next(m for m in AT_EDGE if m.name == "GetUser"), 40).reasons() == {"OK": 40}
    assert {instance for instance, _, _ in rooms.heard} == {"user-1"}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EdgeAlone, FakeRooms, Native]]:
    """The edge, and four instances of payment."""
    made = EdgeAlone(tmp_path_factory.mktemp("m"), instances=tuple(f"payment-{i}" for i in (1, 2, 3, 4)))
    with _rooms(made) as rooms, made.grpc_edge() as channel:
        yield made, rooms, Native("gRPC", channel, made, inside=False)


def test_instance_that_fails_five_times_in_a_row_is_left_out_for_five_seconds(
    four: tuple[EdgeAlone, FakeRooms, Native],
) -> None:
    """Its callers stop asking it after the fifth failure, and ask again when its time is over."""
    _, rooms, edge = four
    call, request = edge.call, valid(CALLBACK)

    async def fail(instance: str, _: Method) -> None:
        if instance == "payment-1":
            raise DomainError("UNAVAILABLE")

    rooms.behave = fail
    rooms.heard.clear()
    refused = 0
    while refused < 5:
        refused += call(CALLBACK, request, Who()).reason == "UNAVAILABLE"
    left_out = time.monotonic()
    assert [call(CALLBACK, request, Who()).reason for _ in range(40)].count("UNAVAILABLE") == 0
    assert Counter(instance for instance, _, _ in rooms.heard)["payment-1"] == 5
    rooms.behave = None
    while rooms.heard[-1][0] != "payment-1":
        assert time.monotonic() - left_out < 20
        call(CALLBACK, request, Who())
        time.sleep(0.05)
    assert time.monotonic() - left_out > 3


def test_half_of_the_instances_may_be_left_out_and_no_more(four: tuple[EdgeAlone, FakeRooms, Native]) -> None:
    """When all fail, two of four are left out and the others go on being asked."""
    mesh, rooms, edge = four

    async def fail(_: str, __: Method) -> None:
        raise DomainError("UNAVAILABLE")

    rooms.behave = fail
    most, asked = 0, set[str]()
    for _ in range(5):  # on a slow machine the first may be back before the others were asked
        for _ in range(100):
            edge.call(CALLBACK, valid(CALLBACK), Who())
            left_out = mesh.stat("cluster.payment.outlier_detection.ejections_active")
            most = max(most, left_out)
            if left_out == 2:
                break
        time.sleep(1.2)  # an Envoy takes what changes in a second together
        rooms.heard.clear()
        for _ in range(12):
            edge.call(CALLBACK, valid(CALLBACK), Who())
        asked = {instance for instance, _, _ in rooms.heard}
        if len(asked) == 2:
            break
    assert (most, len(asked)) == (2, 2)


def test_retry_storm_is_held_to_a_fifth_of_the_load(four: tuple[EdgeAlone, FakeRooms, Native]) -> None:
    """F16: all fail, every client tries three times more, and the edge adds at most 20 % to that, but not nothing."""
    _, rooms, edge = four

    async def fail(_: str, __: Method) -> None:
        await asyncio.sleep(0.3)  # so that all clients are waiting at the same time
        raise DomainError("UNAVAILABLE")

    def client(_: int) -> int:
        request, who = valid(GET_PAYMENT), _somebody(GET_PAYMENT)
        said = [edge.call(GET_PAYMENT, request, who).reason for _ in range(4)]
        assert said == ["UNAVAILABLE"] * 4
        return len(said)

    rooms.behave = fail
    rooms.heard.clear()
    with ThreadPoolExecutor(100) as pool:
        sent = sum(pool.map(client, range(200)))
    assert sent == 800
    load = len(rooms.heard) / sent
    assert 1.1 < load <= 1.2


# -- Limits -----------------------------------------------------------------------------------------------------------


def test_user_makes_as_many_calls_as_the_contract_grants(slow: tuple[EdgeAlone, FakeRooms]) -> None:
    """120 changes of rules in a minute, twice what would be granted if nothing were said; another user has his own."""
    mesh, _ = slow
    method = next(m for m in AT_EDGE if m.name == "CreateRule")
    with mesh.grpc_edge() as channel:
        edge, who = Native("gRPC", channel, mesh, inside=False), _somebody(method)
        began = time.monotonic()
        granted = 0
        while edge.call(method, valid(method), who, KEY).reason == "OK":
            granted += 1
        came_back = 2 * (time.monotonic() - began) + 1  # the bucket is filled evenly
        assert 120 <= granted <= 120 + came_back
        assert edge.call(method, valid(method), _somebody(method), KEY).reason == "OK"

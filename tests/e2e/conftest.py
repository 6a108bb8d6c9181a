"""One mesh for the whole run, clients of its edge, and its logs beside what fails."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import Cast, Native, People, Plane, Rest, Shop, native
from tests.e2e.mesh import Mesh
from tests.receiver import Receiver

_RUNNING: list[Mesh] = []


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """The merchant's server, which the mesh may call."""
    with Receiver() as found:
        yield found


@pytest.fixture(scope="session")
def mesh(receiver: Receiver) -> Iterator[Mesh]:
    """A mesh that every test of the session shares; its end by SIGINT must be orderly and leave nothing behind."""
    running = Mesh()
    # Hours of providers are seconds.
    running.start(PAYMESH_SANDBOX_TIME_SCALE="0.001", PAYMESH_WEBHOOK_ALLOW=receiver.place)
    _RUNNING.append(running)
    yield running
    _RUNNING.remove(running)
    code, left = running.stop()
    assert (code, left) == (0, []), running.said()
    running.remove()


@pytest.fixture(scope="session")
def rest(mesh: Mesh) -> Iterator[Rest]:
    """The edge over REST."""
    client = Rest(mesh.record["rest"], Path(mesh.record["ca"]))
    yield client
    client.close()


@pytest.fixture(scope="session")
def grpc_edge(mesh: Mesh) -> Iterator[Native]:
    """The edge over native gRPC."""
    client = native(mesh.record["grpc"], Path(mesh.record["ca"]))
    yield client
    client.close()


@pytest.fixture(params=["rest", "grpc"])
def plane(request: pytest.FixtureRequest, rest: Rest, grpc_edge: Native) -> Plane:
    """Either way through the edge: what is promised holds on both."""
    return rest if request.param == "rest" else grpc_edge


@pytest.fixture(scope="session")
def people(rest: Rest, mesh: Mesh) -> People:
    """Makes users; holds the operator."""
    return People(rest, mesh.record["admin"])


@pytest.fixture(scope="session")
def shop(rest: Rest, people: People) -> Shop:
    """The operator's side of the flow, over REST."""
    return Shop(rest, people.operator)


@pytest.fixture(scope="session")
def cast(rest: Rest, people: People, shop: Shop) -> Cast:
    """Made once: registrations and log-ins are limited by address."""
    owner, stranger, sku = people.somebody(), people.somebody(), f"box-{uuid.uuid4().hex[:8]}"
    shop.stock(sku, price=1_000)
    shop.top_up(owner, 100_000)
    order = shop.order(owner, sku)
    payment, cancelled = shop.pay(owner, order), shop.order(owner, sku)
    body = {"id": cancelled["id"], "status": "STATUS_CANCELLED"}
    cancelled = rest.call("UpdateOrderStatus", body, token=owner.token)["order"]
    body = {"user_id": owner.id, "email": owner.email, "subject": "Hello", "text": "Good day."}
    sent = rest.do("POST", "/api/notifications/email", body, token=people.operator.token)["notification"]
    return Cast(owner, stranger, sku, order, payment, cancelled, sent["id"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the logs of every mesh that runs beside a test that failed."""
    report = yield
    if report.failed and item.path.is_relative_to(Path(__file__).parent):
        report.sections += [(f"logs in {running.data}", running.tails()) for running in _RUNNING]
    return report

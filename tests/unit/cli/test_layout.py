"""Where things are, and who is told what."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.cli import children
from services.cli.folder import Folder
from services.cli.layout import EDGE, Layout, lay_out
from services.cli.settings import up_settings

ADMIN = {"username": "operator", "password": "known to user alone"}
GIVEN = {
    "PAYMESH_REST_PORT": "0",
    "PAYMESH_GRPC_PORT": "0",
    "PAYMESH_METRICS": "1",
    "PAYMESH_RISK_DATABASE_URL": "postgresql+psycopg://risk:secret@db/risk",
}


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A layout of every service, laid out in an environment with secrets of its own."""
    for name, value in {**GIVEN, "AWS_SECRET_ACCESS_KEY": "x", "PAYMESH_FAILPOINT": "after-commit"}.items():
        monkeypatch.setenv(name, value)
    return lay_out(Folder(tmp_path), up_settings(GIVEN), "127.0.0.1:9092")


def test_ports_when_laid_out(layout: Layout) -> None:
    """No two things share a port, and none lies where the kernel picks ports for outgoing connections."""
    ports = [port for each in layout.instances for port in (each.mesh, each.admin, each.metrics)]
    ports += [layout.rest, layout.grpc, layout.edge_admin, layout.sandbox_http, layout.sandbox_smtp]
    assert len(set(ports)) == len(ports) == 3 * 8 + 5
    assert all(20_000 <= port < 32_000 for port in ports)


def test_environ_when_it_holds_secrets(layout: Layout) -> None:
    """A service is told its own database and nobody else's; the operator's password is told to user alone."""
    environs = {each.name: layout.service_environ(each, ADMIN) for each in layout.instances}
    knowing = [name for name, environ in environs.items() if "secret" in str(environ)]
    assert knowing == ["risk-1"]
    assert [name for name, environ in environs.items() if ADMIN["password"] in environ.values()] == ["user-1"]
    assert all("AWS_SECRET_ACCESS_KEY" not in environ for environ in environs.values())
    assert all(environ["PAYMESH_FAILPOINT"] == "after-commit" for environ in environs.values())


def test_environ_when_instances_share_a_database(layout: Layout) -> None:
    """Two instances differ in number, socket and port, and share their database."""
    one, two = (layout.service_environ(each, ADMIN) for each in layout.of(["payment"]))
    assert one["PAYMESH_DATABASE_URL"] == two["PAYMESH_DATABASE_URL"] == f"sqlite:///{layout.folder.path}/payment.db"
    differing = {name for name in one if one[name] != two[name]}
    assert differing == {
        "PAYMESH_INSTANCE",
        "PAYMESH_LISTEN",
        "PAYMESH_MESH",
        "PAYMESH_MESH_ADDRESS",
        "PAYMESH_METRICS_PORT",
    }


def test_children_when_stopped_by_tier(layout: Layout) -> None:
    """The edge goes first, then services, their Envoys, config and its Envoy, and the stores last."""
    config, user = layout.of(["config"])[0], layout.of(["user"])[0]
    specs = [
        children.edge(layout),
        children.service(layout, user, ADMIN),
        children.sidecar(layout, user),
        children.service(layout, config, ADMIN),
        children.sidecar(layout, config),
        children.sandbox(layout),
        children.valkey(layout),
    ]
    tiers = [spec.tier for spec in specs]
    assert tiers == sorted(tiers)
    assert len(set(tiers)) == len(tiers)
    assert [spec.name for spec in specs if spec.drain] == [EDGE]
    assert all("secret" not in " ".join(spec.argv) for spec in specs)  # argv can be read by everybody

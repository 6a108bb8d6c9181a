"""Where things are, and who is told what."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from services.cli import children
from services.cli.folder import Folder
from services.cli.layout import EDGE, RESERVED, Layout, lay_out
from services.cli.preflight import _settings_of
from services.cli.releases import BASE, Release
from services.cli.settings import ROOMS, up_settings
from services.payment.settings import Settings as PaymentSettings
from services.platform.settings import PREFIX, load
from services.sandbox.settings import Settings as SandboxSettings

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


def test_environ_when_files_are_in_a_bucket(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payment is told where and by which key, and nobody else is told the key; else they are in DIR."""
    assert layout.service_environ(layout.of(["payment"])[0], ADMIN)["PAYMESH_FILES"] == str(layout.folder.files)
    monkeypatch.setenv("PAYMESH_FILES", "s3://bills")
    monkeypatch.setenv("PAYMESH_S3_SECRET", "of the bucket")
    environs = {each.service: layout.service_environ(each, ADMIN) for each in layout.instances}
    assert environs["payment"]["PAYMESH_FILES"] == "s3://bills"
    assert [name for name, environ in environs.items() if "PAYMESH_S3_SECRET" in environ] == ["payment"]


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


@pytest.mark.parametrize("room", ROOMS)
def test_environ_when_a_service_reads_it(layout: Layout, room: str) -> None:
    """What `up` tells a service is a setting of it by that name, of a value that it takes."""
    environ = layout.service_environ(layout.of([room])[0], ADMIN)
    (settings,) = _settings_of(room)
    known = {PREFIX + each.name.upper() for each in fields(settings)}
    told = {name for name in environ if name.startswith(PREFIX)}
    assert told - known == {*GIVEN, "PAYMESH_FAILPOINT"} - {"PAYMESH_RISK_DATABASE_URL"}
    assert load(settings, environ).data == layout.folder.path


def test_environ_when_payment_meets_its_providers(layout: Layout) -> None:
    """Payment finds keys, providers and its own public address; the sandbox has the other half of the keys, and our CA."""
    payment, sandbox = layout.service_environ(layout.of(["payment"])[0], ADMIN), children.sandbox(layout).environ
    there, folder = f"http://127.0.0.1:{layout.sandbox_http}", layout.folder.path
    settings = load(PaymentSettings, payment)
    assert settings.alipay_url == f"{there}/alipay/gateway.do"
    assert settings.wechat_url == settings.cards_url == there
    assert settings.public_url == f"https://127.0.0.1:{layout.rest}"
    assert (settings.vault_keys, settings.files) == (f"{folder}/vault-keys", f"{folder}/files")
    told = load(SandboxSettings, sandbox)
    assert settings.providers == f"{told.sandbox_folder}/merchant" == f"{folder}/providers/merchant"
    assert (told.sandbox_ca, told.sandbox_time_scale) == (str(layout.folder.ca), 0.01)
    assert told.sandbox_http == layout.sandbox_http
    others = [layout.service_environ(each, ADMIN) for each in layout.instances if each.service != "payment"]
    assert [environ for environ in others if {"PAYMESH_PROVIDERS", "PAYMESH_VAULT_KEYS"} & environ.keys()] == []


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


def test_instance_that_comes_later_has_the_lowest_free_number(layout: Layout) -> None:
    """Numbers are in ids, and unique; the others keep their places, and who is gone makes room."""
    added, third = layout.with_instance("payment", Release("v2", (("PAYMESH_LINGER_MS", "7"),)))
    assert (third.name, third.release.name) == ("payment-3", "v2")
    assert set(layout.instances) < set(added.instances)
    assert [each.name for each in added.instances if each.service in {"payment", "risk"}] == [
        "payment-1",
        "payment-2",
        "payment-3",
        "risk-1",
    ]
    first = added.of({"payment"})[0]
    assert added.without(first).with_instance("payment", BASE)[1].number == 1
    ports = [port for each in added.instances for port in (each.mesh, each.admin, each.metrics)]
    assert len(set(ports)) == len(ports)


def test_environ_of_a_release(layout: Layout, tmp_path: Path) -> None:
    """Its settings beside ours; its tree is where code is found first; what makes it one of this mesh is reserved."""
    added, made = layout.with_instance("payment", Release("v2", (("PAYMESH_LINGER_MS", "7"),), str(tmp_path)))
    environ = added.service_environ(made, ADMIN)
    assert environ["PAYMESH_LINGER_MS"] == "7"
    assert environ["PYTHONPATH"].split(os.pathsep)[:2] == [str(tmp_path), str(tmp_path / "gen" / "python")]
    plain = added.service_environ(added.of({"payment"})[0], ADMIN)
    assert str(tmp_path) not in plain["PYTHONPATH"].split(os.pathsep)
    own = {name for name in environ if environ[name] != plain.get(name) and name != "PYTHONPATH"} - {
        "PAYMESH_METRICS_PORT"
    }
    assert own - {"PAYMESH_LINGER_MS"} <= RESERVED

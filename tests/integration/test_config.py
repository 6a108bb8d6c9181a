"""Config as its own Envoy calls it: settings over gRPC, SQL, Valkey and the broker."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import redis
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from paymesh.config.v1 import config_event_pb2
from paymesh.config.v1 import config_service_pb2 as pb
from paymesh.config.v1 import config_service_pb2_grpc as rpc
from services.config.app import build
from services.config.settings import ISTIO, ConfigSettings
from services.platform import migrations, pki
from services.platform.settings import SettingsError, load
from tests.integration.topics import reader
from tests.running import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPERATOR: dict[str, Any] = {"user": 7, "scope": "config:read config:write mesh:read"}


def _settings(run_dir: Path, redis_url: str, kafka: str) -> ConfigSettings:
    return ConfigSettings(
        data=run_dir,
        listen=f"unix:{run_dir}/config.sock",
        mesh_address="127.0.0.1:9",
        redis_url=redis_url,
        kafka=kafka,
        xds_listen=f"unix:{run_dir}/xds.sock",
        ca_dir=run_dir / "pki",
        join_tokens=run_dir / "tokens.json",
    )


@pytest.fixture
def served(run_dir: Path, redis_url: str, kafka: str) -> Iterator[Served]:
    """Config behind its socket, without Envoys."""
    pki.save(pki.make_authority(), run_dir / "pki")
    (run_dir / "tokens.json").write_text(json.dumps({}))
    migrations.upgrade("config", f"sqlite:///{run_dir}/config.db")
    with Served(build(_settings(run_dir, redis_url, kafka))) as running:
        yield running


@pytest.fixture
def stub(served: Served) -> rpc.ConfigServiceStub:
    """Calls to it."""
    return rpc.ConfigServiceStub(served.channel)


def test_change_is_told_to_who_waits_for_it(served: Served, stub: rpc.ConfigServiceStub) -> None:
    """At once when it comes, with nothing after a while when it does not."""
    known = [pb.WatchConfigRequest.Known(key="log.level"), pb.WatchConfigRequest.Known(key="a.b", version=7)]
    request = pb.WatchConfigRequest(known=known)
    began = time.monotonic()
    assert not served.call(stub.WatchConfig, request, peer="risk").entries
    assert 1.5 < time.monotonic() - began < 5
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(served.call, stub.WatchConfig, request, peer="risk")
        time.sleep(0.2)
        served.call(stub.SetConfig, pb.SetConfigRequest(key="log.level", value="warning"), **OPERATOR)
        began = time.monotonic()
        (entry,) = waiting.result(5).entries
    assert (entry.key, entry.value, entry.version) == ("log.level", "warning", 1)
    assert time.monotonic() - began < 1
    with pytest.raises(grpc.RpcError) as refused:
        served.call(stub.WatchConfig, request, peer="edge")
    assert _reason(refused.value) == "CALLER_NOT_ALLOWED"


def _reason(refused: grpc.RpcError) -> str:
    assert isinstance(refused, grpc.Call)
    trailers: dict[str, Any] = dict(refused.trailing_metadata() or ())
    status, info = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]), error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason)


def test_entry_is_set_read_listed_and_told(
    served: Served, stub: rpc.ConfigServiceStub, redis_url: str, kafka: str
) -> None:
    """Two versions, a conflict, a repeat; read through the cache that was lost; an event for each version."""
    request = pb.SetConfigRequest(key="risk.limit", value="100")
    assert served.call(stub.SetConfig, request, **OPERATOR).entry.version == 1
    assert served.call(stub.SetConfig, request, **OPERATOR).entry.version == 1
    second = pb.SetConfigRequest(key="risk.limit", value="200", expected_version=1)
    entry = served.call(stub.SetConfig, second, **OPERATOR).entry
    assert (entry.version, entry.updated_by) == (2, 7)
    with pytest.raises(grpc.RpcError) as refused:
        served.call(stub.SetConfig, pb.SetConfigRequest(key="risk.limit", value="3", expected_version=1), **OPERATOR)
    assert _reason(refused.value) == "CONFIG_VERSION_CONFLICT"

    for _ in range(2):
        assert served.call(stub.GetConfig, pb.GetConfigRequest(key="risk.limit"), **OPERATOR).entry == entry
        redis.Redis.from_url(redis_url).flushall()
    assert served.call(stub.ListConfig, pb.ListConfigRequest(prefix="risk."), **OPERATOR).entries == [entry]
    with pytest.raises(grpc.RpcError) as refused:
        served.call(stub.GetConfig, pb.GetConfigRequest(key="no.such"), **OPERATOR)
    assert _reason(refused.value) == "CONFIG_NOT_FOUND"
    assert _told(kafka, 2) == [("risk.limit", 1), ("risk.limit", 2)]


def _told(kafka: str, count: int) -> list[tuple[str, int]]:
    consumer, told = reader(kafka, ["config.changed"]), list[tuple[str, int]]()
    until = time.monotonic() + 15
    while len(told) < count and time.monotonic() < until:
        message = consumer.poll(0.2)
        if message is not None and not message.error():
            event = config_event_pb2.ConfigChanged.FromString(message.value() or b"")
            told.append((event.key, event.version))
    consumer.close()
    return told


def test_scope_and_caller_are_asked_for(served: Served, stub: rpc.ConfigServiceStub) -> None:
    """Reading does not allow writing; a registration comes from the service itself."""
    with pytest.raises(grpc.RpcError) as refused:
        served.call(stub.SetConfig, pb.SetConfigRequest(key="a.b", value="1"), user=7, scope="config:read")
    assert _reason(refused.value) == "SCOPE_MISSING"
    request = pb.RegisterInstanceRequest(service="risk", instance="risk-1", mesh_address="127.0.0.1:8")
    for peer in ("edge", "payment"):
        with pytest.raises(grpc.RpcError) as refused:
            served.call(stub.RegisterInstance, request, peer=peer)
        assert _reason(refused.value) == "CALLER_NOT_ALLOWED"


def test_instances_are_listed_with_their_health(served: Served, stub: rpc.ConfigServiceStub) -> None:
    """Config's own is there without a registration; one that nobody can reach is registered and unhealthy."""
    request = pb.RegisterInstanceRequest(service="risk", instance="risk-1", mesh_address="127.0.0.1:8")
    lease = served.call(stub.RegisterInstance, request, peer="risk").instance
    assert 10 < lease.lease_expire_time.seconds - time.time() <= 15
    found = served.call(stub.ListInstances, pb.ListInstancesRequest(), **OPERATOR).instances
    assert [(i.instance, i.mesh_address, i.Health.Name(i.health)) for i in found] == [
        ("config-1", "127.0.0.1:9", "HEALTH_HEALTHY"),
        ("risk-1", "127.0.0.1:8", "HEALTH_UNHEALTHY"),
    ]
    served.call(stub.DeregisterInstance, pb.DeregisterInstanceRequest(service="risk", instance="risk-1"), peer="risk")
    (left,) = served.call(stub.ListInstances, pb.ListInstancesRequest(service="risk"), **OPERATOR).instances
    assert left.health == left.HEALTH_DRAINING
    gone = pb.DeregisterInstanceRequest(service="risk", instance="risk-9")
    with pytest.raises(grpc.RpcError) as refused:
        served.call(stub.DeregisterInstance, gone, peer="risk")
    assert _reason(refused.value) == "LEASE_NOT_FOUND"


def test_missing_settings_are_all_named_at_once() -> None:
    """What has no default is asked for by the name of its variable; what our own Envoys need, where they are ours."""
    with pytest.raises(SettingsError) as faulty:
        load(ConfigSettings, {"PAYMESH_DATA": "x"})
    assert "PAYMESH_LISTEN" in " ".join(faulty.value.faults)
    with pytest.raises(SettingsError) as faulty:
        load(ConfigSettings, {"PAYMESH_DATA": "x", "PAYMESH_LISTEN": "unix:x"})
    named = " ".join(faulty.value.faults)
    for name in ("PAYMESH_XDS_LISTEN", "PAYMESH_CA_DIR", "PAYMESH_JOIN_TOKENS"):
        assert name in named


def test_instance_is_found_healthy_where_istio_runs_the_envoys(run_dir: Path, redis_url: str, kafka: str) -> None:
    """No CA, no join tokens, no Envoys of ours: instances are asked in plaintext, which the sidecar beside us encrypts."""
    migrations.upgrade("config", f"sqlite:///{run_dir}/config.db")
    listen = f"unix:{run_dir}/config.sock"
    settings = ConfigSettings(data=run_dir, listen=listen, redis_url=redis_url, kafka=kafka, envoys=ISTIO)
    other = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), other)
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with Served(build(settings)) as running:
            stub = rpc.ConfigServiceStub(running.channel)
            request = pb.RegisterInstanceRequest(service="risk", instance="risk-1", mesh_address=f"127.0.0.1:{port}")
            running.call(stub.RegisterInstance, request, peer="risk")
            assert _eventually_healthy(running, stub) == ["risk"]
    finally:
        other.stop(None)


def _eventually_healthy(running: Served, stub: rpc.ConfigServiceStub) -> list[str]:
    until, healthy = time.monotonic() + 10, list[str]()
    while not healthy and time.monotonic() < until:
        told = running.call(stub.GetMeshHealth, pb.GetMeshHealthRequest(), peer="gateway").services
        healthy = [each.service for each in told if each.healthy]
        time.sleep(0.05)
    return healthy

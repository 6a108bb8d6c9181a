"""What `paymesh up` refuses before anything starts: all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder
from services.cli.preflight import preflight, service_faults, unknown
from services.cli.settings import ROOMS, up_settings
from services.platform.settings import SettingsError


def faults_of(environ: dict[str, str]) -> list[str]:
    """What up_settings finds wrong."""
    with pytest.raises(SettingsError) as refused:
        up_settings(environ)
    return refused.value.faults


def test_settings_when_nothing_is_said() -> None:
    """By default: embedded engines, two payments, one of every other service."""
    settings = up_settings({})
    assert (settings.rest_port, settings.grpc_port) == (8443, 8444)
    assert (settings.redis_url, settings.kafka, dict(settings.databases)) == ("", "", {})
    assert settings.sandbox_time_scale == 0.01
    assert settings.instances == {room: 2 if room == "payment" else 1 for room in ROOMS}


def test_settings_when_engines_are_given() -> None:
    """External engines are taken as they are, each database by its service."""
    settings = up_settings(
        {
            "PAYMESH_REDIS_URL": "redis://10.0.0.1/0",
            "PAYMESH_KAFKA": "10.0.0.1:9092,10.0.0.2:9092",
            "PAYMESH_PAYMENT_DATABASE_URL": "mysql+pymysql://pay:secret@10.0.0.1/pay",
            "PAYMESH_ORDER_INSTANCES": "3",
        }
    )
    assert settings.databases == {"payment": "mysql+pymysql://pay:secret@10.0.0.1/pay"}
    assert settings.instances["order"] == 3
    assert settings.kafka.count(",") == 1


def test_settings_when_everything_is_wrong() -> None:
    """Every fault is listed, each by the name of its variable."""
    wrong = {
        "PAYMESH_REST_PORT": "70000",
        "PAYMESH_GRPC_PORT": "x",
        "PAYMESH_METRICS": "perhaps",
        "PAYMESH_SANDBOX_TIME_SCALE": "7",
        "PAYMESH_REDIS_URL": "10.0.0.1:6379",
        "PAYMESH_CONFIG_INSTANCES": "2",
        "PAYMESH_USER_DATABASE_URL": "a file",
        "PAYMESH_RISK_INSTANCES": "0",
    }
    faults = faults_of(wrong)
    assert [fault.split("=")[0].split()[0] for fault in faults] == list(wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [("REDIS_URL", "10.0.0.1:6379"), ("KAFKA", "10.0.0.1"), ("GRPC_PORT", "8443")],
)
def test_settings_when_one_has_no_sense(name: str, value: str) -> None:
    """A value of the right kind that cannot work is refused too."""
    (fault,) = faults_of({f"PAYMESH_{name}": value})
    assert f"PAYMESH_{name}" in fault


def test_settings_when_a_url_is_wrong_and_secret() -> None:
    """A refused database URL is not repeated: it may hold a password."""
    (fault,) = faults_of({"PAYMESH_RISK_DATABASE_URL": "oracle://risk:hunter2@db/risk"})
    assert "hunter2" not in fault


def test_service_settings_when_out_of_range() -> None:
    """What a service would refuse at its start is found before, and told once."""
    faults = service_faults({"PAYMESH_TRACE_RATIO": "2", "PAYMESH_HOLD_S": "soon"}, ["order", "payment"])
    assert len([fault for fault in faults if "PAYMESH_TRACE_RATIO" in fault]) == 2
    assert len([fault for fault in faults if "PAYMESH_HOLD_S" in fault]) == 1


def test_unknown_when_a_name_is_misspelt() -> None:
    """A variable that nobody reads is named, with the setting that it resembles; those of every service are known."""
    known = ("REST_PORT", "METRICS", "ORDER_INSTANCES", "USER_DATABASE_URL", "DATA", "HOLD_S", "SMTP", "ADMIN_PASSWORD",
             "SANDBOX_HTTP", "TRACE_RATIO", "CA_DIR", "PROVIDERS", "PUBLIC_URL", "VAULT_KEYS")  # fmt: skip
    environ = {f"PAYMESH_{name}": "" for name in known} | {"PATH": "", "XPAYMESH_Y": ""}
    assert unknown(environ) == []
    misspelt, foreign = unknown(environ | {"PAYMESH_METRIC": "1", "PAYMESH_zzzzzz": ""})
    assert misspelt == "PAYMESH_METRIC is no setting, and ignored. Is PAYMESH_METRICS meant?"
    assert foreign.startswith("PAYMESH_zzzzzz is no setting")


def test_preflight_when_settings_and_folder_are_wrong(tmp_path: Path) -> None:
    """Faults of settings, of services and of the folder come in one refusal, each once."""
    folder = Folder(tmp_path / ("deep" * 25))
    with pytest.raises(CommandError) as refused:
        preflight(folder, {"PAYMESH_LOG_LEVEL": "loud", "PAYMESH_TRACE_RATIO": "2"})
    assert refused.value.code == Exit.BAD_INPUT
    said = "\n".join(refused.value.faults)
    assert all(said.count(each) == 1 for each in ("PAYMESH_TRACE_RATIO", "PAYMESH_LOG_LEVEL", "too long a path"))
    assert not folder.path.exists()

"""Exit codes and the form of refusals; help that comes at once."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.commands import COMMANDS, main
from services.cli.exits import Exit
from services.cli.folder import Folder
from services.platform import pki
from services.platform.identity import spiffe_id

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help as wide as a terminal."""
    monkeypatch.setenv("COLUMNS", "120")


def test_help_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command is listed with a sentence."""
    assert main(["--help"]) == Exit.OK
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)


def test_help_when_timed() -> None:
    """Help takes 0.3 s of a processor at most; by the clock a busy machine would fail it."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen/python")])}
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "services.cli", "--help"], env=environ, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) <= 0.3


@pytest.mark.parametrize(
    "arguments", [["upp"], ["up", "--datta", "x"], ["cert", "--as", "x"], ["demo", "--method", "barter"]]
)
def test_arguments_when_unknown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What no command takes is bad input, said in a sentence."""
    assert main(arguments) == Exit.BAD_INPUT
    assert capsys.readouterr().err.startswith("paymesh: ")


def test_refusal_when_json_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json a refusal is an object on standard output, with the exit code."""
    assert main(["down", "--data", str(tmp_path), "--json"]) == Exit.NOT_FOUND
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit_code"] == Exit.NOT_FOUND
    assert str(tmp_path) in error["faults"][0]


@pytest.mark.parametrize("command", ["status", "down"])
def test_mesh_when_there_is_none(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to ask and nothing to end."""
    assert main([command, "--data", str(tmp_path)]) == Exit.NOT_FOUND
    assert "No mesh runs" in capsys.readouterr().err


def test_bug_when_a_command_breaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of ours, here a run.json that `up` would never write, ends with 70 and shows where it is."""
    folder = Folder(tmp_path)
    folder.lock()
    folder.record.write_text("{}")
    assert main(["status", "--data", str(tmp_path)]) == Exit.BUG
    folder.unlock()
    assert "Traceback" in capsys.readouterr().err


def test_status_when_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the operator's credentials nor a password of a database or of Redis is printed; all else of run.json is."""
    record = {
        "rest": "https://127.0.0.1:1", "ca": str(tmp_path / "none"), "pid": 7, "services": {}, "sandbox": "", "grpc": "",
        "data": str(tmp_path), "admin": {"username": "operator", "password": "hunter1"},
        "redis": "rediss://:hunter2@cache:6379/0",
        "databases": {"order": "mysql+pymysql://order:hunter3@db:3306/order", "user": "sqlite:////d/user.db"},
    }  # fmt: skip
    folder = Folder(tmp_path)
    folder.lock()
    folder.record.write_text(json.dumps(record))
    assert main(["status", "--data", str(tmp_path), "--json"]) == Exit.UNAVAILABLE
    folder.unlock()
    said = capsys.readouterr().out
    assert "hunter" not in said
    told = json.loads(said)
    assert told.keys() == record.keys() - {"admin"} | {"health"}
    assert told["redis"] == "rediss://:***@cache:6379/0"
    assert told["databases"] == {"order": "mysql+pymysql://order:***@db:3306/order", "user": "sqlite:////d/user.db"}


def test_cert_when_there_is_a_ca(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate names the service that it was asked for; its key is private."""
    pki.save(pki.make_authority(), tmp_path / "pki")
    out = tmp_path / "out"
    assert main(["cert", "--as", "order", "--out", str(out), "--data", str(tmp_path), "--json"]) == Exit.OK
    said = json.loads(capsys.readouterr().out)
    assert Path(said["ca"]).read_text() == (tmp_path / "pki/ca.pem").read_text()
    assert Path(said["key"]).stat().st_mode & 0o777 == 0o600
    text = subprocess.run(
        ["openssl", "x509", "-in", said["cert"], "-noout", "-text"], check=True, capture_output=True
    ).stdout
    assert f"URI:{spiffe_id('order')}".encode() in text


@pytest.mark.parametrize(("name", "code"), [("Order!", Exit.BAD_INPUT), ("order", Exit.NOT_FOUND)])
def test_cert_when_refused(name: str, code: Exit, tmp_path: Path) -> None:
    """No name of a service is bad input; no CA is not found."""
    assert main(["cert", "--as", name, "--out", str(tmp_path / "out"), "--data", str(tmp_path)]) == code
    assert not (tmp_path / "out").exists()

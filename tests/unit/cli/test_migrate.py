"""Which databases need a migration, known without Alembic."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.migrate import given, is_current, migrate_all, newest, with_migrations

ROOT = Path(__file__).parents[3]


def test_current_when_migrated(tmp_path: Path) -> None:
    """A database that Alembic has just upgraded is current; an empty, a foreign and a missing one are not."""
    url = f"sqlite:///{tmp_path}/order.db"
    assert not is_current("order", url)
    migrate_all({"order": url}, as_json=True)
    assert is_current("order", url)
    with contextlib.closing(sqlite3.connect(tmp_path / "order.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'order_0000'")
        connection.commit()
    assert not is_current("order", url)
    (tmp_path / "order.db").write_bytes(b"no database at all, but long enough to be looked into")
    assert not is_current("order", url)


def test_current_when_it_cannot_be_seen() -> None:
    """A database on a server is always asked by Alembic; a service without one has nothing to ask."""
    assert not is_current("order", "mysql+pymysql://order@db/order")
    assert is_current("sandbox", "sqlite:////nowhere/sandbox.db")


@pytest.mark.parametrize(
    ("files", "head"),
    [
        ({"a": ("1", "None"), "b": ("2", "'1'"), "c": ("3", "'2'")}, "3"),
        ({"a": ("1", "None"), "b": ("2", "'1'"), "c": ("3", "'1'")}, None),
        ({}, None),
    ],
)
def test_newest_when_revisions_branch(files: dict[str, tuple[str, str]], head: str | None, tmp_path: Path) -> None:
    """The head is the revision that none builds on; two of them are for Alembic to judge."""
    for name, (revision, down) in files.items():
        (tmp_path / f"{name}.py").write_text(f"revision: str = '{revision}'\ndown_revision: str | None = {down}\n")
    assert newest(tmp_path) == head


def test_given_when_the_environment_names_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases are taken in the order in which services are started, config first."""
    for room in reversed(with_migrations()):
        monkeypatch.setenv(f"PAYMESH_{room.upper()}_DATABASE_URL", f"sqlite:///{room}.db")
    assert list(given()) == list(with_migrations())
    assert with_migrations()[0] == "config"


def test_databases_when_made(tmp_path: Path) -> None:
    """A database is for its owner alone, whatever the umask of who makes it."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen/python")])}
    subprocess.run(
        [sys.executable, "-m", "services.cli", "migrate", "--data", str(tmp_path)], env=environ, check=True, umask=0o022,
        capture_output=True,
    )  # fmt: skip
    assert {each.stat().st_mode & 0o777 for each in tmp_path.glob("*.db*")} == {0o600}


def test_migrate_when_another_tree_has_added_to_the_database(tmp_path: Path) -> None:
    """A revision that is not known here stays where a release of another tree was tried; anywhere else it is a fault."""
    url = f"sqlite:///{tmp_path}/order.db"
    migrate_all({"order": url}, as_json=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "order.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'order_9999'")
        connection.commit()
        with pytest.raises(Exception, match="order_9999"):
            migrate_all({"order": url}, as_json=True)
        migrate_all({"order": url}, as_json=True, ahead=["order"])
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("order_9999",)]
    fresh = f"sqlite:///{tmp_path}/fresh.db"
    migrate_all({"order": fresh}, as_json=True, ahead=["order"])
    assert is_current("order", fresh)

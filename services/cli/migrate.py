"""`paymesh migrate`: brings every service's database to the newest schema. `up` runs it as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import services
from services.cli.folder import Folder, default_folder, keep_private
from services.cli.settings import ROOMS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_REVISION = re.compile(r"""^revision\b[^=\n]*=\s*["']([^"']+)["']""", re.MULTILINE)
_DOWN_REVISION = re.compile(r"""^down_revision\b[^=\n]*=\s*["']([^"']+)["']""", re.MULTILINE)


def with_migrations() -> tuple[str, ...]:
    """Return the services that have a database."""
    return tuple(room for room in ROOMS if _migrations(room).is_dir())


def is_current(room: str, url: str) -> bool:
    """Whether a service needs no migration: it has no database, or its SQLite file is at the newest revision.

    Read without Alembic, which takes longer to import than all else here; where it is not certain, the answer is no.
    """
    if room not in with_migrations():
        return True
    path = url.removeprefix("sqlite:///")
    if path == url or "?" in path or not Path(path).is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.Error:
        return False
    return found == [(newest(_migrations(room)),)]


def newest(folder: Path) -> str | None:
    """Return the revision that no other builds on; None: there is not exactly one."""
    made, built_on = set(), set()
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        made |= set(_REVISION.findall(text))
        built_on |= set(_DOWN_REVISION.findall(text))
    heads = made - built_on
    return heads.pop() if len(heads) == 1 else None


def _migrations(room: str) -> Path:
    return Path(services.__path__[0]) / room / "migrations"


def migrate_all(urls: Mapping[str, str], *, as_json: bool, ahead: Collection[str] = ()) -> None:
    """Upgrade one database after the other, and say each as it is done. Those of ``ahead`` a newer release may have added to."""
    from services.platform import failpoint  # noqa: PLC0415 - see the next
    from services.platform.migrations import upgrade  # noqa: PLC0415 - Alembic takes long to import

    failpoint.arm(os.environ.get("PAYMESH_FAILPOINTS", ""))
    for room, url in urls.items():
        began = time.monotonic()
        upgrade(room, url, ahead=room in ahead)
        took = time.monotonic() - began
        print(
            json.dumps({"room": room, "took_s": round(took, 3)}) if as_json else f"  {room:<14} {took:6.2f} s",
            flush=True,
        )


def given() -> dict[str, str]:
    """Return the databases that the environment names, by service, in the order in which services are started."""
    names = {room: f"PAYMESH_{room.upper()}_DATABASE_URL" for room in with_migrations()}
    return {room: os.environ[name] for room, name in names.items() if os.environ.get(name)}


def migrate(
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Bring every database to the newest schema (`up` does it too)."""
    keep_private()
    folder = Folder(data or default_folder()).path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate_all({room: f"sqlite:///{folder / room}.db" for room in with_migrations()} | given(), as_json=json_)


if __name__ == "__main__":
    keep_private()
    migrate_all(given(), as_json=True, ahead=sys.argv[1:])

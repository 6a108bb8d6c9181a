"""`paymesh migrate`: brings every service's database to the newest schema. `up` runs it as a process of its own."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

import services
from services.cli.folder import Folder, default_folder
from services.cli.settings import ROOMS


def with_migrations() -> tuple[str, ...]:
    """Return the services that have a database."""
    top = Path(services.__path__[0])
    return tuple(room for room in ROOMS if (top / room / "migrations").is_dir())


def migrate_all(folder: Path, *, as_json: bool) -> None:
    """Upgrade one database after the other, and say each as it is done."""
    from services.platform.migrations import upgrade  # noqa: PLC0415 - Alembic takes long to import

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for room in with_migrations():
        began = time.monotonic()
        upgrade(room, os.environ.get(f"PAYMESH_{room.upper()}_DATABASE_URL") or f"sqlite:///{folder / room}.db")
        took = time.monotonic() - began
        print(
            json.dumps({"room": room, "took_s": round(took, 3)}) if as_json else f"  {room:<14} {took:6.2f} s",
            flush=True,
        )


def migrate(
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Bring every database to the newest schema (`up` does it too)."""
    migrate_all(Folder(data or default_folder()).path, as_json=json_)


if __name__ == "__main__":
    migrate_all(Path(sys.argv[1]), as_json=True)

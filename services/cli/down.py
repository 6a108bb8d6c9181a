"""`paymesh down`: ends the mesh that runs in DIR."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder, default_folder

PATIENCE_S = 40.0
"""An ordered end takes a few seconds; each tier has its own limit, after which the supervisor kills."""


def down(
    data: Annotated[Path | None, typer.Option(help="Folder of the mesh.")] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """End the mesh that runs in DIR, in order: what it has begun, it ends."""
    folder = Folder(data or default_folder())
    pid = folder.holder()
    if pid is None:
        raise CommandError(Exit.NOT_FOUND, f"No mesh runs in {folder.path}.")
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while folder.holder() == pid:
        if time.monotonic() - began > PATIENCE_S:
            raise CommandError(
                Exit.UNAVAILABLE, f"The mesh (pid {pid}) did not end within {PATIENCE_S:g} s of SIGTERM."
            )
        time.sleep(0.05)
    took = time.monotonic() - began
    print(json.dumps({"pid": pid, "took_s": round(took, 2)}) if json_ else f"ended after {took:.1f} s")

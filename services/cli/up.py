"""`paymesh up`: the whole mesh on this machine, in the foreground."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer


def up(
    data: Annotated[
        Path | None, typer.Option(help="Folder for everything; $XDG_STATE_HOME/paymesh by default.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written once everything serves: where, and who runs.")
    ] = None,
    *,
    json_: Annotated[bool, typer.Option("--json", help="Events on standard output, one JSON object a line.")] = False,
) -> None:
    """Start the whole mesh and keep it until Ctrl-C or `paymesh down`."""
    from services.cli.console import Console  # noqa: PLC0415 - heavy imports late, for a quick --help
    from services.cli.folder import Folder, default_folder, keep_private  # noqa: PLC0415
    from services.cli.onebox import OneBox  # noqa: PLC0415
    from services.cli.preflight import preflight, unknown  # noqa: PLC0415

    keep_private()
    folder = Folder(data or default_folder())
    settings = preflight(folder, os.environ)
    folder.lock()
    folder.make()

    async def run() -> None:
        console = Console(folder.logs, as_json=json_)
        for warning in unknown(os.environ):
            console.event("warning", f"  ! {warning}", fault=warning)
        try:
            await OneBox(folder, settings, console, ready_file.absolute() if ready_file else None).run()
        finally:
            console.close()

    asyncio.run(run())

"""The schema of a release from another tree: brought to its newest before the release starts, beside the old one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.cli.exits import CommandError, Exit
from services.cli.layout import base_environ, of_release, python
from services.cli.supervisor.tether import tether

if TYPE_CHECKING:
    from services.cli.layout import Layout
    from services.cli.releases import Release


async def migrate(layout: Layout, service: str, release: Release) -> None:
    """Run the migrations that the tree has. They only add (expand), so the old release works on. Raises CommandError."""
    process = await asyncio.create_subprocess_exec(
        *python("-m", "services.cli.migrate", service),  # an older tree finds a database that is beyond it
        env={
            **base_environ(),
            **of_release(release),
            f"PAYMESH_{service.upper()}_DATABASE_URL": layout.database_url(service),
        },
        cwd=layout.folder.run,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=tether(),
    )
    _, said = await process.communicate()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise CommandError(Exit.CHECK_FAILED, f"The migrations of {release.name} fail; nothing was changed.", *last)

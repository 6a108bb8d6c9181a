"""A supervisor with children of the test's choosing: `python supervised.py LOGS NAME=TIER=CODE …`, CODE being Python.

Writes Console's events to standard output, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from services.cli.console import Console
from services.cli.supervisor.signals import asked_to_end
from services.cli.supervisor.spec import Spec
from services.cli.supervisor.supervisor import Supervisor


async def main(logs: Path, children: list[str]) -> None:
    """Keep ``children`` until a signal."""
    console = Console(logs, as_json=True)
    supervisor = Supervisor(console)
    asked = asked_to_end(supervisor.kill)
    for each in children:
        name, tier, code = each.split("=", 2)
        argv = (sys.executable, "-c", code)
        supervisor.start(Spec(name, argv, {"PATH": os.environ["PATH"]}, cwd=logs, tier=int(tier), grace_s=1.0))
    await asked.wait()
    await supervisor.stop()
    console.event("stopped", None)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))

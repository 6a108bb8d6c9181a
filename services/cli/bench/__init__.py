"""`paymesh bench`: figures of speed.md, each a ratio inside one run, labelled with the engine that gave it."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer


def bench(
    payments: Annotated[int, typer.Option(help="Payments by gRPC in a round.", min=200, max=100_000)] = 4_000,
    repeats: Annotated[int, typer.Option(help="Rounds; the figures are medians.", min=1, max=50)] = 5,
    *,
    json_: Annotated[bool, typer.Option("--json", help="As one JSON object, keyed R1 … R11.")] = False,
) -> None:
    """Measure payments against a bare echo on a mesh of its own; takes a few minutes."""
    from services.cli.bench import figures  # noqa: PLC0415 - heavy imports late, for a quick --help

    load = os.getloadavg()[0]
    result = figures.run(payments, repeats, lambda text: print(text, file=sys.stderr, flush=True))
    result = {"engine": "embedded", "cores": os.cpu_count(), "load_before": round(load, 2), **result}
    if json_:
        print(json.dumps(result))
        return
    print(f"engine embedded, {result['cores']} cores, load before {result['load_before']}")
    for name, said in result.items():
        if isinstance(said, dict):
            print(f"  {name:<8}", ", ".join(f"{key} {value}" for key, value in said.items()))

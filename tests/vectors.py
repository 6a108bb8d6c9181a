"""Test vectors of Wycheproof: what broken implementations of a primitive accept, or refuse, and ours must not.

They lie beside the repository, in ../shared/vectors/wycheproof; where that folder is absent the tests say so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "vectors" / "wycheproof"

with_vectors = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="../shared/vectors/wycheproof is absent: Wycheproof's vectors were not tried"
)
"""Marks a test that needs them."""


def groups(name: str) -> list[dict[str, Any]]:
    """The test groups of a file; each has its parameters and a list ``tests``."""
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_bytes())["testGroups"]
    return found

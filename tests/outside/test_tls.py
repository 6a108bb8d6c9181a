"""testssl.sh against the edge: versions, ciphers, known holes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.mesh import Mesh

FINE = {"OK", "INFO"}
OFFERED = {"TLS1_2", "TLS1_3"}
PROTOCOLS = {"SSLv2", "SSLv3", "TLS1", "TLS1_1", *OFFERED}
WEAK = ("NULL", "aNULL", "EXPORT", "LOW", "3DES_IDEA", "AVERAGE", "OBSOLETED")
"""Families of ciphers in testssl.sh's words; AVERAGE and OBSOLETED are what is neither AEAD nor forward secret."""


@pytest.mark.parametrize("listener", ["rest", "grpc"])
def test_testssl_finds_nothing(
    mesh: Mesh, tool: Callable[[str], str], record: Callable[[str, str], None], tmp_path: Path, listener: str
) -> None:
    """TLS 1.2 and 1.3 alone, AEAD and forward secrecy alone, and none of the holes that it knows."""
    said = mesh.record[listener]
    place = urlsplit(said if "://" in said else f"//{said}")
    report = tmp_path / "testssl.json"
    command = [
        tool("testssl"), "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none",
        # Protocols, families of ciphers, forward secrecy, whose order, and every hole.
        "-p", "-s", "-f", "-P", "-U", "--jsonfile", str(report), f"{place.hostname}:{place.port}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert report.exists(), done.stdout + done.stderr
    found = {each["id"]: each for each in json.loads(report.read_text())}
    offered = {name for name in PROTOCOLS if found[name]["finding"].startswith("offered")}
    found.pop("engine_problem", None)  # about the OpenSSL that testssl.sh itself runs
    bad = {name: each["finding"] for name, each in found.items() if each["severity"] not in FINE}
    record(
        f"testssl.sh, {listener}",
        f"{len(found)} findings, {len(bad)} of them bad; offered: {', '.join(sorted(offered))}",
    )
    assert bad == {}
    assert offered == OFFERED
    weak = {name: found[f"cipherlist_{name}"]["finding"] for name in WEAK if f"cipherlist_{name}" in found}
    assert len(weak) >= 5
    assert all(finding == "not offered" for finding in weak.values()), weak

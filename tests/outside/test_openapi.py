"""The OpenAPI document before other people's tools: two that read it, and one that calls all that it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.e2e.mesh import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.mesh import Mesh

DOCUMENT = ROOT / "gen" / "openapi" / "paymesh.json"
HERE = Path(__file__).parent
TAKEN = {
    "info-license": "the licence is the operator's affair",
    "no-ambiguous-paths": "routes of the source document: /api/payments/{id} beside /api/payments/callbacks/{provider}",
    "no-unused-components": "examples of reasons that no REST route has",
}
"""Redocly's warnings that stay, with why."""


def test_openapi_spec_validator_finds_nothing(record: Callable[[str, str], None]) -> None:
    """OpenAPI 3.1 by its own schema."""
    faults = list(OpenAPIV31SpecValidator(json.loads(DOCUMENT.read_text())).iter_errors())
    record("openapi-spec-validator", f"{len(faults)} faults")
    assert faults == []


def test_redocly_finds_no_error(tool: Callable[[str], str], record: Callable[[str, str], None]) -> None:
    """Its recommended rules, but for warnings that are taken."""
    command = [tool("redocly"), "lint", str(DOCUMENT), "--format", "json", "--max-problems", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250, cwd=HERE)
    problems = json.loads(done.stdout[done.stdout.index("{") :])["problems"]
    errors = [each for each in problems if each["severity"] == "error"]
    record("redocly lint", f"{len(errors)} errors, {len(problems) - len(errors)} warnings")
    assert errors == []
    assert {each["ruleId"] for each in problems} <= set(TAKEN), problems


@pytest.mark.timeout(5400)
def test_schemathesis_finds_nothing(
    mesh: Mesh, tool: Callable[[str], str], record: Callable[[str, str], None], tmp_path: Path
) -> None:
    """Every operation, with valid and with broken data, as an operator with every scope; all checks."""
    examples = os.environ.get("OUTSIDE_EXAMPLES", "15")
    command = [
        tool("schemathesis"), "--config-file", str(HERE / "schemathesis.toml"), "run",
        str(DOCUMENT), "--url", mesh.record["rest"], "--tls-verify", mesh.record["ca"],
        "--max-examples", examples, "--seed", "1", "--no-color",
    ]  # fmt: skip
    environ = {**os.environ, "OUTSIDE_RECORD": str(mesh.ready), "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    log = tmp_path / "schemathesis.log"
    with log.open("w") as said:
        done = subprocess.run(command, stdout=said, stderr=said, env=environ, check=False, timeout=5300, cwd=tmp_path)
    text = log.read_text()
    cases = re.search(r"Test cases:\n\s+(.*)", text)
    record(
        "schemathesis", f"{'0 failures' if done.returncode == 0 else 'failures'}: {cases[1] if cases else text[-200:]}"
    )
    assert done.returncode == 0, text[-20_000:]

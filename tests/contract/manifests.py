"""Reads istio/ as kustomize and Kubernetes would: documents by kind and name, and what an overlay comes to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ISTIO = ROOT / "istio"
Json = dict[str, Any]

KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
ISTIO_API = "istio.io/api@v1.31.4"
CERT_MANAGER = "github.com/cert-manager/cert-manager@v1.21.2"
GATEWAY_API = "sigs.k8s.io/gateway-api@v1.6.0"


@cache
def in_tree() -> dict[tuple[str, str], Json]:
    """Return the documents of base and services by kind and name."""
    folders = (ISTIO / "base", ISTIO / "services")
    files = (path for folder in folders for path in sorted(folder.rglob("*.yaml")) if path.name != "kustomization.yaml")
    return by_name([each for path in files for each in read(path)])


def read(path: Path) -> list[Json]:
    """Read the documents of a file."""
    return _documents(path.read_text())


def _documents(text: str) -> list[Json]:
    """Read YAML, with libyaml where the wheel has it: a whole is 16 000 lines."""
    return list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def by_name(documents: list[Json]) -> dict[tuple[str, str], Json]:
    """Index documents. No two are the same."""
    made = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    assert len(made) == len(documents)
    return made


def of_kind(documents: dict[tuple[str, str], Json], kind: str) -> dict[str, Json]:
    """Return the documents of one kind by name."""
    return {name: document for (its, name), document in documents.items() if its == kind}


def built(folder: Path) -> list[Json]:
    """Build a folder with kustomize 5."""
    done = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return _documents(done.stdout)


def overlaid(folder: Path, overlay: str, *components: str) -> list[Json]:
    """Build an overlay with components on top of it, in a folder of its own."""
    shutil.copytree(ISTIO, folder / "istio")
    said = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../istio/overlays/{overlay}"],
        "components": [f"../istio/components/{each}" for each in components],
    }
    (folder / "trial").mkdir()
    (folder / "trial" / "kustomization.yaml").write_text(yaml.safe_dump(said))
    return built(folder / "trial")


@cache
def kustomize() -> tuple[str, ...]:
    """Return a command that builds a folder: kustomize, the one inside kubectl, or one that Go makes; or skip."""
    if (path := shutil.which("kustomize")) and _is_5([path, "version"]):
        return path, "build"
    if (path := shutil.which("kubectl")) and _is_5([path, "version", "--client", "-o", "json"]):
        return path, "kustomize"
    tools = Path(tempfile.gettempdir(), f"paymesh-tools-{os.getuid()}", KUSTOMIZE.replace("/", "_"))
    if not (tools / "kustomize").exists():
        tools.mkdir(mode=0o700, parents=True, exist_ok=True)
        _go("install", KUSTOMIZE, GOBIN=str(tools))
    return str(tools / "kustomize"), "build"


def _is_5(command: list[str]) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    said = done.stdout.strip()
    version = json.loads(said).get("kustomizeVersion", "") if said.startswith("{") else said
    return version.startswith("v5.")


def module(version: str) -> Path:
    """Return the folder of a Go module: the one in Go's cache, or downloaded; or skip."""
    cached = Path(os.environ.get("GOMODCACHE") or Path.home() / "go" / "pkg" / "mod", version)
    if cached.is_dir():
        return cached
    return Path(json.loads(_go("mod", "download", "-json", version))["Dir"])


def _go(*arguments: str, **environ: str) -> str:
    if shutil.which("go") is None:
        pytest.skip(f"Go is not on this machine, nor what it would fetch: {arguments[-1]}")
    flags = {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", **environ}
    done = subprocess.run(
        ["go", *arguments],
        env={**os.environ, **flags},
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout

"""`istioctl analyze`, Istio's own judge of manifests, over what kustomize makes of each overlay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.contract.manifests import ISTIO, Json, built

ISTIOCTL = "istio.io/istio/istioctl/cmd/istioctl@v0.0.0-20260827124520-eed52ebb66ad"
"""Istio's releases are no versions of a Go module; this is the state of its main branch that the proxy has, after 1.30."""
_BUILD_S = 3600
ACCEPTED = {
    ("IST0133", "EnvoyFilter", "internal implementation details"): "said of every EnvoyFilter: there is no other way",
    ("IST0133", "ServiceEntry", "IP Autoallocation"): "it is enabled: see test_outside_hosts_get_addresses",
    ("IST0134", "ServiceEntry", "addresses are required"): "the same",
}
"""Code, kind and words of what is said in any case, and why that is no fault."""


@cache
def istioctl() -> str:
    """Return the tool: one that is installed, or one that Go makes, which takes half an hour of a core; or skip."""
    if path := shutil.which("istioctl"):
        return path
    tools = Path(tempfile.gettempdir(), f"paymesh-tools-{os.getuid()}", ISTIOCTL.replace("/", "_"))
    if not (tools / "istioctl").exists():
        if shutil.which("go") is None:
            pytest.skip("neither istioctl nor Go is on this machine: istioctl analyze was not tried")
        tools.mkdir(mode=0o700, parents=True, exist_ok=True)
        environ = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOBIN": str(tools)}
        command = ["nice", "-n", "19", "go", "install", "-p", "1", ISTIOCTL]
        subprocess.run(command, env=environ, cwd=tempfile.gettempdir(), check=True, timeout=_BUILD_S)
    return str(tools / "istioctl")


def _analyze(path: Path, documents: list[Json]) -> list[str]:
    """Return what is said and is not accepted. Without -A nothing outside the namespace `default` is looked at."""
    path.write_text(yaml.safe_dump_all(documents))
    command = [istioctl(), "analyze", "-A", "--use-kube=false", "--output", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.startswith("["), done.stderr
    said: list[dict[str, str]] = json.loads(done.stdout)
    return [f"{each['code']} {each['origin']}: {each['message']}" for each in said if not _accepted(each)]


def _accepted(said: dict[str, str]) -> bool:
    return any(
        said["code"] == code and said["origin"].startswith(f"{kind} ") and words in said["message"]
        for code, kind, words in ACCEPTED
    )


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_istioctl_finds_nothing_in_an_overlay(tmp_path: Path, overlay: str) -> None:
    """Not an error, not a warning, not a remark."""
    assert _analyze(tmp_path / "all.yaml", built(ISTIO / "overlays" / overlay)) == []


def test_istioctl_names_what_is_wrong(tmp_path: Path) -> None:
    """The judge is awake: an overlay without its gateway, and one with a retry that cannot be, are refused."""
    documents = built(ISTIO / "overlays" / "dev")
    without = [each for each in documents if each["kind"] != "Gateway"]
    assert any(each.startswith("IST0101") for each in _analyze(tmp_path / "without.yaml", without))
    routed = next(each for each in documents if each["kind"] == "VirtualService")
    next(route for route in routed["spec"]["http"] if "retries" in route)["retries"]["attempts"] = -1
    assert any(each.startswith("IST0106") for each in _analyze(tmp_path / "wrong.yaml", documents))


def test_outside_hosts_get_addresses() -> None:
    """What two accepted remarks rest on: sidecars answer DNS, and so give each outside host an address of its own."""
    installed = yaml.safe_load((ISTIO / "install" / "istio.yaml").read_text())
    metadata = installed["spec"]["meshConfig"]["defaultConfig"]["proxyMetadata"]
    assert metadata == {"ISTIO_META_DNS_CAPTURE": "true"}

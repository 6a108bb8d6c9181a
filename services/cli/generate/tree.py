"""Where generated files live, and how two states of them are compared."""

import hashlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parents[3]
PROTOS = ROOT / "protos"
THIRD_PARTY = PROTOS / "third_party"
GEN_PYTHON = ROOT / "gen" / "python"
DESCRIPTOR_SET = ROOT / "gen" / "descriptor" / "paymesh.binpb"
OPENAPI = ROOT / "gen" / "openapi" / "paymesh.json"
OPENAPI_SHIPPED = GEN_PYTHON / "paymesh" / "openapi.json"
"""The same document inside the package, so that the gateway can serve it where paymesh is installed."""
ENVOY = ROOT / "envoy"
ISTIO = ROOT / "istio"
CURRENCIES = ROOT / "services" / "kernel" / "currencies.py"

OWNED = (THIRD_PARTY, ROOT / "gen", ENVOY, ISTIO)
"""Directories in which every file is generated, but for the few below istio/ that manifests.BY_HAND names."""


def described() -> descriptor_pb2.FileDescriptorSet:
    """Every file of the workspace with its source info, which the descriptor set for tools leaves out."""
    buf = str(ROOT.joinpath(sysconfig.get_path("scripts"), "buf"))
    done = subprocess.run([buf, "build", "--output", "-"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return descriptor_pb2.FileDescriptorSet.FromString(done.stdout)


def fingerprints() -> dict[str, str]:
    """Path relative to the root -> digest of its content, for every generated file that exists."""
    files = [path for top in OWNED for path in top.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files += [*ROOT.glob("services/*/states.py"), CURRENCIES]
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.is_file()
    }


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Paths added, removed or altered between two fingerprints, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def sync(source: Path, target: Path, *, keep: frozenset[str] = frozenset()) -> None:
    """Make `target` hold exactly the files of `source`, and those to `keep`; a reader never finds it empty in between."""
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    for name in sorted(wanted):
        put(target / name, (source / name).read_bytes())
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and path.relative_to(target).as_posix() not in keep | wanted:
            path.unlink()


def write(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends."""
    put(path, text.encode())


def write_python(path: Path, text: str) -> None:
    """Write a module below services/, formatted as the rest of the house is."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(path), "-"]
    done = subprocess.run(command, cwd=ROOT, input=text, check=True, capture_output=True, text=True)
    write(path, done.stdout)


def put(path: Path, content: bytes) -> None:
    """Write a file, making the directories above it; one that is right already keeps its time stamp."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def environment() -> dict[str, str]:
    """The environment of a stage: both import roots in front, so that it also runs where paymesh is not installed."""
    roots = [str(ROOT), str(GEN_PYTHON)]
    if inherited := os.environ.get("PYTHONPATH"):
        roots.append(inherited)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(roots), "PYTHONDONTWRITEBYTECODE": "1"}

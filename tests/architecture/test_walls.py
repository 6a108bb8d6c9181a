"""The walls of pyproject.toml stand: a skeleton of the house passes, and each wall breaks when it is walked through."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.rules import FURNITURE
from tests.architecture.tree import ROOMS, ROOT, planted

PACKAGES = ("cli", "mesh", "platform", "contract", "kernel", "sandbox", *ROOMS)

BREACHES = {
    "a room imports another": (
        "services/payment/clients.py",
        "from services.order import ports",
        "one order",
    ),
    "the kernel imports the platform": ("services/kernel/ids.py", "from services import platform", "one order"),
    "a package of no layer": ("services/tools/__init__.py", "", "one order"),
    "furniture looks sideways": ("services/payment/store.py", "from services.payment import adapters", "one order"),
    "the domain looks up": ("services/payment/domain.py", "from services.payment import usecases", "one order"),
    "a room renders the mesh": ("services/payment/jobs.py", "from services import mesh", "only config renders"),
    "a use case speaks gRPC": ("services/payment/usecases.py", "import grpc", "Decisions know nothing"),
    "a use case knows a proto": (
        "services/payment/usecases.py",
        "from paymesh.payment.v1 import payment_pb2",
        "Decisions know nothing",
    ),
    "the contract opens a wire": ("services/contract/load.py", "import grpc", "descriptors and the kernel"),
    "SQL in a servicer": ("services/payment/servicer.py", "import sqlalchemy", "SQL starts and ends"),
    "Redis in a servicer": ("services/payment/servicer.py", "import redis", "through adapters"),
    "Envoy's types in a room": ("services/payment/jobs.py", "import envoy_data_plane", "Envoy's types"),
}
"""What is done -> the module, its line, words of the name of the wall that must break."""


def _skeleton(root: Path, extra: dict[str, str]) -> None:
    files = {"services/__init__.py": ""}
    files |= {f"services/{package}/__init__.py": "" for package in PACKAGES}
    files |= {f"services/{room}/{piece}.py": "" for room in ROOMS for piece in FURNITURE}
    files |= {
        "services/platform/wires.py": "import redis, httpx, httpcore, cryptography, obstore, sqlalchemy, pymysql, alembic, grpc"
    }
    files |= {"services/mesh/envoy.py": "import envoy_data_plane"}
    files |= {"services/payment/store.py": "import sqlalchemy", "services/payment/mapping.py": "import paymesh"}
    planted(root, files | extra)
    shutil.copy(ROOT / "pyproject.toml", root)


def _linted(root: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command as lint; sys.path.insert(0, '.'); lint()"
    command = [sys.executable, "-c", program, "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_walls_stand_in_a_skeleton_of_the_house(tmp_path: Path) -> None:
    """A house with all its furniture, each piece importing what it may, breaks no wall."""
    _skeleton(tmp_path, {})
    done = _linted(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("breach", BREACHES)
def test_wall_breaks_when_walked_through(breach: str, tmp_path: Path) -> None:
    """The import is refused by the wall that is meant to refuse it."""
    module, line, wall = BREACHES[breach]
    _skeleton(tmp_path, {module: line})
    done = _linted(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [text for text in done.stdout.splitlines() if "BROKEN" in text]
    assert any(wall in text for text in broken), done.stdout

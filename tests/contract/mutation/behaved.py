"""What no rule can know is noticed by tests of behaviour, run in a copy of the tree that is generated anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.architecture.tree import repository

if TYPE_CHECKING:
    from tests.contract.mutation.linted import Mutant

_ROOMS = ("tests/contract/test_rooms.py",)
BEHAVIOURS = {
    "method.callers": _ROOMS,
    "event.consumers": _ROOMS,
    "state.next": (),
    "state.event": (),
}
"""What a policy line says -> the tests that notice when it is gone; none named: those of the room that know its states."""
_STAGES = ("stubs", "states")
"""What these tests read of all that is generated; the linter has had its say, and golden files are no behaviour."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def kind(mutant: Mutant) -> str:
    """Return what the line is about: `state.next`."""
    return mutant.line.says.partition(":")[0]


class Copy:
    """A copy of the tree, in which one policy line after the other is left out."""

    def __init__(self, directory: Path) -> None:
        """Copy every file of the project."""
        self._tree, self._root = repository(), directory
        for path in self._tree.paths:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._tree.root / path, directory / path)

    def failing(self, mutant: Mutant) -> str:
        """Return the first test that fails without the line; "" when all pass."""
        source = self._root / "protos" / mutant.file
        kept = source.read_text()
        source.write_text(mutant.text)
        try:
            for stage in _STAGES:
                made = self._run("services.cli.generate", "--stage", stage)
                assert made.returncode == 0, made.stderr
            done = self._run("pytest", "-x", "-q", "-p", "no:cacheprovider", *self._tests(mutant))
        finally:
            source.write_text(kept)
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        found = _FAILED.search(done.stdout)
        return found[1] if found else ""

    def _tests(self, mutant: Mutant) -> list[str]:
        room = mutant.file.split("/")[1]
        tests = [path for path in self._tree.paths if path.match(f"tests/unit/{room}/test_*.py")]
        knowing = [str(path) for path in tests if re.search(r"\bstates\b", self._tree.text(path))]
        return [*BEHAVIOURS[kind(mutant)]] or knowing

    def _run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        roots = os.pathsep.join([str(self._root), str(self._root / "gen" / "python")])
        environ = {**os.environ, "PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=self._root, env=environ, capture_output=True, text=True, check=False)

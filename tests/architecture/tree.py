"""The tree under judgement: the files that belong to the project, read once."""

import ast
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROOMS = ("user", "order", "payment", "risk", "notification", "config", "gateway")

GENERATED = ("states.py", "currencies.py")
"""Names of generated modules below services/; gen/ is not looked at."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A root and the paths below it, relative and sorted."""

    root: Path
    paths: tuple[PurePosixPath, ...]

    def text(self, path: PurePosixPath) -> str:
        """The content of a file; what is no UTF-8 is replaced."""
        return (self.root / path).read_text(encoding="utf-8", errors="replace")

    def parsed(self, path: PurePosixPath) -> ast.Module:
        """The syntax tree of a module."""
        return ast.parse(self.text(path), filename=str(path))

    def modules(self, *tops: str) -> Iterator[PurePosixPath]:
        """Every Python file below the given top-level directories."""
        return (path for path in self.paths if path.suffix == ".py" and path.parts[0] in tops)


def repository() -> Tree:
    """The project itself: what git tracks or would track, as far as it stands on the disk."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.fail("the rules of the tree are checked in a clone, by git's list of its files")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return Tree(ROOT, tuple(PurePosixPath(name) for name in sorted(set(listed)) if (ROOT / name).is_file()))


def planted(root: Path, files: dict[str, str]) -> Tree:
    """A small tree of a test's own making."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Tree(root, tuple(PurePosixPath(name) for name in sorted(files)))


def imports(module: ast.Module) -> Iterator[str]:
    """Absolute dotted names that a module imports; `from a import b` gives `a.b`, for b may be a module."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)

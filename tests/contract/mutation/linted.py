"""Contracts without one of their policy lines, before the linter."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from services.cli.generate import tree
from services.contract.lint import complaints
from services.contract.source import places
from tests.contract.mutation.lines import Line, policy_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from services.contract.lint.view import Complaint


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file of the contracts without one policy line, and the element whose policy it is."""

    file: str
    element: str
    line: Line
    text: str


def sources() -> dict[str, str]:
    """Read our contracts: name -> text; the options themselves state no policy."""
    files = sorted(path for path in (tree.PROTOS / "paymesh").rglob("*.proto") if path.parts[-3:-1] != ("mesh", "v1"))
    return {path.relative_to(tree.PROTOS).as_posix(): path.read_text() for path in files}


def mutants(described: FileDescriptorSet, sources: Mapping[str, str]) -> Iterator[Mutant]:
    """Yield a mutant for each policy line of the sources (name -> text), whose descriptors are in the set."""
    by_name = {file.name: file for file in described.file}
    for name, text in sources.items():
        begins = sorted((place.line, element) for element, place in places([by_name[name]]).items())
        for line in policy_lines(text):
            element = [element for number, element in begins if number <= line.number][-1]
            yield Mutant(name, element, line, line.deleted(text))


def refusal(described: bytes, mutant: Mutant) -> Complaint | None:
    """Return what the linter says first about a mutant of a serialized descriptor set; None when it says nothing."""
    with tempfile.TemporaryDirectory() as made:
        source, known, out = Path(made, "protos", mutant.file), Path(made, "known.binpb"), Path(made, "set.binpb")
        source.parent.mkdir(parents=True)
        source.write_text(mutant.text)
        known.write_bytes(_without(described, mutant.file).SerializeToString())
        command = ["protoc", f"-I{made}/protos", f"--descriptor_set_in={known}", f"--descriptor_set_out={out}"]
        assert protoc.main([*command, "--include_source_info", mutant.file]) == 0, mutant
        (compiled,) = FileDescriptorSet.FromString(out.read_bytes()).file
    files = [compiled if file.name == mutant.file else file for file in _parsed(described).file]
    return next(complaints(FileDescriptorSet(file=files)), None)


@lru_cache(maxsize=2)
def _parsed(described: bytes) -> FileDescriptorSet:
    return FileDescriptorSet.FromString(described)


@lru_cache(maxsize=2)
def _without(described: bytes, name: str) -> FileDescriptorSet:
    return FileDescriptorSet(file=[file for file in _parsed(described).file if file.name != name])

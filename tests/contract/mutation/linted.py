"""Contracts without one of their policy lines, before the linter."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from services.contract.lint import complaints
from services.contract.source import places
from tests.contract.mutation.lines import Line, policy_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.contract.lint.view import Complaint


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file of the contracts without one policy line, and the element whose policy it is."""

    file: str
    element: str
    line: Line
    text: str


def mutants(described: FileDescriptorSet, sources: dict[str, str]) -> Iterator[Mutant]:
    """Yield a mutant for each policy line of the sources (name -> text), whose descriptors are in the set."""
    by_name = {file.name: file for file in described.file}
    for name, text in sources.items():
        begins = sorted((place.line, element) for element, place in places([by_name[name]]).items())
        for line in policy_lines(text):
            element = [element for number, element in begins if number <= line.number][-1]
            yield Mutant(name, element, line, line.deleted(text))


def refusal(described: FileDescriptorSet, mutant: Mutant) -> Complaint | None:
    """Return what the linter says first about a mutant; None when it says nothing."""
    others = FileDescriptorSet(file=[file for file in described.file if file.name != mutant.file])
    with tempfile.TemporaryDirectory() as made:
        source, known, out = Path(made, "protos", mutant.file), Path(made, "known.binpb"), Path(made, "set.binpb")
        source.parent.mkdir(parents=True)
        source.write_text(mutant.text)
        known.write_bytes(others.SerializeToString())
        command = ["protoc", f"-I{made}/protos", f"--descriptor_set_in={known}", f"--descriptor_set_out={out}"]
        assert protoc.main([*command, "--include_source_info", mutant.file]) == 0, mutant
        (compiled,) = FileDescriptorSet.FromString(out.read_bytes()).file
    files = [compiled if file.name == mutant.file else file for file in described.file]
    return next(complaints(FileDescriptorSet(file=files)), None)

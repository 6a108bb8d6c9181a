"""A small contract without a fault, and the same with one planted in it, compiled in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from services.contract.descriptors import descriptor_set

_SOUND = Path(__file__).parent / "sound"


def sound() -> dict[str, str]:
    """Read the files of the sound contract: name -> text."""
    return {path.relative_to(_SOUND).as_posix(): path.read_text() for path in sorted(_SOUND.rglob("*.proto"))}


def with_fault(there: str, instead: str) -> dict[str, str]:
    """Replace a text that is in the sound contract, the first time that it comes."""
    files, names = sound(), [name for name, text in sound().items() if there in text]
    assert names, f"the sound contract does not have {there!r}"
    files[names[0]] = files[names[0]].replace(there, instead, 1)
    return files


def compiled(files: dict[str, str]) -> FileDescriptorSet:
    """Compile files by name, with source info and everything that they import."""
    with tempfile.TemporaryDirectory() as made:
        for name, text in files.items():
            Path(made, name).parent.mkdir(parents=True, exist_ok=True)
            Path(made, name).write_text(text)
        known, out = Path(made, "known.binpb"), Path(made, "set.binpb")
        known.write_bytes(descriptor_set())
        command = ["protoc", f"-I{made}", f"--descriptor_set_in={known}", f"--descriptor_set_out={out}"]
        assert protoc.main([*command, "--include_imports", "--include_source_info", *files]) == 0
        return FileDescriptorSet.FromString(out.read_bytes())

"""gen/python and gen/descriptor: what protoc makes of the contracts.

google/* is compiled already in the googleapis-common-protos wheel; a second copy would register the same files twice.
"""

import sysconfig
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from services.cli.generate import tree

FOR_TOOLS = ("google/rpc/error_details.proto", "google/rpc/status.proto")
"""In the descriptor set although no contract imports them: Envoy's transcoder turns an error detail whose type it does not
know into an empty body."""

_PACKAGE = b'"""Generated from protos/ by `tox -e gen`. Do not edit."""\n'


def write() -> None:
    """Replace gen/python and gen/descriptor."""
    ours = _protos(tree.PROTOS / "paymesh", tree.PROTOS)
    if not ours:
        raise SystemExit(f"no .proto below {tree.PROTOS / 'paymesh'}")
    compiled = [*ours, *_protos(tree.THIRD_PARTY / "buf", tree.THIRD_PARTY)]
    with tempfile.TemporaryDirectory() as made:
        out, descriptors = Path(made, "python"), Path(made, tree.DESCRIPTOR_SET.name)
        out.mkdir()
        _protoc(["--include_imports", f"--descriptor_set_out={descriptors}"], [*ours, *FOR_TOOLS])
        _protoc([f"--python_out={out}", f"--mypy_out=quiet:{out}"], compiled)
        if serving := _with_services(ours, descriptors):
            _protoc([f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"], serving)
        _mark_packages(out)
        tree.sync(out, tree.GEN_PYTHON, keep=frozenset({"paymesh/comments.py", "paymesh/openapi.json"}))
        tree.put(tree.DESCRIPTOR_SET, descriptors.read_bytes())


def _protos(directory: Path, root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in directory.rglob("*.proto"))


def _with_services(names: Sequence[str], descriptors: Path) -> list[str]:
    """Only a file with a service gets gRPC stubs; protoc would write an empty module for every other one."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file
    serving = {file.name for file in files if file.service}
    return [name for name in names if name in serving]


def _mark_packages(root: Path) -> None:
    """An `__init__.py` in every directory below the import root, and the marker that tells mypy of the types."""
    for directory in sorted(path for path in root.rglob("*") if path.is_dir()):
        tree.put(directory / "__init__.py", _PACKAGE)
        if directory.parent == root:
            tree.put(directory / "py.typed", b"")


def _protoc(outputs: Sequence[str], names: Sequence[str]) -> None:
    """Run the compiler inside the grpcio-tools wheel; its complaints go to stderr."""
    scripts = Path(sysconfig.get_path("scripts"))
    failed = protoc.main(
        [
            "protoc",
            f"--proto_path={tree.PROTOS}",
            f"--proto_path={tree.THIRD_PARTY}",
            f"--proto_path={resources.files('grpc_tools').joinpath('_proto')}",
            *(f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")),
            *outputs,
            *names,
        ]
    )
    if failed:
        raise SystemExit("protoc refused the contracts; `buf lint` says more")

"""The generator keeps its promises where the compiler cannot see them."""

from importlib import resources
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from services.cli.generate import states, tree, validate
from services.kernel.currencies import EXPONENTS


def _compiled(name: str, root: Path, made: Path) -> descriptor_pb2.FileDescriptorProto:
    out = made / "compiled.binpb"
    known = resources.files("grpc_tools").joinpath("_proto")
    assert protoc.main(["protoc", f"-I{root}", f"-I{known}", f"--descriptor_set_out={out}", name]) == 0
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return file


def _without_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in [*message.field, *message.extension]:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _without_json_names(nested)


def test_printed_validate_proto_compiles_to_the_descriptor_of_the_wheel(tmp_path: Path) -> None:
    """The text that we print and the descriptor that protovalidate runs on are the same contract."""
    printed = _compiled(validate.NAME, tree.THIRD_PARTY, tmp_path)
    embedded = descriptor_pb2.FileDescriptorProto.FromString(validate.embedded_bytes())
    for file in (printed, embedded):
        file.ClearField("syntax")
        for extension in file.extension:
            extension.ClearField("json_name")
        for message in file.message_type:
            _without_json_names(message)
    assert printed == embedded


def test_states_module_stands_on_its_own() -> None:
    """The generated text runs without an import of ours, and says what the contract said."""
    machine = states.Machine(
        source="paymesh.x.v1.Refund.Status",
        prefix="REFUND_",
        states=(
            states.State("pending", ("success",), "", initial=True),
            states.State("success", (), "payment.refunded", initial=False),
        ),
    )
    made: dict[str, object] = {}
    exec(states.module("x", [machine]), made)
    assert made["REFUND_NEXT"] == {"pending": frozenset({"success"}), "success": frozenset()}
    assert made["REFUND_EVENTS"] == {"success": "payment.refunded"}
    assert made["REFUND_INITIAL"] == ("pending",)
    assert made["REFUND_CHECK"] == "('pending', 'success')"


@pytest.mark.parametrize(("code", "exponent"), [("CNY", 2), ("JPY", 0), ("KWD", 3)])
def test_currency_has_the_exponent_of_iso_4217(code: str, exponent: int) -> None:
    """Yen have no minor unit, dinars have thousandths."""
    assert EXPONENTS[code] == exponent


def test_currency_without_an_exponent_is_left_out() -> None:
    """No amount of gold exists in minor units."""
    assert "XAU" not in EXPONENTS


def test_changes_name_what_was_added_removed_and_altered() -> None:
    """`--check` says which files, not merely that some differ."""
    before = {"kept": "1", "altered": "1", "removed": "1"}
    after = {"kept": "1", "altered": "2", "added": "1"}
    assert tree.changes(before, after) == ["added", "altered", "removed"]


def test_sync_leaves_exactly_what_was_made(tmp_path: Path) -> None:
    """A file that is no longer generated goes, with its directory; a kept one stays."""
    made, target = tmp_path / "made", tmp_path / "target"
    tree.write(made / "a" / "new.py", "1")
    tree.write(target / "a" / "stale.py", "1")
    tree.write(target / "b" / "stale.py", "1")
    tree.write(target / "kept.py", "1")
    tree.sync(made, target, keep=frozenset({"kept.py"}))
    left = sorted(path.relative_to(target).as_posix() for path in target.rglob("*"))
    assert left == ["a", "a/new.py", "kept.py"]

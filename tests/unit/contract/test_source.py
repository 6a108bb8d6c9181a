"""Comments and lines are found under the names that protobuf gives."""

from __future__ import annotations

from google.protobuf import descriptor_pb2

from services.contract.source import Place, places

_COMMENTS = (
    ((2,), " Package paymesh.x.v1 is an example.\n"),
    ((4, 0), " First line\n goes on.\n\n Second paragraph.\n"),
    ((4, 0, 2, 0), " The id.\n"),
    ((4, 0, 3, 0, 2, 0), " The low end.\n"),
    ((4, 0, 4, 0), " Where it is.\n"),
    ((4, 0, 4, 0, 2, 0), " At its end.\n"),
    ((6, 0, 2, 0), " Reads it.\n"),
    ((6, 0), ""),
)


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="paymesh/x/v1/x.proto", package="paymesh.x.v1")
    message = file.message_type.add(name="Outer")
    message.field.add(name="id")
    message.nested_type.add(name="Inner").field.add(name="low")
    message.enum_type.add(name="Status").value.add(name="STATUS_DONE")
    file.service.add(name="XService").method.add(name="GetX")
    for line, (path, text) in enumerate(_COMMENTS):
        file.source_code_info.location.add(path=path, span=(line, 0, 1), leading_comments=text)
    return file


def test_places_are_by_full_name() -> None:
    """Nested messages, enum values (beside their enum) and methods are named in full; paragraphs stay, lines do not."""
    assert places([_file()]) == {
        "paymesh.x.v1": Place(1, "Package paymesh.x.v1 is an example."),
        "paymesh.x.v1.Outer": Place(2, "First line goes on.\n\nSecond paragraph."),
        "paymesh.x.v1.Outer.id": Place(3, "The id."),
        "paymesh.x.v1.Outer.Inner.low": Place(4, "The low end."),
        "paymesh.x.v1.Outer.Status": Place(5, "Where it is."),
        "paymesh.x.v1.Outer.STATUS_DONE": Place(6, "At its end."),
        "paymesh.x.v1.XService.GetX": Place(7, "Reads it."),
        "paymesh.x.v1.XService": Place(8, ""),
    }


def test_places_of_others_are_left_out() -> None:
    """Third-party files are not ours to describe."""
    file = _file()
    file.package = "google.api"
    assert places([file]) == {}

"""Where each element of the contracts stands in its file, and the comment above it, by full protobuf name.

Read from the source info of a compiler; the descriptors of generated modules carry none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from google.protobuf import descriptor_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PACKAGE = (descriptor_pb2.FileDescriptorProto.PACKAGE_FIELD_NUMBER,)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """The line of an element, counted from 1, and the comment above it; "" where it has none.

    A paragraph of the comment is one line, an empty line stands between two.
    """

    line: int
    comment: str


def places(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> dict[str, Place]:
    """Full name -> place of every element of the paymesh.* files.

    A value of an enum is named as protobuf does, beside its enum: `paymesh.payment.v1.Payment.STATUS_SUCCESS`.
    """
    found: dict[str, Place] = {}
    for file in files:
        if file.package.startswith("paymesh."):
            found.update(_of_file(file))
    return found


def _of_file(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, Place]]:
    names: Mapping[_Path, str] = {_PACKAGE: file.package, **dict(_names(file))}
    for location in file.source_code_info.location:
        path = tuple(location.path)
        if path in names:
            yield names[path], Place(location.span[0] + 1, _plain(location.leading_comments))


def _names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[_Path, str]]:
    """(path of source info, full name) of every element of a file."""
    kind = descriptor_pb2.FileDescriptorProto
    for i, message in enumerate(file.message_type):
        yield from _message((kind.MESSAGE_TYPE_FIELD_NUMBER, i), file.package, message)
    for i, enum in enumerate(file.enum_type):
        yield from _enum((kind.ENUM_TYPE_FIELD_NUMBER, i), file.package, enum)
    for i, service in enumerate(file.service):
        full_name = f"{file.package}.{service.name}"
        path = (kind.SERVICE_FIELD_NUMBER, i)
        yield path, full_name
        yield from _members(
            (*path, descriptor_pb2.ServiceDescriptorProto.METHOD_FIELD_NUMBER), full_name, service.method
        )
    yield from _members((kind.EXTENSION_FIELD_NUMBER,), file.package, file.extension)


def _message(path: _Path, scope: str, message: descriptor_pb2.DescriptorProto) -> Iterator[tuple[_Path, str]]:
    kind = descriptor_pb2.DescriptorProto
    full_name = f"{scope}.{message.name}"
    yield path, full_name
    yield from _members((*path, kind.FIELD_FIELD_NUMBER), full_name, message.field)
    yield from _members((*path, kind.ONEOF_DECL_FIELD_NUMBER), full_name, message.oneof_decl)
    for i, nested in enumerate(message.nested_type):
        yield from _message((*path, kind.NESTED_TYPE_FIELD_NUMBER, i), full_name, nested)
    for i, enum in enumerate(message.enum_type):
        yield from _enum((*path, kind.ENUM_TYPE_FIELD_NUMBER, i), full_name, enum)


def _enum(path: _Path, scope: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[tuple[_Path, str]]:
    """A value's full name is beside its enum, not in it: protobuf scopes values like C does."""
    yield path, f"{scope}.{enum.name}"
    yield from _members((*path, descriptor_pb2.EnumDescriptorProto.VALUE_FIELD_NUMBER), scope, enum.value)


def _members(path: _Path, scope: str, members: Iterable[_Named]) -> Iterator[tuple[_Path, str]]:
    return (((*path, i), f"{scope}.{member.name}") for i, member in enumerate(members))


def _plain(comment: str) -> str:
    """Join the lines of each paragraph; what the source broke to fit its width is one line here."""
    paragraphs: list[list[str]] = [[]]
    for line in (raw.strip() for raw in comment.strip().splitlines()):
        if not line:
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    return "\n\n".join(" ".join(lines) for lines in paragraphs if lines)

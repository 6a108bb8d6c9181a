"""buf/validate/validate.proto, printed from the descriptor that the protovalidate wheel embeds (no wheel ships the source).

Comments are not part of a descriptor, so the text has none; a test compiles it and compares the descriptors.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    text_format,
    timestamp_pb2,
)
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

NAME = "buf/validate/validate.proto"

_IMPORTED_BY_IT = (duration_pb2, field_mask_pb2, timestamp_pb2)
"""Held here because the descriptor pool must know them before the file that imports them."""

_LABELS = {
    descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
    descriptor_pb2.FieldDescriptorProto.LABEL_REQUIRED: "required ",
    descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED: "repeated ",
}
_MAX_FIELD_NUMBER = 536_870_911


def source() -> str:
    """The whole .proto text."""
    file = _embedded()
    if file.syntax not in {"", "proto2"}:
        raise ValueError(f"{NAME} is {file.syntax} in this protovalidate wheel; the printer knows proto2 only")
    return "\n".join(_file(file)) + "\n"


def embedded_bytes() -> bytes:
    """The serialized FileDescriptorProto inside the wheel."""
    module = import_module("protovalidate._gen.buf.validate.validate_pb")
    serialized: bytes = module._DESC.proto.to_binary()  # noqa: SLF001 - the wheel has no public way to its descriptor
    return serialized


def _embedded() -> descriptor_pb2.FileDescriptorProto:
    """Parsed after its own extensions are registered, or its options would be unknown fields."""
    serialized = embedded_bytes()
    descriptor_pool.Default().AddSerializedFile(serialized)
    message_factory.GetMessageClassesForFiles([NAME], descriptor_pool.Default())
    return descriptor_pb2.FileDescriptorProto.FromString(serialized)


def _file(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    yield "// Printed from the descriptor in the protovalidate wheel by services/cli/generate. DO NOT EDIT."
    yield 'syntax = "proto2";'
    yield f"package {file.package};"
    for dependency in file.dependency:
        yield f'import "{dependency}";'
    yield from (f"option {option};" for option in _options(file.options))
    yield from _extensions(file.extension)
    for enum in file.enum_type:
        yield from _enum(enum)
    for message in file.message_type:
        yield from _message(message, f".{file.package}")


def _message(message: descriptor_pb2.DescriptorProto, scope: str) -> Iterator[str]:
    full_name = f"{scope}.{message.name}"
    maps = {f"{full_name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    yield f"message {message.name} {{"
    yield from _indent(f"option {option};" for option in _options(message.options))
    for enum in message.enum_type:
        yield from _indent(_enum(enum))
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from _indent(_message(nested, full_name))
    yield from _indent(_members(message, maps))
    for reserved in message.reserved_range:
        yield f"  reserved {_range(reserved.start, reserved.end - 1)};"
    if message.reserved_name:
        yield f"  reserved {_quoted(message.reserved_name)};"
    for extension in message.extension_range:
        yield f"  extensions {_range(extension.start, extension.end - 1)};"
    yield from _indent(_extensions(message.extension))
    yield "}"


def _members(
    message: descriptor_pb2.DescriptorProto, maps: Mapping[str, descriptor_pb2.DescriptorProto]
) -> Iterator[str]:
    """Fields in their order; the fields of a oneof stand together where the first of them stood."""
    printed: set[int] = set()
    for field in message.field:
        if not field.HasField("oneof_index") or field.proto3_optional:
            yield _field(field, maps=maps)
            continue
        if field.oneof_index in printed:
            continue
        printed.add(field.oneof_index)
        oneof = message.oneof_decl[field.oneof_index]
        yield f"oneof {oneof.name} {{"
        yield from _indent(f"option {option};" for option in _options(oneof.options))
        for member in message.field:
            if member.HasField("oneof_index") and member.oneof_index == field.oneof_index:
                yield f"  {_field(member, maps=maps, label=False)}"
        yield "}"


def _field(
    field: descriptor_pb2.FieldDescriptorProto,
    *,
    maps: Mapping[str, descriptor_pb2.DescriptorProto],
    label: bool = True,
) -> str:
    prefix = _LABELS[field.label] if label else ""
    kind = _type(field)
    if field.type_name in maps:
        key, value = maps[field.type_name].field
        prefix, kind = "", f"map<{_type(key)}, {_type(value)}>"
    options = list(_options(field.options))
    if field.HasField("default_value"):
        options.insert(0, f"default = {field.default_value}")
    return f"{prefix}{kind} {field.name} = {field.number}{_bracketed(options)};"


def _type(field: descriptor_pb2.FieldDescriptorProto) -> str:
    name = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
    return field.type_name or name.removeprefix("TYPE_").lower()


def _enum(enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    yield from _indent(f"option {option};" for option in _options(enum.options))
    for value in enum.value:
        yield f"  {value.name} = {value.number}{_bracketed(list(_options(value.options)))};"
    for reserved in enum.reserved_range:
        yield f"  reserved {_range(reserved.start, reserved.end)};"
    if enum.reserved_name:
        yield f"  reserved {_quoted(enum.reserved_name)};"
    yield "}"


def _extensions(extensions: Iterable[descriptor_pb2.FieldDescriptorProto]) -> Iterator[str]:
    for extension in extensions:
        yield f"extend {extension.extendee} {{"
        yield f"  {_field(extension, maps={})}"
        yield "}"


def _options(options: Message) -> Iterator[str]:
    """`name = value` for each option that is set; repeated ones once for each value."""
    for field, value in options.ListFields():
        name = f"({field.full_name})" if field.is_extension else field.name
        for item in value if field.is_repeated else [value]:
            yield f"{name} = {_literal(field, item)}"


def _literal(field: FieldDescriptor, value: object) -> str:
    if isinstance(value, Message):
        return f"{{ {text_format.MessageToString(value, as_one_line=True)} }}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, int) and field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return str(value)


def _bracketed(options: list[str]) -> str:
    return f" [{', '.join(options)}]" if options else ""


def _range(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {'max' if last >= _MAX_FIELD_NUMBER else last}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _indent(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)

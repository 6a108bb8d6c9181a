"""Messages and enums -> JSON Schema, in the JSON that the edge speaks (proto field names, 64-bit integers as strings).

A message that is both sent and received has two schemas, since a client may send an integer as a number and no UNSPECIFIED,
and receives every plain field: `MoneyInput` and `Money`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor

from paymesh.mesh.v1 import policy_pb2
from services.contract.comments import comment_of
from services.mesh.openapi import rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor import Descriptor, EnumDescriptor

Json = dict[str, Any]
NONE: Final[frozenset[str]] = frozenset()


class Side(StrEnum):
    """Whether a client sends a value or receives it."""

    SENT = "Input"
    RECEIVED = ""


_INT64: Final = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_WIDE: Final = frozenset({"int64", "uint64"})
_INT32: Final = {"type": "integer", "format": "int32"}
_SCALARS: Final[dict[int, Json]] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "format": "int32", "minimum": 0},
    FieldDescriptor.TYPE_FIXED32: {"type": "integer", "format": "int32", "minimum": 0},
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: {**_INT64, "format": "uint64", "pattern": "^[0-9]{1,20}$"},
    FieldDescriptor.TYPE_FIXED64: {**_INT64, "format": "uint64", "pattern": "^[0-9]{1,20}$"},
}
_WELL_KNOWN: Final[dict[str, Json]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+([.][0-9]{1,9})?s$"},
}


def is_plain(message: Descriptor) -> bool:
    """Whether a message is one JSON value (a time, a duration), not an object of its fields."""
    return message.full_name in _WELL_KNOWN


def is_raw(message: Descriptor | None) -> bool:
    """Whether a message is an HTTP body as it came: bytes of any media type, which no schema describes."""
    return message is not None and message.full_name == "google.api.HttpBody"


def name(described: Descriptor | EnumDescriptor, side: Side) -> str:
    """Name of a component: `Payment.Method` as sent is `PaymentMethodInput`; a request is sent by its name already."""
    package: str = described.file.package
    short = described.full_name.removeprefix(f"{package}.").replace(".", "")
    return short if short.endswith("Request") else f"{short}{side}"


def reference(described: Descriptor | EnumDescriptor, side: Side) -> Json:
    """A `$ref` to the component of a message or enum."""
    return {"$ref": f"#/components/schemas/{name(described, side)}"}


def of_field(field: FieldDescriptor, side: Side) -> Json:
    """Schema of a field with its rules and its comment."""
    stated = rules.of_field(field)
    if not field.is_repeated:
        schema = _value(field, side) | rules.keywords(stated)
    else:
        item = _value(field, side) | rules.keywords(rules.items(stated))
        schema = {"type": "array", "items": item} | rules.keywords(stated)
    if side is Side.SENT and schema.get("type") == "string" and schema.get("format") in _WIDE:
        schema |= _also_a_number(schema)
    if comment := comment_of(field.full_name):
        schema["description"] = comment
    return schema | _data_class(field, side)


def _also_a_number(schema: Json) -> Json:
    """A 64-bit integer may be sent as a number too; its bounds are keywords then."""
    names = {"x-minimum": "minimum", "x-maximum": "maximum"}
    return {"type": ["string", "integer"], **{names[key]: int(schema[key]) for key in names if key in schema}}


def of_message(message: Descriptor, side: Side, without: frozenset[str] = NONE) -> Json:
    """Schema of an object; `without` are the fields that the path carries."""
    fields = [field for field in message.fields if field.name not in without]
    schema: Json = {"type": "object"}
    if text := "\n\n".join(filter(None, [comment_of(message.full_name), *_sentences(message, side)])):
        schema["description"] = text
    schema["properties"] = {field.name: of_field(field, side) for field in fields}
    needed = rules.required(message) if side is Side.SENT else _always_written(message)
    if listed := [field.name for field in fields if field.name in needed]:
        schema["required"] = listed
    if side is Side.SENT:
        # The edge ignores what it does not know: no option of its transcoder refuses it.
        schema["additionalProperties"] = True
        schema["properties"] = {
            key: value if key in needed else _or_null(value) for key, value in schema["properties"].items()
        }
        schema |= _choices(message)
    return schema


def of_enum(enum: EnumDescriptor, side: Side) -> Json:
    """Schema of an enum by names; the zero value cannot be sent."""
    values = [value for value in enum.values if value.number or side is Side.RECEIVED]
    scope = enum.full_name.rpartition(".")[0]
    lines = [f"- `{value.name}`: {comment_of(f'{scope}.{value.name}')}" for value in values if value.number]
    text = "\n".join([comment_of(enum.full_name), "", *lines])
    return {"type": "string", "description": text, "enum": [value.name for value in values]}


def components(roots: Iterable[tuple[Descriptor, Side]]) -> dict[str, Json]:
    """Schemas of the roots' fields, and of everything below them, by component name. The roots themselves are not in."""
    found: dict[str, tuple[str, Json]] = {}
    waiting = [(below, side) for root, side in roots for below in _below(root)]
    while waiting:
        described, side = waiting.pop()
        key = name(described, side)
        if key in found:
            if found[key][0] != described.full_name:
                raise ValueError(f"{found[key][0]} and {described.full_name} have the same component name {key}")
            continue
        is_enum = hasattr(described, "values")
        found[key] = (described.full_name, of_enum(described, side) if is_enum else of_message(described, side))
        waiting += [] if is_enum else [(below, side) for below in _below(described)]
    return {key: found[key][1] for key in sorted(found)}


def _below(message: Descriptor) -> Iterator[Any]:
    """Messages and enums that the fields of a message name."""
    for field in message.fields:
        below = field.message_type
        if field.enum_type is not None:
            yield field.enum_type
        elif below is not None and not is_plain(below) and not is_raw(below):
            yield below


def _value(field: FieldDescriptor, side: Side) -> Json:
    """Schema of one value of a field, rules aside."""
    if field.enum_type is not None:
        return reference(field.enum_type, side)
    if field.message_type is not None:
        plain = _WELL_KNOWN.get(field.message_type.full_name)
        return dict(plain) if plain else reference(field.message_type, side)
    return dict(_SCALARS[field.type])


def _always_written(message: Descriptor) -> frozenset[str]:
    """The fields that an answer has in any case: the edge writes zeros too, and leaves out what is not there at all."""
    return frozenset(field.name for field in message.fields if not field.has_presence)


def _sentences(message: Descriptor, side: Side) -> list[str]:
    said = rules.sentences(message) if side is Side.SENT else []
    return [f"Rule: {sentence}." for sentence in said]


def _choices(message: Descriptor) -> Json:
    """`oneOf` of the members of the oneof that must be given; a message has at most one such."""
    for choice in message.oneofs:
        if rules.one_of(choice):
            return {"oneOf": [_given(field.name) for field in choice.fields]}
    return {}


def _given(name: str) -> Json:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _or_null(schema: Json) -> Json:
    """A field that need not be there may be null, which is the same to protobuf."""
    if "$ref" in schema:
        return {
            **{key: value for key, value in schema.items() if key != "$ref"},
            "anyOf": [_only(schema), {"type": "null"}],
        }
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    listed = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [*kinds, "null"]} | listed


def _only(schema: Json) -> Json:
    return {"$ref": schema["$ref"]}


def _data_class(field: FieldDescriptor, side: Side) -> Json:
    """How sensitive a field is, where it is; a secret that is sent never comes back."""
    kind = field.GetOptions().Extensions[policy_pb2.data_class]
    if not kind:
        return {}
    word = policy_pb2.DataClass.Name(kind).removeprefix("DATA_CLASS_").lower()
    secret = {"format": "password"} if word in {"secret", "cvv"} and side is Side.SENT else {}
    return {"x-paymesh-data-class": word} | secret

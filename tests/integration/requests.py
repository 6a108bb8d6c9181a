"""Requests of any method, made from its descriptor: one that every rule accepts, and one that breaks as many as it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode

import protovalidate
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import FieldDescriptor

from services.mesh.openapi import samples
from services.mesh.openapi.operations import path_fields
from tests.fakes.rooms import message_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from services.contract.model import Method

_NUMBERS = (0, -1, 2**31 - 1)
_TEXTS = ("~!", "", "x" * 201, "x" * 4097)
"""Values that rules refuse, the plainest first; none has a slash, which no path may hold."""


def described(method: Method) -> Descriptor:
    """The descriptor of a method's request."""
    return descriptor_pool.Default().FindMessageTypeByName(method.request)


def valid(method: Method) -> Message:
    """The request that the OpenAPI page shows; a raw body holds a word."""
    request = message_of(method.request)()
    raw = method.http.body.strip("*") if method.http else ""
    json_format.ParseDict(samples.of_message(described(method), frozenset({raw})), request)
    if raw:
        getattr(request, raw).content_type, getattr(request, raw).data = "text/plain", b"word"
    return request


def invalid(method: Method) -> Message | None:
    """The same with a value that is refused in each field that has one; None: there is nothing to refuse."""
    request, owner = valid(method), method.owner
    in_path = path_fields(method.http) if method.http else frozenset()
    # Where no scope lifts it, the owner's rule speaks before those of the fields.
    kept = owner.field if owner and not owner.lifted_by else ""
    _spoil(request, request, in_path, kept)
    return request if violations(request) else None


def violations(request: Message) -> tuple[str, ...]:
    """The fields that break a rule, sorted, as a refusal names them; "" for a rule of the whole message."""
    found = protovalidate.collect_violations(request)
    return tuple(sorted(_path(violation.proto.field) for violation in found))


def _path(field: Any) -> str:  # noqa: ANN401 - a message of protovalidate's own runtime
    path = ""
    for element in field.elements if field else ():
        path += f".{element.field_name}" if path else element.field_name
        path += f"[{element.subscript.value}]" if element.subscript is not None else ""
    return path


def _spoil(whole: Message, part: Message, in_path: Container[str] = (), kept: str = "") -> None:
    """Put the first value that breaks one more rule into each field of a part of a request, but the one that is kept."""
    for field in cast("Descriptor", part.DESCRIPTOR).fields:
        if field.name == kept:
            continue
        if field.message_type is not None and not field.is_repeated:
            if part.HasField(field.name):
                _spoil(whole, getattr(part, field.name))
            continue
        before = len(violations(whole))
        good = getattr(part, field.name)
        for bad in _candidates(field):
            if field.name in in_path and bad == "":
                continue  # that would be another route
            _set(part, field, bad)
            if len(violations(whole)) > before:
                break
            _set(part, field, list(good) if field.is_repeated else good)


def _candidates(field: FieldDescriptor) -> Iterator[object]:
    if field.is_repeated:
        yield []
    elif field.enum_type is not None:
        yield 99
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING and field.type != FieldDescriptor.TYPE_BYTES:
        yield from _TEXTS
    elif field.cpp_type not in {FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_STRING}:
        yield from _NUMBERS


def _set(message: Message, field: FieldDescriptor, value: object) -> None:
    message.ClearField(field.name)
    if isinstance(value, list):
        getattr(message, field.name).extend(value)
    elif value != field.default_value or field.has_presence:
        setattr(message, field.name, value)


def at_rest(method: Method, request: Message) -> tuple[str, str, dict[str, Any]]:
    """Return verb, path with query, and what httpx is to send, by which a request is made at REST."""
    http, said = method.http, json_format.MessageToDict(request, preserving_proto_field_name=True)
    assert http is not None, f"{method.full_name} has no route"
    path = http.path
    for name in path_fields(http):
        path = path.replace("{" + name + "}", quote(str(getattr(request, name)), safe=""))
        said.pop(name, None)
    if http.body == "*":
        return http.verb, path, {"json": said}
    if http.body:
        raw = getattr(request, http.body)
        return http.verb, path, {"content": raw.data, "headers": {"content-type": raw.content_type}}
    query = urlencode(list(_flat(said)))
    return http.verb, f"{path}?{query}" if query else path, {}


def _flat(said: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in said.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            for each in value if isinstance(value, list) else [value]:
                yield f"{prefix}{name}", str(each).lower() if isinstance(each, bool) else str(each)

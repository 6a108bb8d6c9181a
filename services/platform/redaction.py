"""Messages as dictionaries for logs, with what the contract calls sensitive masked."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from paymesh.mesh.v1 import policy_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

MASK = "***"


@cache
def _sensitive(descriptor: Descriptor) -> frozenset[str]:
    """Names of the fields of a message that carry a data class or debug_redact."""
    return frozenset(
        field.name
        for field in descriptor.fields
        if field.GetOptions().Extensions[policy_pb2.data_class] or field.GetOptions().debug_redact
    )


def redacted(message: Message) -> dict[str, Any]:
    """Render the fields that are set, sensitive ones as ``***``. For logs; not fast."""
    hidden = _sensitive(message.DESCRIPTOR)
    return {f.name: MASK if f.name in hidden else _value(f, value) for f, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:  # noqa: ANN401 - any protobuf value
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        return list(value) if field.is_repeated else value
    return [redacted(item) for item in value] if field.is_repeated else redacted(value)

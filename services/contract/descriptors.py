"""The generated files that make up the contract, and their descriptor set (with everything that they import)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from google.api import annotations_pb2 as _http  # registers google.api.http
from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2, status_pb2

from paymesh.config.v1 import config_event_pb2, config_service_pb2
from paymesh.error.v1 import error_reason_pb2
from paymesh.gateway.v1 import gateway_service_pb2
from paymesh.mesh.v1 import policy_pb2
from paymesh.notification.v1 import notification_event_pb2, notification_service_pb2
from paymesh.order.v1 import order_event_pb2, order_service_pb2
from paymesh.payment.v1 import payment_event_pb2, payment_service_pb2
from paymesh.risk.v1 import risk_event_pb2, risk_service_pb2
from paymesh.user.v1 import user_event_pb2, user_service_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FileDescriptor

FILES: tuple[FileDescriptor, ...] = tuple(
    module.DESCRIPTOR
    for module in (
        user_service_pb2, user_event_pb2, order_service_pb2, order_event_pb2, payment_service_pb2, payment_event_pb2,
        risk_service_pb2, risk_event_pb2, notification_service_pb2, notification_event_pb2, config_service_pb2,
        config_event_pb2, gateway_service_pb2, error_reason_pb2,
    )
)  # fmt: skip


@cache
def descriptor_set() -> bytes:
    """Serialize FILES and all that they import, dependencies first.

    google.rpc.Status and its details are in it although no contract imports them: without them Envoy's transcoder
    renders an error with details as an empty body.
    """
    seen: dict[str, FileDescriptor] = {}

    def visit(file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            visit(dependency)
        seen.setdefault(file.name, file)

    for file in (_http.DESCRIPTOR, status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR, *FILES):
        visit(file)
    out = descriptor_pb2.FileDescriptorSet()
    for file in seen.values():
        file.CopyToProto(out.file.add())
    return out.SerializeToString(deterministic=True)


@cache
def carries_secret(message: str) -> bool:
    """Whether a message (its full name), or one inside it, has a field of the data class SECRET."""
    seen: set[str] = set()

    def secret(descriptor: Descriptor) -> bool:
        if descriptor.full_name in seen:
            return False
        seen.add(descriptor.full_name)
        return any(
            field.GetOptions().Extensions[policy_pb2.data_class] == policy_pb2.DATA_CLASS_SECRET
            or (field.message_type is not None and secret(field.message_type))
            for field in descriptor.fields
        )

    return secret(descriptor_pool.Default().FindMessageTypeByName(message))

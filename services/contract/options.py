"""What the options of a method say: its policy, its REST mapping, and whether a repeat of a call is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import MethodOptions

from paymesh.mesh.v1 import policy_pb2
from services.contract.model import Http

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.duration_pb2 import Duration

_READS = ("Get", "List", "BatchGet")


def policy_of(method: MethodDescriptor) -> policy_pb2.MethodPolicy:
    """Return a method's policy; an empty one where it states none."""
    return method.GetOptions().Extensions[policy_pb2.method]


def http_of(method: MethodDescriptor) -> Http | None:
    """Return the REST mapping of a method; None where it has none."""
    options, extension = method.GetOptions(), cast("Any", annotations_pb2.http)  # its stubs call it a plain field
    if not options.HasExtension(extension):
        return None
    rule = options.Extensions[extension]
    verb = str(rule.WhichOneof("pattern"))
    return Http(verb.upper(), str(getattr(rule, verb)), rule.body, rule.response_body)


def reads(method: MethodDescriptor) -> bool:
    """Whether a method changes nothing: it is a GET, is named as a read, or says that it has no side effects."""
    http = http_of(method)
    named = http.verb == "GET" if http else method.name.startswith(_READS)
    return named or method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS


def repeatable(method: MethodDescriptor) -> bool:
    """Whether a call that may have been handled may be made again, since two have the effect of one.

    So it is where a method reads, never works without an idempotency key, or says so by protobuf's own option.
    """
    keyed = policy_of(method).idempotency.mode == policy_pb2.IDEMPOTENCY_MODE_REQUIRED
    return keyed or reads(method) or method.GetOptions().idempotency_level == MethodOptions.IDEMPOTENT


def ms(duration: Duration) -> int:
    """Return a duration in milliseconds."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000

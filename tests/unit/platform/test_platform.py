"""Settings, status mapping, redaction: what every room relies on, without a socket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from google.api import httpbody_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from paymesh.mesh.v1 import policy_pb2
from paymesh.payment.v1 import payment_service_pb2
from paymesh.user.v1 import user_service_pb2
from services.contract.load import contract
from services.kernel.errors import DomainError
from services.platform.redaction import redacted
from services.platform.settings import ServiceSettings, SettingsError, load, setting
from services.platform.status import InvalidArgument, grpc_code, status_of, text_of


@dataclass(frozen=True, kw_only=True)
class Example(ServiceSettings):
    """Settings of an example."""

    ratio: float = setting("A share.", 0.5, low=0, high=1)
    eager: bool = setting("A switch.", default=False)


def test_settings_report_every_fault_at_once() -> None:
    """Missing, unreadable and out of range, all in one go, each with its name and what it is for."""
    environ = {"PAYMESH_RATIO": "2", "PAYMESH_EAGER": "perhaps", "PAYMESH_INSTANCE": "x", "PAYMESH_LISTEN": "unix:a",
               "PAYMESH_LOG_LEVEL": "loud", "PAYMESH_TRACE_RATIO": "nan"}  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        load(Example, environ)
    assert [fault.split("=")[0].split(" ")[0] for fault in caught.value.faults] == [
        "PAYMESH_DATA", "PAYMESH_INSTANCE", "PAYMESH_LOG_LEVEL", "PAYMESH_TRACE_RATIO", "PAYMESH_RATIO", "PAYMESH_EAGER",
    ]  # fmt: skip


def test_settings_take_types_from_their_fields() -> None:
    """Text becomes what the field says; an empty variable counts as not set."""
    loaded = load(
        Example, {"PAYMESH_DATA": "/d", "PAYMESH_LISTEN": "unix:a", "PAYMESH_EAGER": "true", "PAYMESH_RATIO": ""}
    )
    assert (loaded.data, loaded.eager, loaded.ratio) == (Path("/d"), True, 0.5)


@pytest.mark.parametrize("reason", sorted(contract().reasons))
def test_every_reason_becomes_a_status_with_one_error_info(reason: str) -> None:
    """Code and text are the contract's, no place of the text stays open, and there is exactly one ErrorInfo."""
    policy = contract().reasons[reason]
    error = DomainError(reason, **dict.fromkeys(policy.metadata, "42"))
    status = status_of(error)
    assert grpc_code(status).name == policy.code
    for language in ("en", "zh-CN"):
        assert "{" not in text_of(error, language)
    [detail] = status.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert (info.reason, info.domain, set(info.metadata)) == (reason, "paymesh", set(policy.metadata))


def test_violations_are_listed_beside_the_error_info() -> None:
    """Every violation at once, with field, rule and text."""
    status = status_of(InvalidArgument([("a.b", "string.min_len", "too short"), ("", "cel", "no")]))
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [(v.field, v.reason, v.description) for v in bad.field_violations] == [
        ("a.b", "string.min_len", "too short"),
        ("", "cel", "no"),
    ]


def test_logs_never_show_what_the_contract_calls_sensitive() -> None:
    """Passwords, addresses and phones are masked by the data class of their field."""
    request = user_service_pb2.RegisterUserRequest(
        username="ann", email="ann@example.com", password="correct horse", phone="+8613800000000"
    )
    assert redacted(request) == {"username": "***", "email": "***", "password": "***", "phone": "***"}


CANARY = "4242424242424242"


@pytest.mark.parametrize("request_name", sorted(method.request for method in contract().methods.values()))
def test_logs_never_show_a_field_that_has_a_data_class(request_name: str) -> None:
    """Whatever a caller sends: each text with a data class is masked, however deep it lies, and the others are shown."""
    request = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(request_name))()
    hidden, shown = _fill(request)
    said = repr(redacted(request))
    assert CANARY not in said
    assert said.count("***") == hidden
    assert said.count("plain") == shown


def test_logs_never_show_what_a_callback_says() -> None:
    """A forged one is logged as refused, and may be a MiB that a stranger wrote."""
    body = httpbody_pb2.HttpBody(content_type="text/plain", data=CANARY.encode())
    request = payment_service_pb2.HandleCallbackRequest(provider="alipay", body=body)
    assert redacted(request) == {"provider": "alipay", "body": "***"}


def _fill(message: Message) -> tuple[int, int]:
    """Put the canary into every field with a data class, and "plain" into every other text; return how many of each."""
    hidden = shown = 0
    for field in message.DESCRIPTOR.fields:
        classed = field.GetOptions().Extensions[policy_pb2.data_class] != policy_pb2.DATA_CLASS_UNSPECIFIED
        if field.message_type is not None and field.message_type.full_name == "google.api.HttpBody":
            getattr(message, field.name).data = CANARY.encode()
            hidden += 1
        elif field.message_type is not None and not classed:
            value = getattr(message, field.name)
            more = _fill(value.add() if field.is_repeated else value)
            hidden, shown = hidden + more[0], shown + more[1]
        elif field.type == FieldDescriptor.TYPE_STRING:
            text = CANARY if classed else "plain"
            message.ClearField(field.name)
            if field.is_repeated:
                getattr(message, field.name).append(text)
            else:
                setattr(message, field.name, text)
            hidden, shown = hidden + classed, shown + (not classed)
    return hidden, shown

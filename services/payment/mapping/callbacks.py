"""Callbacks of providers: raw bytes and headers in, raw bytes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api import httpbody_pb2

from paymesh.payment.v1 import payment_service_pb2 as pb
from services.payment.domain import Method
from services.payment.ports.provider import Acknowledgement, Callback

if TYPE_CHECKING:
    from services.platform.interceptor import Call


def callback(call: Call, request: pb.HandleCallbackRequest) -> tuple[Method, Callback]:
    """Read a callback: the bytes as they came, and the headers, which the edge passes on as metadata."""
    headers = {name: value for name, value in call.metadata.items() if isinstance(value, str)}
    return Method(request.provider), Callback(headers, request.body.data)


def acknowledgement(said: Acknowledgement) -> pb.HandleCallbackResponse:
    """Render the provider's own words."""
    return pb.HandleCallbackResponse(body=httpbody_pb2.HttpBody(content_type=said.content_type, data=said.body))

"""Payment methods: protobuf <-> domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.payment.v1 import saved_payment_method_pb2
from services.payment import usecases
from services.payment.domain.card import Expiry, Pan
from services.payment.mapping.payments import card
from services.platform import wire

if TYPE_CHECKING:
    from paymesh.payment.v1 import payment_service_pb2 as pb
    from services.payment.domain import SavedPaymentMethod
    from services.payment.domain.card import Card
    from services.platform.interceptor import Call


def card_number(request: pb.SavePaymentMethodRequest) -> tuple[Pan, Expiry]:
    """Read a card; its number is in clear in the `Pan` alone from here on. Refuses with INVALID_ARGUMENT."""
    pan = Pan(request.card_number)
    request.ClearField("card_number")
    return pan, Expiry(request.expire_year, request.expire_month)


def save_payment_method(call: Call, request: pb.SavePaymentMethodRequest, kept: Card) -> usecases.SavePaymentMethod:
    """Read a request to keep a card, which is in the vault as ``kept``."""
    return usecases.SavePaymentMethod(call.caller, kept, request.make_default)


def set_default_payment_method(
    call: Call, request: pb.SetDefaultPaymentMethodRequest
) -> usecases.SetDefaultPaymentMethod:
    """Read a request to make a card the default."""
    return usecases.SetDefaultPaymentMethod(call.caller, request.id)


def remove_payment_method(call: Call, request: pb.RemovePaymentMethodRequest) -> usecases.RemovePaymentMethod:
    """Read a request to forget a card."""
    return usecases.RemovePaymentMethod(call.caller, request.id)


def payment_method(m: SavedPaymentMethod) -> saved_payment_method_pb2.SavedPaymentMethod:
    """Render a card that is kept."""
    return saved_payment_method_pb2.SavedPaymentMethod(
        id=m.id,
        user_id=m.user_id,
        card=card(m.card),
        is_default=m.is_default,
        create_time=wire.timestamp(m.create_ms),
    )

"""Which messages carry a secret."""

from __future__ import annotations

import pytest

from services.contract.descriptors import carries_secret


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("paymesh.user.v1.Session", True),
        ("paymesh.user.v1.LoginUserResponse", True),  # inside its session
        ("paymesh.notification.v1.RotateWebhookSecretResponse", True),
        ("paymesh.payment.v1.GetPaymentResponse", False),
        ("paymesh.user.v1.GetUserResponse", False),
    ],
)
def test_secret_is_found_wherever_it_is_in_a_message(message: str, said: bool) -> None:  # noqa: FBT001
    """The answer of such a method is neither kept nor compressed by anybody."""
    assert carries_secret(message) is said

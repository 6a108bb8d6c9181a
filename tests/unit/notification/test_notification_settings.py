"""Settings of the notification room."""

from __future__ import annotations

import pytest

from services.notification.settings import Settings
from services.platform.settings import SettingsError, load

GOOD = {
    "PAYMESH_DATA": "d",
    "PAYMESH_LISTEN": "unix:n.sock",
    "PAYMESH_SMTP": "mail.example:25",
    "PAYMESH_SMS_URL": "https://sms.example/send",
    "PAYMESH_PUSH_URL": "http://127.0.0.1:9/pushes",
}


def test_addresses_are_read() -> None:
    """As they were written."""
    settings = load(Settings, GOOD)
    assert (settings.smtp, settings.sms_url) == (GOOD["PAYMESH_SMTP"], GOOD["PAYMESH_SMS_URL"])


def test_every_fault_is_told_at_once() -> None:
    """What is no address would else be found with the first message."""
    wrong = GOOD | {"PAYMESH_SMTP": "mail.example", "PAYMESH_SMS_URL": "sms.example", "PAYMESH_SENDERS": "0"}
    with pytest.raises(SettingsError) as raised:
        load(Settings, wrong)
    assert [fault.partition("=")[0] for fault in raised.value.faults] == [
        "PAYMESH_SMTP",
        "PAYMESH_SMS_URL",
        "PAYMESH_SENDERS",
    ]


@pytest.mark.parametrize("smtp", ["mail:0", "mail:65536", ":25", "mail:x"])
def test_bad_port_is_refused(smtp: str) -> None:
    """Host and a port that exists."""
    with pytest.raises(SettingsError):
        load(Settings, GOOD | {"PAYMESH_SMTP": smtp})

"""Card numbers: what they say by themselves, and what the test cards do."""

from __future__ import annotations

import re
from dataclasses import dataclass

BRANDS = (
    ("visa", r"4"),
    ("mastercard", r"5[1-5]|2(22[1-9]|2[3-9]|[3-6]|7[01]|720)"),
    ("amex", r"3[47]"),
    ("unionpay", r"62|81"),
    ("jcb", r"35(2[89]|[3-8])"),
    ("discover", r"6011|64[4-9]|65"),
    ("diners", r"3(0[0-5]|[689])"),
)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a test card does.

    ``code`` fails it; ``trans_status`` is 3DS2's; ``answer`` is what comes back instead of the outcome: drop, hang or
    failed; ``late`` lets the outcome come by callback alone; ``callbacks`` come at once.
    """

    code: str = ""
    trans_status: str = ""
    answer: str = ""
    late: bool = False
    callbacks: int = 1


APPROVED = Behaviour()
TEST_CARDS = {
    "4242424242424242": APPROVED,
    "4000000000000002": Behaviour("card_declined"),
    "4000000000009995": Behaviour("insufficient_funds"),
    "4000000000000119": Behaviour("processing_error"),
    "4000002500003155": Behaviour(trans_status="C"),
    "4000000000070013": Behaviour(answer="drop"),
    "4000000000070021": Behaviour(answer="hang"),
    "4000000000070039": Behaviour(callbacks=50),
    "4000000000070047": Behaviour(late=True),
    "4000000000070054": Behaviour("card_declined", late=True),
    "4000000000070062": Behaviour(answer="failed"),
    "4000000000070070": Behaviour(trans_status="A"),
    "4000000000070088": Behaviour(trans_status="N"),
    "4000000000070096": Behaviour(trans_status="U"),
    "4000000000070104": Behaviour(trans_status="R"),
    "4000000000070112": Behaviour(trans_status="D"),
    "4000000000070120": Behaviour(trans_status="I"),
}
AUTHENTICATION_CODES = {"N": "authentication_failed", "U": "authentication_unavailable", "R": "authentication_rejected"}
"""transStatus that ends the charge -> why."""


def luhn(number: str) -> bool:
    """Tell whether a number has 12 to 19 digits and the right last one."""
    if not re.fullmatch(r"[0-9]{12,19}", number):
        return False
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[0::2] + [2 * each - 9 * (each > 4) for each in digits[1::2]]) % 10 == 0


def brand(number: str) -> str:
    """Return the brand by the prefix; "" for an unknown one."""
    return next((name for name, prefix in BRANDS if re.match(prefix, number)), "")

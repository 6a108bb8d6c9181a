"""Card numbers, verification values, expiry: what is refused, what is shown, and what never is."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.errors import DomainError
from services.payment.domain.card import (
    TRANS_STATUS,
    Authentication,
    Brand,
    Cvv,
    CvvUsed,
    Expiry,
    Pan,
    brand_of,
    luhn_valid,
    shown,
)

DAY = 86_400_000
END_OF_2026 = 1_798_761_600_000
"""2027-01-01T00:00:00Z."""

BRANDS = {
    "4242424242424242": Brand.VISA,
    "4000000000000002": Brand.VISA,
    "4222222222222": Brand.VISA,
    "5555555555554444": Brand.MASTERCARD,
    "2223003122003222": Brand.MASTERCARD,
    "2720992720992729": Brand.MASTERCARD,
    "378282246310005": Brand.AMEX,
    "343434343434343": Brand.AMEX,
    "6200000000000005": Brand.UNIONPAY,
    "6221260000000000": Brand.UNIONPAY,
    "8100000000000000": Brand.UNIONPAY,
    "3566002020360505": Brand.JCB,
    "6011111111111117": Brand.DISCOVER,
    "6500000000000002": Brand.DISCOVER,
    "30569309025904": Brand.DINERS,
    "36227206271667": Brand.DINERS,
    "6759649826438453": Brand.MAESTRO,
    "5018000000000009": Brand.MAESTRO,
    "2200000000000004": Brand.MIR,
    "9000000000000001": Brand.OTHER,
}

WRITERS: tuple[Callable[[Any], object], ...] = (pickle.dumps, json.dumps, orjson.dumps, vars, hash, list, bytes)
"""What would make bytes of an object, or show what it holds."""


def check_digit(digits: str) -> str:
    """The number with the digit that makes it pass Luhn, found by trying all ten."""
    return next(digits + last for last in "0123456789" if luhn_valid(digits + last))


numbers = st.integers(11, 18).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n)).map(check_digit)
"""Digits of 12 to 19 that pass Luhn."""


@pytest.mark.parametrize(("digits", "brand"), BRANDS.items())
def test_brand_is_told_by_the_prefix(digits: str, brand: Brand) -> None:
    """Published test numbers and the edges of the ranges."""
    number = digits if luhn_valid(digits) else check_digit(digits[:-1])
    assert Pan(number).brand is brand


def test_number_is_read_as_people_type_it() -> None:
    """Blanks and dashes stand for nothing."""
    assert Pan("4242 4242 4242 4242") == Pan("4242-4242-4242-4242") == Pan("4242424242424242")
    assert Pan("4242424242424242") != Pan("4000000000000002")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4242424242424241",  # the check digit is wrong
        "42424242424",  # too short
        "4242424242424242424242",  # too long
        "424242424242424\u0662",  # a digit, but none of ASCII
        "4242x42424242424242",
        "424242424242",  # passes nothing: Visa issues no twelve digits
        "3782822463100050",  # American Express has fifteen
        " ",
        "-",
        "+424242424242424",
    ],
)
def test_number_is_refused_without_being_repeated(text: str) -> None:
    """The refusal names the field and never what was typed."""
    with pytest.raises(DomainError) as caught:
        Pan(text)
    assert (caught.value.reason, caught.value.metadata) == ("INVALID_ARGUMENT", {"field": "card_number"})
    assert caught.value.__context__ is None


@given(numbers, st.data())
def test_one_wrong_digit_never_passes(number: str, data: st.DataObject) -> None:
    """Luhn finds every single slip."""
    place = data.draw(st.integers(0, len(number) - 1))
    wrong = data.draw(st.sampled_from([d for d in "0123456789" if d != number[place]]))
    assert luhn_valid(number)
    assert not luhn_valid(number[:place] + wrong + number[place + 1 :])


@given(numbers)
def test_first_six_and_last_four_are_shown_at_most(number: str) -> None:
    """And five digits are hidden at least, however short the number is."""
    first, last = shown(number)
    assert len(first) <= 6
    assert len(last) == 4
    assert number.startswith(first)
    assert number.endswith(last)
    assert len(number) - len(first) - len(last) >= 5
    assert brand_of(number) in Brand


@given(numbers.filter(lambda number: brand_of(number) is Brand.OTHER))
def test_number_never_stands_in_a_text_made_of_it(number: str) -> None:
    """Text of any kind is masked; nothing that writes objects down takes it."""
    pan = Pan(number)
    nested = {"card": [pan, (pan,)]}
    texts = [str(pan), repr(pan), f"{pan}", f"{pan!r}", f"{pan:>40}", "%s %r" % (pan, pan), "{}".format(pan)]  # noqa: UP031, UP032
    texts += [repr(nested), str(nested), json.dumps(nested, default=repr), orjson.dumps(nested, default=repr).decode()]
    for text in texts:
        assert number not in text
        assert pan.last4 in text
    for refused in WRITERS:
        with pytest.raises(TypeError) as caught:
            refused(pan)
        assert number not in str(caught.value)
    assert copy.deepcopy(nested)["card"][0] is pan
    assert pan.reveal() == number


def test_verification_value_is_taken_once() -> None:
    """The second taker gets nothing, and no text ever has it."""
    cvv = Cvv("987")
    assert "987" not in f"{cvv} {cvv!r} {cvv:>9} {[cvv]}"
    for refused in WRITERS:
        with pytest.raises(TypeError):
            refused(cvv)
    assert cvv.take() == "987"
    with pytest.raises(CvvUsed):
        cvv.take()


@pytest.mark.parametrize("text", ["", "12", "12345", "12a", "١٢٣", " 12"])
def test_verification_value_is_refused_without_being_repeated(text: str) -> None:
    """Three or four digits of ASCII."""
    with pytest.raises(DomainError) as caught:
        Cvv(text)
    assert caught.value.metadata == {"field": "cvv"}


def test_verification_value_has_the_length_of_its_brand() -> None:
    """Four digits on an American Express card, three on every other."""
    Cvv("1234").check_fits(Brand.AMEX)
    Cvv("123").check_fits(Brand.VISA)
    for text, brand in (("123", Brand.AMEX), ("1234", Brand.UNIONPAY)):
        with pytest.raises(DomainError):
            Cvv(text).check_fits(brand)


def test_card_lasts_until_its_month_has_ended_everywhere() -> None:
    """The month is part of it, and it ends last half a day west of Greenwich."""
    expiry = Expiry(2026, 12)
    expiry.check(END_OF_2026 - 30 * DAY)
    expiry.check(END_OF_2026 + DAY // 2 - 1)
    assert expiry.is_past(END_OF_2026 + DAY // 2)
    assert str(expiry) == "12/26"
    for refused in (Expiry(2026, 11), Expiry(2047, 1)):
        with pytest.raises(DomainError):
            refused.check(END_OF_2026 - 1)


@pytest.mark.parametrize(("year", "month"), [(2026, 0), (2026, 13), (26, 12), (10_000, 1)])
def test_expiry_is_a_month(year: int, month: int) -> None:
    """Nothing else is one."""
    with pytest.raises(DomainError) as caught:
        Expiry(year, month)
    assert caught.value.metadata == {"field": "expiry"}


def test_every_word_of_three_d_secure_has_its_meaning() -> None:
    """EMV 3-D Secure 2 knows eight, each with one outcome."""
    assert set(TRANS_STATUS) == set("YANURCDI")
    refused = {word for word, outcome in TRANS_STATUS.items() if outcome is Authentication.REFUSED}
    assert refused == {"N", "R"}
    assert {word for word, outcome in TRANS_STATUS.items() if outcome is Authentication.PROCEED} == {"Y", "A"}

"""Money at every entry: what is no amount is refused by name, what is one comes through to the unit, and is shown so.

Entries are found by walking the contract, so that a new field of a new request is tried too; beside them the words in
which providers write amounts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from hypothesis import assume, example, given
from hypothesis import strategies as st

from paymesh.type.v1 import money_pb2
from services.contract.load import contract
from services.kernel.currencies import EXPONENTS
from services.kernel.errors import DomainError
from services.kernel.money import MINOR_UNITS_MAX, Money
from services.payment.adapters.card import readings
from services.payment.adapters.china import fen, yuan
from services.platform import wire
from services.platform.interceptor import _VALIDATOR, _path

MONEY = money_pb2.Money.DESCRIPTOR
INT64 = st.integers(-(2**63), 2**63 - 1)
UNITS = st.one_of(
    INT64,
    st.integers(0, MINOR_UNITS_MAX),
    st.sampled_from([0, 1, -1, MINOR_UNITS_MAX, MINOR_UNITS_MAX + 1, MINOR_UNITS_MAX + 2, 2**63 - 1, -(2**63)]),
)
CODES = st.one_of(
    st.sampled_from(sorted(EXPONENTS)),
    st.sampled_from(
        [
            "XAU",
            "XAG",
            "XXX",
            "XTS",
            "XDR",
            "BTC",
            "cny",
            "CN",
            "CNYY",
            "CNY ",
            " CNY",
            "CNY\n",
            "",
            "\u03a7AU",
            "\uff23\uff2e\uff39",
        ]
    ),
    st.text(max_size=5),
    st.from_regex(r"[A-Z]{3}", fullmatch=True),
)
AMOUNTS = st.builds(Money, st.sampled_from(sorted(EXPONENTS)), st.integers(0, MINOR_UNITS_MAX))
Path = tuple[FieldDescriptor, ...]


def _entries(message: Descriptor, seen: tuple[Descriptor, ...] = ()) -> Iterator[Path]:
    """Paths from a message to each amount in it; a message within itself is not walked again."""
    for field in message.fields:
        inner = field.message_type
        if inner is None or inner in seen:
            continue
        if inner is MONEY:
            yield (field,)
        elif not inner.full_name.startswith("google."):
            yield from ((field, *rest) for rest in _entries(inner, (*seen, message)))


def entries() -> dict[str, tuple[Descriptor, Path]]:
    """``Request.field.field`` -> the request and the path to an amount in it, over every method."""
    names = sorted({method.request for method in contract().methods.values()})
    requests = (Default().FindMessageTypeByName(name) for name in names)
    return {
        ".".join([request.name, *(field.name for field in path)]): (request, path)
        for request in requests
        for path in _entries(request)
    }


ENTRIES = entries()


def filled(entry: str, code: str, units: int) -> Any:  # noqa: ANN401 - a message of any request
    """A request with this amount and nothing else."""
    descriptor, path = ENTRIES[entry]
    request: Any = message_factory.GetMessageClass(descriptor)()
    at = request
    for field in path:
        at = getattr(at, field.name).add() if field.is_repeated else getattr(at, field.name)
    at.SetInParent()
    at.currency_code, at.minor_units = code, units
    return request


def refused(entry: str, code: str, units: int) -> set[str]:
    """Which parts of the amount the contract refuses: currency_code, minor_units."""
    violations = _VALIDATOR.collect_violations(filled(entry, code, units))
    paths = {re.sub(r"\[\d+\]", "", _path(violation.proto)) for violation in violations}
    inside = ".".join(field.name for field in ENTRIES[entry][1])
    return {part for part in ("currency_code", "minor_units") if f"{inside}.{part}" in paths}


def utf8(text: str) -> bool:
    """Whether protobuf takes a text at all."""
    return not any("\ud800" <= each <= "\udfff" for each in text)


def test_entries_are_found() -> None:
    """A walk that finds none would try none."""
    assert {
        "CreatePaymentRequest.amount",
        "RefundPaymentRequest.amount",
        "TopUpBalanceRequest.amount",
    } <= ENTRIES.keys()
    assert {"SetStockRequest.unit_price", "AssessRiskRequest.amount"} <= ENTRIES.keys()


@pytest.mark.parametrize("entry", ENTRIES)
@given(code=CODES, units=UNITS)
@example("XAU", 1)
@example("JPY", MINOR_UNITS_MAX + 1)
@example("KWD", -1)
def test_amount_is_refused_by_name_or_comes_through(entry: str, code: str, units: int) -> None:
    """The contract refuses what no amount can look like, the kernel a currency without minor units; the rest is kept."""
    assume(utf8(code))
    expected = set() if re.fullmatch(r"[A-Z]{3}", code, re.ASCII) else {"currency_code"}
    if not 0 <= units <= MINOR_UNITS_MAX:
        expected |= {"minor_units"}
    assert refused(entry, code, units) == expected
    message = money_pb2.Money(currency_code=code, minor_units=units)
    if expected or code not in EXPONENTS:
        with pytest.raises(DomainError) as caught:
            wire.money_from(message)
        reason = "CURRENCY_UNSUPPORTED" if code not in EXPONENTS else "INVALID_ARGUMENT"
        assert caught.value.reason == reason
    else:
        amount = wire.money_from(message)
        assert (amount.currency_code, amount.minor_units) == (code, units)
        assert wire.money(amount) == message


@pytest.mark.parametrize("entry", ENTRIES)
def test_nothing_is_an_amount_only_where_it_makes_sense(entry: str) -> None:
    """An order, a refund or a top-up of nothing is refused; what a payer was shown, and a limit, may be zero."""
    descriptor, _ = ENTRIES[entry]
    rules = {str(v.proto.rule_id) for v in _VALIDATOR.collect_violations(filled(entry, "CNY", 0))}
    one = {str(v.proto.rule_id) for v in _VALIDATOR.collect_violations(filled(entry, "CNY", 1))}
    of_nothing = {"SetStock", "RefundPayment", "CapturePayment", "TopUpBalance", "WithdrawBalance"}
    assert bool(rules - one) == (descriptor.name.removesuffix("Request") in of_nothing)


NO_UNITS: list[str] = ["12.5", "1e-1", '"12.50"', '"1,000"', '"0x10"', '" 1"', '"1 "', '"+-1"', "NaN", "Infinity",
                       '"1e400"', "1e400", "true", "[1]", "{}", '""', str(2**63), f'"{2**63}"', str(-(2**63) - 1)]  # fmt: skip


@pytest.mark.parametrize("text", NO_UNITS)
def test_json_that_is_no_whole_number_is_refused(text: str) -> None:
    """Decimals, exponents that end in a fraction, signs, what does not fit; as every reader of protobuf's JSON does."""
    with pytest.raises(json_format.ParseError):
        json_format.Parse(f'{{"currencyCode": "JPY", "minorUnits": {text}}}', money_pb2.Money())


@given(amount=AMOUNTS)
def test_json_keeps_every_unit(amount: Money) -> None:
    """As a string, and also for readers that make a double of it."""
    text = json_format.MessageToJson(wire.money(amount), preserving_proto_field_name=True)
    assert wire.money_from(json_format.Parse(text, money_pb2.Money())) == amount
    written = json.loads(text).get("minor_units", "0")
    assert isinstance(written, str)
    assert int(float(written)) == int(written) == amount.minor_units


@given(amount=AMOUNTS)
@example(Money("JPY", 500))
@example(Money("KWD", 1))
@example(Money("CLF", MINOR_UNITS_MAX))
@example(Money("CNY", 0))
def test_shown_amount_is_the_amount(amount: Money) -> None:
    """With as many decimals as its currency has, none for JPY, three for KWD, and to the last unit."""
    number, code = str(amount).split(" ")
    exponent = EXPONENTS[amount.currency_code]
    assert code == amount.currency_code
    assert len(number.partition(".")[2]) == exponent
    assert ("." in number) == (exponent > 0)
    assert re.fullmatch(r"(0|[1-9]\d*)(\.\d+)?", number, re.ASCII)
    assert Decimal(number).scaleb(exponent) == amount.minor_units


@given(one=AMOUNTS, other=AMOUNTS, count=st.integers(0, 2**40))
def test_sums_are_exact_or_refused(one: Money, other: Money, count: int) -> None:
    """Never more than any reader keeps exact, never across currencies."""
    other_same = Money(one.currency_code, other.minor_units)
    works: list[tuple[Callable[[], Money], int]] = [
        (lambda: one.plus(other_same), one.minor_units + other.minor_units),
        (lambda: one.times(count), one.minor_units * count),
    ]
    for work, expected in works:
        if 0 <= expected <= MINOR_UNITS_MAX:
            assert work() == Money(one.currency_code, expected)
        else:
            with pytest.raises(DomainError):
                work()
    if other.currency_code != one.currency_code:
        with pytest.raises(DomainError) as caught:
            one.plus(other)
        assert caught.value.reason == "CURRENCY_UNSUPPORTED"


@given(units=st.integers(0, MINOR_UNITS_MAX))
def test_yuan_are_written_and_read_to_the_fen(units: int) -> None:
    """Two decimals on the way out; on the way in also fewer."""
    amount = Money("CNY", units)
    assert fen(yuan(amount)) == amount
    assert fen(yuan(amount).removesuffix("0").removesuffix(".0")) == amount


@given(text=st.one_of(st.text(max_size=12), st.from_regex(r"[-+]?[0-9]{0,18}[.,]?[0-9]{0,4}(e[0-9])?", fullmatch=True)))
@example("1.234")
@example("0.1e1")
@example("٣.00")
@example("1_000")
@example("-0.01")
@example("90071992547409.92")
def test_text_is_yuan_or_refused(text: str) -> None:
    """At most two decimals, no sign, no exponent, no other digits, not more than fits; nothing is rounded."""
    try:
        amount = fen(text)
    except ValueError:
        plain = re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]{1,2})?", text, re.ASCII)
        assert plain is None or Decimal(text) * 100 > MINOR_UNITS_MAX
    else:
        assert Decimal(text) * 100 == amount.minor_units


@given(
    units=st.one_of(
        UNITS, st.floats(), st.booleans(), st.none(), st.text(max_size=4), st.lists(st.integers(), max_size=1)
    ),
    code=st.one_of(CODES, st.none(), st.integers()),
)
def test_amount_of_the_card_network_is_read_or_refused(units: object, code: object) -> None:
    """A whole number that is more than nothing, of a currency that we know; a float or a truth is no number of units."""
    found: dict[str, object] = {"minor_units": units, "currency": code}
    try:
        amount = readings.money(found)
    except ValueError:
        fine = type(units) is int and 0 < units <= MINOR_UNITS_MAX and isinstance(code, str) and code in EXPONENTS
        assert not fine
    else:
        assert (amount.minor_units, amount.currency_code) == (units, code)
        assert type(units) is int

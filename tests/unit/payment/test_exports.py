"""The journal of a day as a file: over fakes here, over SQL in tests/integration/test_bills.py."""

from __future__ import annotations

import csv
import gzip

import pytest

from services.kernel.errors import DomainError
from services.payment import usecases
from services.payment.domain import Method
from services.payment.domain.bill import day_ms
from tests.fakes.bills import charged, given_back
from tests.unit.payment.test_bills import DAY, NEXT, NEXT_NOON, NOON, Shop, shop

__all__ = ["shop"]  # the fixture


def journal(shop: Shop, day: str) -> list[dict[str, str]]:
    """The lines of a day's file."""
    made = usecases.export_ledger(shop.ports, day)
    kept = shop.ports.outside.files.get(made.sha256)
    assert kept is not None
    lines = [*csv.DictReader(gzip.decompress(kept).decode().splitlines())]
    assert made == usecases.export_ledger(shop.ports, day) == (day, made.sha256, len(lines))
    return lines


def test_journal_of_a_day(shop: Shop) -> None:
    """Every entry of the day in UTC and of no other one; a transaction's debits and credits are equal."""
    one = charged(shop.ports, 1, 1000, NOON)
    given_back(shop.ports, one, 3, 200, NEXT_NOON)
    first, second = journal(shop, DAY), journal(shop, NEXT)
    assert [(x["kind"], x["reference_id"], x["account"], x["owner_id"], x["currency_code"]) for x in first] == [
        ("payment", "1", "clearing_alipay", "1", "CNY"), ("payment", "1", "merchant_settlement", "1", "CNY"),
    ]  # fmt: skip
    assert [x["amount_minor"] for x in first] == ["-1000", "1000"]
    assert {x["time"] for x in first} == {f"{DAY}T04:00:00.000+00:00"}
    assert [x["kind"] for x in second] == ["refund_payable"] * 2 + ["refund"] * 2
    assert sum(int(x["amount_minor"]) for x in second) == 0
    assert journal(shop, "2027-01-01") == []


@pytest.mark.parametrize("day", ["2027-01-17", "2027-01-16", "2027-02-30", "2027-13-01", ""])
def test_day_that_is_not_over_or_is_none(shop: Shop, day: str) -> None:
    """It is refused, and no file is made."""
    with pytest.raises(DomainError) as caught:
        usecases.export_ledger(shop.ports, day)
    assert caught.value.reason == "INVALID_ARGUMENT"
    assert shop.files.kept == {}


def test_day_is_over_ten_minutes_after_midnight(shop: Shop) -> None:
    """Not earlier, for another instance's clock may be late."""
    midnight = day_ms("2027-01-17", Method.BANK_CARD)[0]
    shop.clock.ms = midnight + 599_999
    with pytest.raises(DomainError):
        usecases.export_ledger(shop.ports, "2027-01-16")
    shop.clock.ms = midnight + 600_000
    assert usecases.export_ledger(shop.ports, "2027-01-16").entries == 0

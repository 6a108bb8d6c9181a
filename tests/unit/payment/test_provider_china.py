"""Amounts and times as the Chinese providers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.money import MINOR_UNITS_MAX, Money
from services.payment.adapters import china
from tests.fakes.provider_vectors import NOW_MS


@given(st.integers(0, MINOR_UNITS_MAX))
def test_yuan_when_read_again(fen: int) -> None:
    """Every amount comes back as it was written, without a float between."""
    amount = Money("CNY", fen)
    text = china.yuan(amount)
    assert china.fen(text) == amount
    assert text == str(amount).removesuffix(" CNY")


@pytest.mark.parametrize(
    ("text", "fen"), [("0.01", 1), ("0", 0), ("0.0", 0), ("1", 100), ("88.8", 8880), ("90071992547409.91", 2**53 - 1)]
)
def test_fen_when_well_written(text: str, fen: int) -> None:
    """One and two decimals and none are read."""
    assert china.fen(text) == Money("CNY", fen)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "-0.01",
        "+1",
        "1e2",
        "1.001",
        "1.",
        ".5",
        "01.00",
        "00",
        " 1",
        "1 ",
        "1\n",
        "1,000.00",
        "0x10",
        "NaN",
        "Infinity",
        "1_0",
        "\u0661",
        "\uff11.00",
        "90071992547409.92",
        "9" * 5000,
    ],
)
def test_fen_when_written_in_another_way(text: str) -> None:
    """Anything else is refused: there is one way to write an amount."""
    with pytest.raises(ValueError, match="not an amount"):
        china.fen(text)


@given(st.text(max_size=12))
def test_fen_when_any_text(text: str) -> None:
    """What is read is written the same, but for decimals left out; nothing but ValueError comes of the rest."""
    try:
        amount = china.fen(text)
    except ValueError:
        return
    assert china.yuan(amount).startswith(text)


@pytest.mark.parametrize(
    ("text", "fen"), [("-0.01", -1), ("0.00600", 1), ("0.00499", 0), ("-1.005", -101), ("+8", 800), ("0.00", 0)]
)
def test_bill_fen_when_rounded(text: str, fen: int) -> None:
    """A bill's column has a sign, and fees have five decimals: half a fen is one."""
    assert china.bill_fen(text) == fen


@pytest.mark.parametrize("text", ["", "--1", "1e2", "1,000", "x", "0.123456789"])
def test_bill_fen_when_no_number(text: str) -> None:
    """What is no number is refused."""
    with pytest.raises(ValueError, match="not an amount"):
        china.bill_fen(text)


def test_times_when_written_and_read() -> None:
    """Both spellings are China time, whatever the machine's zone."""
    assert china.china_time(NOW_MS) == "2026-11-24 08:00:00"
    assert china.china_rfc3339(NOW_MS + 999) == "2026-11-24T08:00:00+08:00"
    assert china.china_ms("2026-11-24 08:00:00") == NOW_MS
    assert china.rfc3339_ms("2026-11-24T08:00:00+08:00") == NOW_MS
    assert china.rfc3339_ms("2026-11-24T00:00:00.5Z") == NOW_MS + 500
    assert china.china_ms("") == china.rfc3339_ms("") == 0


@pytest.mark.parametrize("text", ["2026-11-24T08:00:00", "yesterday", "2026-13-01T00:00:00Z"])
def test_rfc3339_when_no_time(text: str) -> None:
    """A time without a zone is none."""
    with pytest.raises(ValueError, match=r"."):
        assert china.rfc3339_ms(text)


def test_plain_when_it_would_mean_something() -> None:
    """What a protocol gives a meaning to becomes a space; one line, no control characters, no longer than allowed."""
    assert china.plain(" a=1&b/2\n\tc\u202e `d ", "=&/`", 100) == "a 1 b 2 c d"
    assert china.plain("一壶茶" * 100, "", 4) == "一壶茶一"
    assert china.plain("ab cd", "", 3) == "ab"

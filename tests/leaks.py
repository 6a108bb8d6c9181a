"""Where secrets of a test must not be: looks for card numbers, verification values and keys in all that a process leaves."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from services.payment.domain.card import Brand, brand_of, luhn_valid

if TYPE_CHECKING:
    import redis


def check_digit(digits: str) -> str:
    """The number with the digit that makes it pass Luhn, found by trying all ten."""
    return next(digits + last for last in "0123456789" if luhn_valid(digits + last))


def _numbers(begin: str, length: int) -> st.SearchStrategy[str]:
    free = length - len(begin) - 1
    return st.text("0123456789", min_size=free, max_size=free).map(lambda middle: check_digit(begin + middle))


card_numbers = st.one_of(
    _numbers("4", 16),
    _numbers("5412", 16),
    _numbers("37", 15),
    _numbers("62", 19),
    _numbers("4", 13),
    _numbers("9", 12),
).filter(lambda number: len(set(number)) > 4)
"""Numbers of several brands and every length that matters. Not those of few digits, which stand anywhere by chance."""


def cvv_of(number: str) -> str:
    """A verification value for a card: four digits on an American Express card, else three."""
    return "8153" if brand_of(number) is Brand.AMEX else "815"


class Leaks:
    """Looks for secrets in every form that programs write them in."""

    def __init__(self, numbers: Iterable[str], cvvs: Iterable[str] = (), keys: Iterable[bytes] = ()) -> None:
        self._forms = {form for number in numbers for form in _forms(number)} | {
            each for key in keys for each in _raw(key)
        }
        # Three digits stand in many a number: alone they are looked for.
        values = b"|".join(cvv.encode() for cvv in cvvs) or b"(?!)"
        self._cvvs = re.compile(rb"(?<![0-9a-fA-F.])(?:" + values + rb")(?![0-9a-fA-F.])")

    def in_bytes(self, content: bytes, *, binary: bool = False) -> bool:
        """Whether one is in ``content``; in ``binary`` content verification values stand by chance and are not looked for."""
        if any(form in content for form in self._forms):
            return True
        return not binary and self._cvvs.search(content) is not None

    def in_text(self, *texts: object) -> list[str]:
        """Those of the texts that have one."""
        return [str(text) for text in texts if self.in_bytes(str(text).encode(errors="replace"))]

    def in_files(self, folder: Path) -> list[Path]:
        """Files below a folder that have one."""
        files = (path for path in folder.rglob("*") if path.is_file())
        return [path for path in files if self.in_bytes(path.read_bytes(), binary=True)]

    def in_redis(self, client: redis.Redis) -> list[bytes]:
        """Keys of Redis whose name or value has one; values as Redis itself would write them to its disk."""
        dumped = ((key, client.dump(key) or b"") for key in client.scan_iter())
        return [key for key, value in dumped if self.in_bytes(key) or self.in_bytes(value, binary=True)]


def _forms(number: str) -> Iterator[bytes]:
    """The number in clear, in groups, in UTF-16, packed two digits a byte, as an integer, and what encodings make of it."""
    yield from _raw(number.encode())
    for separator in (" ", "-"):
        yield separator.join(number[at : at + 4] for at in range(0, len(number), 4)).encode()
    yield number.encode("utf-16-le")
    packed = number if len(number) % 2 == 0 else "0" + number
    yield bytes.fromhex(packed)
    yield int(number).to_bytes(8, "big")
    yield int(number).to_bytes(8, "little")
    yield f"{int(number):x}".encode()


def _raw(secret: bytes) -> Iterator[bytes]:
    """Bytes as they are, in hexadecimal, and in base64 wherever in the text they begin."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + secret)
        # The first and the last characters hold bits of their neighbours.
        yield whole[(0, 2, 3)[before] : len(whole) - 4]

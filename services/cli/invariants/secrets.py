"""What must stand nowhere in clear: card numbers and verification values, by their shape, and a mesh's own secrets."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.kernel.ids import EPOCH_MS
from services.payment.domain.card import DIGITS_MAX, DIGITS_MIN, looks_issued, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from services.cli.folder import Folder

_FORM = bytes(48 if 48 <= c < 58 else 97 if chr(c).isascii() and chr(c).isalpha() else 32 for c in range(256))
"""Digits as 0, letters as a, all else as a blank: in this form a number is found by its length and what is beside it."""
_DIGITS = re.compile(rb" 0{%d,}" % DIGITS_MIN)
_GROUPS = re.compile(rb" (?:0000 0000 0000 0000(?: 0{1,3})?|0000 000000 00000)(?![0a])")
"""As cards show them: in fours, or four, six and five."""
_HEX = re.compile(
    rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
    rb'|(?:trace|span)_id"\s*:\s*"[0-9a-f]+"'
)
"""UUIDs and W3C's trace context: parts of them happen to be decimal."""
_AROUND = 64
_CVV = re.compile(rb"""(?:cvv|cvc)2?["']?\s{0,4}[:=]\s{0,4}["']?[0-9]{3,4}(?![0-9])""")
_JWT = re.compile(rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}")
_SHAPES = {b"PRIVATE KEY-----": "a private key", b"whsec_": "the secret of a webhook"}
_AHEAD_MS = 86_400_000
_SECRET_MIN = 12
"""Bytes below which a secret stands in other text by chance."""
_SECRET = re.compile(r"secret|password|private|api_v3_key|token")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: shapes, and ``secrets`` (bytes -> what they are). Never says what it found, only what kind it is."""

    now_ms: int
    secrets: Mapping[bytes, str]

    def found(self, data: bytes) -> list[str]:
        """Say what stands in ``data`` in clear."""
        said = [*self._numbers(data), *(f"{name}" for secret, name in self.secrets.items() if secret in data)]
        said += [name for shape, name in _SHAPES.items() if shape in data]
        if b"eyJ" in data and _JWT.search(data):
            said.append("an access token")
        small = data.lower() if b"v" in data or b"V" in data else b""
        if (b"cvv" in small or b"cvc" in small) and _CVV.search(small):
            said.append("a card's verification value")
        return list(dict.fromkeys(said))

    def _numbers(self, data: bytes) -> Iterator[str]:
        form = b" " + data.translate(_FORM)  # a place in it is one further than in the data
        for match in _DIGITS.finditer(form):
            begin, end = match.start(), match.end() - 1
            digits = self._number(data, begin, end, form[end + 1 : end + 2])
            if digits and not _is_of_hex(data, begin, end):
                yield _masked(digits)
        for match in _GROUPS.finditer(form):
            written = data[match.start() : match.end() - 1]
            digits = re.sub(rb"[ -]", b"", written).decode(errors="replace")
            if digits.isdecimal() and looks_issued(digits):
                yield _masked(digits)

    def _number(self, data: bytes, begin: int, end: int, after: bytes) -> str:
        """Return the card number that a run of digits is, or begins with where its length stands before it; "": none."""
        length = data[begin - 1] if begin else 0  # as protobuf has it: what comes next may be a digit or a letter
        if DIGITS_MIN <= length <= DIGITS_MAX and begin + length <= end:
            stated = data[begin : begin + length].decode()
            if looks_issued(stated) and not self._is_id(stated):
                return stated
        digits = data[begin:end].decode() if end - begin <= DIGITS_MAX and after != b"a" else ""
        return digits if digits and not self._is_id(digits) and looks_issued(digits) else ""

    def _is_id(self, digits: str) -> bool:
        """Whether a number is one of our ids: made after their epoch, and not after tomorrow."""
        return len(digits) >= 17 and 0 < int(digits) >> 22 < self.now_ms + _AHEAD_MS - EPOCH_MS


def _is_of_hex(data: bytes, begin: int, end: int) -> bool:
    around = max(0, begin - _AROUND)
    return any(
        match.start() + around <= begin and end <= match.end() + around
        for match in _HEX.finditer(data[around : end + _AROUND])
    )


def _masked(digits: str) -> str:
    first, last = shown(digits)
    return f"the card number {first}{'*' * (len(digits) - len(first) - len(last))}{last}"


def secrets_of(folder: Folder) -> dict[bytes, str]:
    """Read the secrets that lie in a mesh's folder: bytes that must stand nowhere else -> what they are."""
    found: dict[bytes, str] = {}
    for path in sorted(folder.path.rglob("*")):
        inside = path.relative_to(folder.path)
        if not path.is_file() or inside.parts[0] in {"run", "logs", "envoy", "files"}:
            continue
        if path.suffix == ".key":
            content = path.read_bytes()
            kept = _pem(content.decode()) if content.startswith(b"-----") else _written(content)
            found |= dict.fromkeys(kept, f"the key {inside}")
        elif path.suffix == ".json" and inside.parts[0] in {"admin.json", "providers"}:
            for name, text in _members(json.loads(path.read_bytes())):
                if _SECRET.search(name):
                    kept = _pem(text) if text.startswith("-----") else [text.encode(), *_decoded(text)]
                    found |= dict.fromkeys(kept, f"{name} of {inside}")
    return {secret: name for secret, name in found.items() if len(secret) >= _SECRET_MIN}


def _members(content: Any, name: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any JSON
    """Yield the texts of some JSON with the names that they have."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _members(value, key)
    elif isinstance(content, list):
        for value in content:
            yield from _members(value, name)
    elif isinstance(content, str):
        yield name, content


def _pem(text: str) -> list[bytes]:
    """The second line of a key, which is all its own: how a key begins is the same for many. Also with other line ends."""
    lines = text.split("\n")
    return [lines[2].encode()] if len(lines) > 4 and "PRIVATE" in lines[0] else []


def _written(key: bytes) -> list[bytes]:
    """A key in the ways that programs write bytes."""
    encoded = (base64.b64encode(key), base64.urlsafe_b64encode(key))
    return [key, key.hex().encode(), *(each.rstrip(b"=") for each in encoded)]


def _decoded(text: str) -> list[bytes]:
    """The bytes that a text may be base64 of, in the other ways that programs write them."""
    try:
        return _written(base64.b64decode(text, validate=True))
    except ValueError:
        return []

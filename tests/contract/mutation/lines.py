"""The policy lines of a .proto: each option of ours, and each field inside one, with the text that would have to go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(r"//[^\n]*|\"(?:\\.|[^\"\\])*\"|[A-Za-z_][\w.]*|-?\d[\w.]*|\S")
_OURS = "paymesh.mesh.v1."
_STANDARD = "idempotency_level"
"""The one option of protobuf's own that says something of policy."""


@dataclass(frozen=True, slots=True)
class Line:
    """A policy line: where it begins, what it says (`method.retry.on: RETRY_ON_UNAVAILABLE`), and which text it is."""

    number: int
    says: str
    start: int
    end: int

    def deleted(self, text: str) -> str:
        """Return the file without it."""
        return text[: self.start] + text[self.end :]


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int


def policy_lines(text: str) -> list[Line]:
    """Find every policy line of a file, in order; an option with fields comes before them."""
    return list(_Scan(text).options())


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        found = (_Token(m[0], m.start(), m.end()) for m in _TOKEN.finditer(text))
        self._tokens = [token for token in found if not token.text.startswith("//")]

    def options(self) -> Iterator[Line]:
        """Yield the lines of every option: `option (x) = …;` and `(x) = …` in brackets."""
        for i, token in enumerate(self._tokens):
            if token.text == _STANDARD and self._at(i - 1) == "option":
                yield self._line(f"{_STANDARD}: {self._at(i + 2)}", self._tokens[i - 1].start, self._tokens[i + 3].end)
            elif token.text.startswith(_OURS) and self._at(i - 1) == "(" and self._at(i + 2) == "=":
                name, value = token.text.removeprefix(_OURS), i + 3
                after = self._after(value)
                yield self._line(self._says(name, value), *self._whole(i - 1, after))
                yield from self._fields(name, value)

    def _whole(self, first: int, after: int) -> tuple[int, int]:
        """The text of an option from its bracket on, with the words or commas that would be left over."""
        before, behind = self._tokens[first - 1], self._tokens[after]
        if before.text == "option" or (before.text, behind.text) == ("[", "]"):
            return before.start, behind.end
        if behind.text == ",":
            return self._tokens[first].start, behind.end
        return before.start, behind.start

    def _fields(self, scope: str, value: int) -> Iterator[Line]:
        """Yield the fields of a message in braces, and theirs."""
        if self._at(value) != "{":
            return
        i = value + 1
        while self._at(i) != "}":
            inner = i + 2 if self._at(i + 1) == ":" else i + 1
            name, after = f"{scope}.{self._at(i)}", self._after(inner)
            yield self._line(self._says(name, inner), self._tokens[i].start, self._tokens[after - 1].end)
            yield from self._fields(name, inner)
            i = after + 1 if self._at(after) in {",", ";"} else after

    def _after(self, value: int) -> int:
        """The place behind a value, which is one token, or braces with what is in them."""
        assert self._at(value) != "[", "a list in brackets: write one line for each"
        depth, i = 0, value
        while True:
            depth += {"{": 1, "}": -1}.get(self._at(i), 0)
            i += 1
            if not depth:
                return i

    def _says(self, name: str, value: int) -> str:
        told = "{…}" if self._at(value) == "{" else self._at(value)
        return f"{name}: {told}"

    def _line(self, says: str, start: int, end: int) -> Line:
        return Line(self._text.count("\n", 0, start) + 1, says, start, end)

    def _at(self, i: int) -> str:
        return self._tokens[i].text

"""JSON as a verifier reads it: one meaning per text, and the exact characters of what was signed."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, NoReturn, TypeAlias

JsonObject: TypeAlias = dict[str, Any]

_SPACE = re.compile(r"[ \t\r\n]*")


def parse(text: str) -> JsonObject:
    """Read an object. Raises ValueError for anything else, a name that stands twice, NaN, and what nests too deep."""
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nests too deep") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - callers refuse what is no object as they refuse what is no JSON
    return value


def members(text: str) -> dict[str, str]:
    r"""Return the members of the outermost object, each value as the very characters that stand in ``text``.

    Alipay signs a part of its answer as it is written; read and written again it would differ (``\/``, spaces, order).
    Raises ValueError.
    """
    parse(text)  # from here on the text is known to be one object, and each name in it to stand once
    found: dict[str, str] = {}
    at = _past_space(text, _past_space(text, 0) + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        start = _past_space(text, _past_space(text, at) + 1)
        _, end = _DECODER.raw_decode(text, start)
        found[name] = text[start:end]
        at = _past_space(text, end)
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return found


def string(value: JsonObject, name: str) -> str:
    """Return a member that must be a string; a missing one is empty. Raises ValueError."""
    found = value.get(name, "")
    if not isinstance(found, str):
        raise ValueError(f"{name} is not a string")  # noqa: TRY004 - what the other side sent is wrong, not a type of ours
    return found


def integer(value: JsonObject, name: str) -> int:
    """Return a member that must be a whole number. Raises ValueError."""
    found = value.get(name)
    if type(found) is not int:
        raise ValueError(f"{name} is not a whole number")
    return found


def nested(value: JsonObject, name: str) -> JsonObject:
    """Return a member that must be an object; a missing one is empty. Raises ValueError."""
    found = value.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not an object")  # noqa: TRY004 - as above
    return found


def _once(pairs: list[tuple[str, Any]]) -> JsonObject:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # matches the empty text too
    return found.end()


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number, parse_float=Decimal)

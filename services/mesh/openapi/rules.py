"""buf.validate rules -> JSON Schema keywords.

Rules on 64-bit integers cannot be keywords, since JSON carries those as strings: their sign and their upper bound become the
pattern, and their bounds stand beside it as `x-minimum` and `x-maximum`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import protovalidate
from google.protobuf import message_factory

from buf.validate import validate_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor

_RULES: Final = "type"
"""The oneof of FieldRules that says for which type its rules are."""

_NUMBER: Final = {"gt": "exclusiveMinimum", "gte": "minimum", "lt": "exclusiveMaximum", "lte": "maximum"}
_STRING: Final = {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"}
_FORMATS: Final = ("email", "uri", "uuid", "hostname")
"""Rules on strings that are formats of JSON Schema by the same name."""

_REPEATED: Final = {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"}
_WIDE: Final = frozenset({"int64", "uint64", "sint64", "fixed64", "sfixed64"})


def of_field(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The rules written on a field; empty rules where there are none."""
    return field.GetOptions().Extensions[validate_pb2.field]


def keywords(rules: validate_pb2.FieldRules) -> dict[str, Any]:
    """JSON Schema keywords of the rules on one value; for a repeated field those on the list itself."""
    kind = rules.WhichOneof(_RULES)
    if kind is None:
        return {}
    stated = {field.name: value for field, value in getattr(rules, kind).ListFields()}
    if kind == "repeated":
        return _renamed(stated, _REPEATED)
    if kind == "string":
        formats = [name for name in _FORMATS if stated.get(name)]
        listed = {"enum": list(stated["in"])} if "in" in stated else {}
        if "pattern" in stated and rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
            stated["pattern"] = f"^$|{stated['pattern']}"  # empty is as good as absent
        return _renamed(stated, _STRING) | ({"format": formats[0]} if formats else {}) | listed
    if kind in _WIDE:
        return _wide(stated)
    return _renamed(stated, _NUMBER)


def items(rules: validate_pb2.FieldRules) -> validate_pb2.FieldRules:
    """The rules on each item of a repeated field."""
    return rules.repeated.items


def required(message: Descriptor) -> frozenset[str]:
    """Names of the fields without which a message is refused.

    Asked of the validator itself: in proto3 an absent field has its zero value, so a field is needed exactly when the
    rules refuse an empty message because of it.
    """
    return _required(message)


@cache
def _required(message: Descriptor) -> frozenset[str]:
    empty = message_factory.GetMessageClass(message)()
    paths = (violation.proto.field for violation in protovalidate.collect_violations(empty))
    return frozenset(path.elements[0].field_name for path in paths if path and path.elements)


def sentences(message: Descriptor) -> list[str]:
    """What the rules over several fields say, as people read it."""
    return [cel.message for cel in message.GetOptions().Extensions[validate_pb2.message].cel]


def one_of(choice: OneofDescriptor) -> bool:
    """Whether one member of a oneof must be given."""
    return bool(choice.GetOptions().Extensions[validate_pb2.oneof].required)


def _renamed(stated: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in stated.items() if name in names}


def _wide(stated: dict[str, Any]) -> dict[str, Any]:
    """`gt: 0` and `gte: 0` as patterns up to the bound; the bounds beside them, as decimal strings."""
    out: dict[str, Any] = {}
    low = stated["gt"] + 1 if "gt" in stated else stated.get("gte")
    high = stated["lt"] - 1 if "lt" in stated else stated.get("lte")
    if low is not None and low >= 0:
        choices = [*([] if low else ["0"]), *(["[1-9][0-9]{0,18}"] if high is None else _up_to(high))]
        out["pattern"] = f"^({'|'.join(choices)})$" if len(choices) > 1 else f"^{choices[0]}$"
    if low is not None:
        out["x-minimum"] = str(low)
    if high is not None:
        out["x-maximum"] = str(high)
    return out


def _up_to(high: int) -> list[str]:
    """Regular expressions for 1 to ``high`` in decimal digits."""
    digits = str(high)
    width = len(digits)
    shorter = [f"[1-9][0-9]{{0,{width - 2}}}"] if width > 1 else []
    lower = [
        f"{digits[:at]}[{first}-{int(digit) - 1}]" + (f"[0-9]{{{width - 1 - at}}}" if at < width - 1 else "")
        for at, digit in enumerate(digits)
        for first in [0 if at else 1]
        if int(digit) > first
    ]
    return [*shorter, *lower, digits]

"""Rules of routes, requests and answers: what they bind, what is refused, how long a list is, what is sensitive."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2
from paymesh.mesh.v1 import policy_pb2
from services.contract.options import http_of

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from services.contract.lint.view import Said, View
    from services.contract.model import Http

PAGE_MAX = 100
_ITEMS_MAX = 1000
"""Of a repeated field that is sent."""
_TOKEN_MAX = 1000
_LOOKED_UP_MAX = 200
"""Things asked for by one call, each of which has its part in the answer."""
_BODIES = {"POST", "PUT", "PATCH"}
"""What a DELETE takes away stands in its path: proxies and clients drop a body there."""
_HTTP_BODY = "google.api.HttpBody"
_WITHOUT_RULES = {FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_MESSAGE}
"""Both values of a bool are good; a message has rules on its own fields, which are walked too."""

_CLASSES = (
    (r"card_number$|(^|_)pan$", policy_pb2.DATA_CLASS_PAN),
    (r"cvv|cvc|verification_value", policy_pb2.DATA_CLASS_CVV),
    (r"^device_token$", policy_pb2.DATA_CLASS_PII),
    (r"password$|secret$|private_key$|api_key$|^(?!(next_)?page_).*token$", policy_pb2.DATA_CLASS_SECRET),
    (
        r"phone$|email$|openid$|username$|recipient$|(^|_)ip$|^first6$|^last4$|^subject$|^text$|birth|full_name$",
        policy_pb2.DATA_CLASS_PII,
    ),
)
"""Names of fields -> the class of what is in them; the first that fits."""


def data_classes(view: View) -> Said:
    """A field named like a card, a secret or a part of a person says so: redaction, storing and masking go by it."""
    fields = [field for message in view.messages() for field in message.fields]
    marked = {field.name: _class(field) for field in fields if _class(field) and field.message_type is None}
    for field in fields:
        if field.type not in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
            continue
        by_name = (kind for name, kind in _CLASSES if re.search(name, field.name))
        wanted = next(by_name, marked.get(field.name, policy_pb2.DATA_CLASS_UNSPECIFIED))
        if wanted and _class(field) != wanted:
            yield (
                field,
                f"is sensitive by its name; write `(paymesh.mesh.v1.data_class) = {policy_pb2.DataClass.Name(wanted)}`",
            )


def raw_bodies(view: View) -> Said:
    """What a stranger sends as raw bytes may say anything about a person."""
    for message in view.sent():
        for field in message.fields:
            if _is_raw(field) and not _class(field):
                yield field, "is what a stranger wrote; write `(paymesh.mesh.v1.data_class) = DATA_CLASS_PII`"


def lists(view: View) -> Said:
    """A list that grows has pages; one that does not says how long it gets, or has a part for each thing asked for."""
    for method, _ in view.methods():
        request, response = method.input_type, method.output_type
        many = [f for f in response.fields if f.is_repeated and f.message_type is not None]
        if method.name.startswith("List"):
            yield from _pages(view, method, many)
        elif "page_size" in request.fields_by_name:
            yield method, "has pages; write its name as `List…`"
        else:
            by_request = any(
                0 < _rules(f).repeated.max_items <= _LOOKED_UP_MAX for f in request.fields if f.is_repeated
            )
            for field in many:
                if not by_request and not _rules(field).repeated.max_items:
                    yield (
                        field,
                        "has no end; write a `List…` with pages, or `(buf.validate.field).repeated.max_items = 100`",
                    )


def _pages(view: View, method: MethodDescriptor, many: list[FieldDescriptor]) -> Said:
    request, response = method.input_type.fields_by_name, method.output_type.fields_by_name
    size, token = request.get("page_size"), request.get("page_token")
    if len(many) != 1:
        yield method, f"answers with {len(many)} lists; write one list of messages"
    if size is None or (_rules(size).int32.gte, _rules(size).int32.lte) != (0, PAGE_MAX):
        yield (
            size or method,
            "has no limit of a page; write `int32 page_size` with `(buf.validate.field).int32.gte = 0` and `.lte = 100`",
        )
    elif str(PAGE_MAX) not in view.comment(size):
        yield size, f'write the limit in its comment: "Items on a page: 1 to {PAGE_MAX}; 0 means 20."'
    if token is None or not 0 < _rules(token).string.max_len <= _TOKEN_MAX:
        yield (
            token or method,
            "has no way on; write `string page_token` with `(buf.validate.field).string.max_len = 200`",
        )
    if "next_page_token" not in response:
        yield method.output_type, "has no way on; write `string next_page_token`"


def requests(view: View) -> Said:
    """Every field that a caller sends says what is refused; bools and messages need nothing (their fields do)."""
    for message in view.sent():
        for field in message.fields:
            if not view.comment(field):
                yield field, "has no comment; write what it is"
            yield from _refusals(field)


def _refusals(field: FieldDescriptor) -> Said:
    rules = _rules(field)
    if field.is_repeated:
        if not 0 < rules.repeated.max_items <= _ITEMS_MAX:
            yield field, f"has no end; write `(buf.validate.field).repeated.max_items = 100`, at most {_ITEMS_MAX}"
        rules = rules.repeated.items
    if field.cpp_type in _WITHOUT_RULES:
        return
    kind = rules.WhichOneof("type")
    if not kind:
        yield field, "takes whatever comes; write with `(buf.validate.field)` what is refused"
    if kind == "string" and not (rules.string.max_len or re.search(r"\{\d+,\d+\}|\{\d+\}", rules.string.pattern)):
        yield field, "has no greatest length; write `(buf.validate.field).string.max_len = 200`"
    if kind == "enum" and not (rules.enum.defined_only and list(rules.enum.not_in) == [0]):
        yield field, "takes numbers that mean nothing; write `.enum.defined_only = true` and `.enum.not_in = 0`"


def routes(view: View) -> Said:
    """No two methods share a route; a route binds fields of the request, and all that is left of a change is its body."""
    mapped = [(method, http) for method, _ in view.methods() if (http := http_of(method))]
    taken = Counter(_shape(http) for _, http in mapped)
    for method, http in mapped:
        if taken[_shape(http)] > 1:
            yield method, f"shares {_shape(http)} with another method; write a path of its own"
        for unknown in sorted(set(_in_path(http)) - set(method.input_type.fields_by_name)):
            yield method, f"binds {{{unknown}}}, no field of its request; write a field that is there"
        yield from _body(method, http)


def _body(method: MethodDescriptor, http: Http) -> Said:
    fields, left = method.input_type.fields_by_name, set(method.input_type.fields_by_name) - set(_in_path(http))
    if http.body in {"", "*"}:
        if (http.body == "*") != (http.verb in _BODIES):
            yield method, f'is a {http.verb}; write `body: "*"` for a POST, PUT or PATCH, and no body for others'
    elif http.body not in fields or not _is_raw(fields[http.body]) or not http.response_body:
        yield (
            method,
            'has one field as its body; write `body: "*"`, unless it is a raw one that is answered by a raw one',
        )
    elif left != {http.body}:
        yield method, "leaves fields beside its raw body; write them in the path"
    if http.verb == "DELETE" and left:
        yield method, f"deletes, and {', '.join(sorted(left))} would be lost on the way; write it in the path"
    answer = method.output_type.fields_by_name.get(http.response_body)
    if http.response_body and (answer is None or not _is_raw(answer)):
        yield method, f"answers with {http.response_body} alone; write a field that is a google.api.HttpBody"


def _shape(http: Http) -> str:
    return f"{http.verb} {re.sub('{[^}]*}', '{}', http.path)}"


def _in_path(http: Http) -> list[str]:
    return re.findall(r"{(\w+)}", http.path)


def _rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def _class(field: FieldDescriptor) -> policy_pb2.DataClass.ValueType:
    return field.GetOptions().Extensions[policy_pb2.data_class]


def _is_raw(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == _HTTP_BODY


RULES = (data_classes, raw_bodies, lists, requests, routes)

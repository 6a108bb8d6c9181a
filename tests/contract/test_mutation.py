"""The mutation run leaves nothing out: every policy line is found, and what no rule misses has a test that does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.descriptor_pb2 import MethodOptions

from paymesh.mesh.v1 import policy_pb2
from services.cli.generate import tree
from tests.contract.mutation.behaved import BEHAVIOURS, kind
from tests.contract.mutation.lines import policy_lines
from tests.contract.mutation.linted import mutants, refusal, sources
from tests.contract.planted import compiled, sound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
    from google.protobuf.message import Message

OURS = {
    policy_pb2.DESCRIPTOR.extensions_by_name[name].number
    for name in ("service", "method", "event", "data_class", "state", "reason")
}
DESCRIBED = {file.name: file for file in tree.described().file}


def _set(message: Message) -> int:
    """Count the fields that are set in a message, each value of a repeated one, and those of the messages inside."""
    count = 0
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [value]:
            count += 1 + (_set(item) if field.message_type is not None else 0)
    return count


def _stated(options: Message) -> int:
    """Count the policy lines of an element's options."""
    count = 1 if isinstance(options, MethodOptions) and options.HasField("idempotency_level") else 0
    for field, value in options.ListFields():
        if field.is_extension and field.number in OURS:
            count += 1 + (_set(value) if field.message_type is not None else 0)
    return count


def _options(file: FileDescriptorProto) -> Iterator[Message]:
    for service in file.service:
        yield service.options
        yield from (method.options for method in service.method)
    for enum in file.enum_type:
        yield from (value.options for value in enum.value)
    for message in file.message_type:
        yield from _of_message(message)


def _of_message(message: DescriptorProto) -> Iterator[Message]:
    yield message.options
    yield from (field.options for field in message.field)
    for enum in message.enum_type:
        yield from (value.options for value in enum.value)
    for nested in message.nested_type:
        yield from _of_message(nested)


@pytest.mark.parametrize("name", sources())
def test_every_policy_line_is_found(name: str) -> None:
    """The text has as many lines to leave out as the compiler has read options and fields in them."""
    assert len(policy_lines(sources()[name])) == sum(map(_stated, _options(DESCRIBED[name])))


def test_line_that_no_rule_misses_is_missed_by_a_test() -> None:
    """In the sound contract the linter refuses every line's absence, but for those whose worth only behaviour shows."""
    described = compiled(sound())
    every = [*mutants(described, sound())]
    left = [mutant for mutant in every if refusal(described.SerializeToString(), mutant) is None]
    assert len(every) > 100
    assert {kind(mutant) for mutant in left} <= BEHAVIOURS.keys(), left

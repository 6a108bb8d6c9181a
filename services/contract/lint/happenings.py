"""Rules of events, states and the reasons of errors."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor
from google.rpc import code_pb2

from paymesh.mesh.v1 import policy_pb2
from services.contract.lint.view import room_of
from services.contract.options import ms

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

    from services.contract.lint.view import Said, View

_MADE = ("created", "initiated")
"""What is told of an entity when it is made."""
_CODES = frozenset(code_pb2.Code.keys()) - {"OK"}
_HAN = re.compile("[\u4e00-\u9fff]")
_PLACE = re.compile(r"{(\w+)}")


def published(view: View) -> Said:
    """What says when it happened is an event."""
    for message in view.messages():
        if "event_time" in message.fields_by_name and not message.GetOptions().HasExtension(policy_pb2.event):
            yield message, "says when it happened and goes nowhere; write `option (paymesh.mesh.v1.event)`"


def events(view: View) -> Said:
    """An event has a topic of its own, a key to partition by, a version to order by, a time, and an end."""
    services = {policy.name for _, policy in view.services()}
    topics = Counter(policy.topic for _, policy in view.events())
    for message, policy in view.events():
        fields, room = message.fields_by_name, room_of(message.file)
        if not policy.topic.startswith(f"{room}.") or topics[policy.topic] > 1:
            yield message, f'has the topic {policy.topic!r}; write one of its own: `topic: "{room}.…"`'
        key, version = fields.get(policy.key), fields.get(policy.version)
        if key is None or key.type not in {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_STRING}:
            yield (
                message,
                f"has the key {policy.key!r}; write the int64 or string field that names the aggregate: `key:`",
            )
        if version is None or version.type != FieldDescriptor.TYPE_INT64:
            yield message, f'has the version {policy.version!r}; write `version: "version"`, an int64 field that counts'
        if "event_time" not in fields:
            yield message, "does not say when it happened; write `google.protobuf.Timestamp event_time`"
        if ms(policy.retention) <= 0:
            yield message, "is kept for no time, or for ever; write `retention: {seconds: 604800}`"
        for unknown in sorted(set(policy.consumers) - services):
            yield message, f"is handled by {unknown}, which is no service; write one of {', '.join(sorted(services))}"
        if not view.comment(message):
            yield message, "has no comment; write what happened"


def states(view: View) -> Said:
    """Every state can be reached from one in which an entity is made, and leads to states that exist."""
    for enum, policies in view.machines():
        for name in sorted(n for n, policy in policies.items() if policy is None):
            yield (
                enum.values_by_name[name],
                "is a state without a policy; write `[(paymesh.mesh.v1.state) = {next: …}]`",
            )
        stated = {name: policy for name, policy in policies.items() if policy is not None}
        reached = {name for name, policy in stated.items() if policy.initial}
        if not reached:
            yield enum, "begins nowhere; write `initial: true` at the state in which an entity is made"
            continue
        waiting = sorted(reached)
        while waiting:
            name = waiting.pop()
            following = set(stated[name].next)
            for unknown in sorted(following - stated.keys()):
                yield enum.values_by_name[name], f"leads to {unknown}, no state of the enum; write one that is"
            following &= stated.keys()
            waiting += sorted(following - reached)
            reached |= following
        for name in sorted(stated.keys() - reached):
            yield enum.values_by_name[name], f'is never reached; write `next: "{name}"` at the state before it'


def states_that_tell(view: View) -> Said:
    """What a state publishes is an event, and a state that a topic is named after publishes it, as the first does `created`."""
    topics = {policy.topic for _, policy in view.events()}
    for enum, policies in view.machines():
        for name, policy in policies.items():
            value, said = enum.values_by_name[name], policy.event if policy is not None else ""
            if said and said not in topics:
                yield value, f"publishes {said}, which no event has as its topic; write one that is there"
            words = [_word(enum, name), *(_MADE if policy is not None and policy.initial else ())]
            for named in sorted(topics & {f"{_subject(enum)}.{word}" for word in words} - {said}):
                yield value, f'does not publish what is named after it; write `event: "{named}"`'


def reviews(view: View) -> Said:
    """Where an operator decides about contradictions, every other state can come to contradict itself."""
    for enum, policies in view.machines():
        review = next((name for name in policies if _word(enum, name) == "review"), None)
        for name, policy in policies.items():
            if review and policy is not None and name != review and review not in policy.next:
                yield enum.values_by_name[name], f'has no way out of a contradiction; write `next: "{review}"`'


def reasons(view: View) -> Said:
    """A reason has a code and a text in both languages, with exactly the places that its metadata fills."""
    for value, policy in view.reasons():
        if policy.code not in _CODES:
            yield value, f'has the code {policy.code!r}; write a google.rpc.Code: `code: "FAILED_PRECONDITION"`'
        if not view.comment(value):
            yield value, "has no comment; write when it is said"
        if not policy.en or _HAN.search(policy.en):
            yield value, "has no English text; write `en:` with what happened, why and what to do"
        if not _HAN.search(policy.zh):
            yield value, "has no Chinese text; write `zh:` with the same"
        told = set(_PLACE.findall(policy.en)) | set(_PLACE.findall(policy.zh))
        for key in sorted(told ^ set(policy.metadata)):
            yield (
                value,
                f'has {{{key}}} in its texts or in its metadata alone; write `metadata: "{key}"` and {{{key}}} in a text',
            )


def _subject(enum: EnumDescriptor) -> str:
    """What its topics begin with: `payment` of the room's own noun, `payment.refund` of another one of it."""
    noun = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.containing_type.name).lower() if enum.containing_type else ""
    return noun if noun == room_of(enum.file) else f"{room_of(enum.file)}.{noun}"


def _word(enum: EnumDescriptor, value: str) -> str:
    """STATUS_REVIEW of the enum Status -> review."""
    return value.removeprefix(f"{enum.name.upper()}_").lower()


RULES = (published, events, states, states_that_tell, reviews, reasons)

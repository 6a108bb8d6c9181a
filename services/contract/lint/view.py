"""What the rules read: our contracts as descriptors, with their policies, their comments and where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import EnumValueDescriptor, FieldDescriptor, MethodDescriptor

from paymesh.mesh.v1 import policy_pb2
from services.contract.options import policy_of
from services.contract.source import Place, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from google.protobuf.descriptor import (
        Descriptor,
        EnumDescriptor,
        FileDescriptor,
        ServiceDescriptor,
    )
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    Element = ServiceDescriptor | MethodDescriptor | Descriptor | FieldDescriptor | EnumDescriptor | EnumValueDescriptor
    Said = Iterator[tuple[Element, str]]
    """Elements, each with what is wrong with it and what to write instead."""
    Rule = Callable[["View"], Said]

EDGE = "edge"
_OWN = "paymesh.mesh.v1"
"""The package of the options themselves, which states no policy."""
_UNKNOWN = Place(0, "")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with an element, and what to write instead."""

    rule: str
    file: str
    line: int
    element: str
    text: str

    def __str__(self) -> str:
        """Render one line, with the place as editors read it."""
        return f"protos/{self.file}:{self.line} {self.element}: {self.text}"


class View:
    """Our files of a descriptor set that has everything they import, with source info; dependencies first."""

    def __init__(self, described: FileDescriptorSet) -> None:
        pool = descriptor_pool.DescriptorPool()
        for file in described.file:
            pool.Add(file)
        ours = [f.name for f in described.file if f.package.startswith("paymesh.") and f.package != _OWN]
        self.files: tuple[FileDescriptor, ...] = tuple(map(pool.FindFileByName, ours))
        self._places = places(described.file)

    def place(self, element: Element) -> Place:
        """Return where an element stands, and its comment."""
        return self._places.get(name_of(element), _UNKNOWN)

    def comment(self, element: Element) -> str:
        """Return the comment above an element."""
        return self.place(element).comment

    def services(self) -> Iterator[tuple[ServiceDescriptor, policy_pb2.ServicePolicy]]:
        """Yield every service with its policy, an empty one where it states none."""
        for file in self.files:
            for service in file.services_by_name.values():
                yield service, service.GetOptions().Extensions[policy_pb2.service]

    def methods(self) -> Iterator[tuple[MethodDescriptor, policy_pb2.MethodPolicy]]:
        """Yield every method with its policy, an empty one where it states none."""
        for service, _ in self.services():
            for method in service.methods:
                yield method, policy_of(method)

    def messages(self) -> Iterator[Descriptor]:
        """Yield every message, nested ones too, without the entries of maps."""
        for file in self.files:
            yield from _within(file.message_types_by_name.values())

    def sent(self) -> Iterator[Descriptor]:
        """Yield every message of ours that a caller sends: the requests and what is inside them."""
        waiting = [method.input_type for method, _ in self.methods()]
        seen = set[str]()
        while waiting:
            message = waiting.pop(0)
            if message.full_name not in seen and message.full_name.startswith("paymesh."):
                seen.add(message.full_name)
                yield message
                waiting += [field.message_type for field in message.fields if field.message_type is not None]

    def events(self) -> Iterator[tuple[Descriptor, policy_pb2.EventPolicy]]:
        """Yield every message that is an event, with its policy."""
        for message in self.messages():
            if message.GetOptions().HasExtension(policy_pb2.event):
                yield message, message.GetOptions().Extensions[policy_pb2.event]

    def machines(self) -> Iterator[tuple[EnumDescriptor, dict[str, policy_pb2.StatePolicy | None]]]:
        """Yield every enum of states, with the policy of each value but the zero; None where it states none."""
        for message in self.messages():
            for enum in message.enum_types:
                if any(value.GetOptions().HasExtension(policy_pb2.state) for value in enum.values):
                    yield enum, {value.name: _state(value) for value in enum.values if value.number}

    def reasons(self) -> Iterator[tuple[EnumValueDescriptor, policy_pb2.ReasonPolicy]]:
        """Yield every reason of an error but the zero, with its policy."""
        for file in self.files:
            for enum in file.enum_types_by_name.values():
                if enum.name == "ErrorReason":
                    for value in enum.values[1:]:
                        yield value, value.GetOptions().Extensions[policy_pb2.reason]


def name_of(element: Element) -> str:
    """Return a full name; a value's is beside its enum, as protobuf has it."""
    if isinstance(element, EnumValueDescriptor):
        return f"{element.type.full_name.rpartition('.')[0]}.{element.name}"
    return str(element.full_name)


def file_of(element: Element) -> FileDescriptor:
    """Return the file in which an element stands."""
    match element:
        case EnumValueDescriptor():
            return element.type.file
        case MethodDescriptor():
            return element.containing_service.file
        case FieldDescriptor():
            assert element.containing_type is not None  # an extension is no element of ours
            return element.containing_type.file
        case _:
            return element.file


def callers_of(method: MethodDescriptor) -> tuple[str, ...]:
    """Return the services that may call a method, and `edge`: those it states, or all of its service."""
    of_service = method.containing_service.GetOptions().Extensions[policy_pb2.service].callers
    return tuple(policy_of(method).callers) or tuple(of_service)


def at_edge(method: MethodDescriptor) -> bool:
    """Whether clients reach a method."""
    return EDGE in callers_of(method) and policy_of(method).auth != policy_pb2.AUTH_INTERNAL


def room_of(file: FileDescriptor) -> str:
    """Return the room of a contract: paymesh.payment.v1 is `payment`."""
    return file.package.split(".")[1]


def _within(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in messages:
        if not message.GetOptions().map_entry:
            yield message
            yield from _within(message.nested_types)


def _state(value: EnumValueDescriptor) -> policy_pb2.StatePolicy | None:
    options = value.GetOptions()
    return options.Extensions[policy_pb2.state] if options.HasExtension(policy_pb2.state) else None

"""services/<room>/states.py from the state options of the contract's enums.

The tables use the words that SQL stores (`partially_refunded`, not `STATUS_PARTIALLY_REFUNDED`), and nothing but the standard
library, so that the domain's guard and the SQL CHECK read the same rows.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

from services.cli.generate import tree

_HEAD = '''"""States and their allowed changes. Generated from protos/paymesh/{room}/v1 by `tox -e gen`; do not edit."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
'''


@dataclass(frozen=True, slots=True)
class State:
    """One enum value: its SQL word, the words that may follow, the topic that entering it publishes (or empty)."""

    word: str
    next: tuple[str, ...]
    event: str
    initial: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """One enum whose values carry state options. `prefix` stands in front of its constants, `REFUND_` or nothing."""

    source: str
    prefix: str
    states: tuple[State, ...]


def write() -> None:
    """Write the tables of every room that has states, and remove those of rooms that have none any more."""
    machines: dict[str, list[Machine]] = defaultdict(list)
    for room, file in _contracts():
        for message in file.message_types_by_name.values():
            machines[room].extend(_machines(room, message))
    rooms = {room: found for room, found in machines.items() if found}
    for path in (tree.ROOT / "services").glob("*/states.py"):
        if path.parent.name not in rooms:
            path.unlink()
    for room, found in rooms.items():
        tree.write_python(tree.ROOT / "services" / room / "states.py", module(room, found))


def module(room: str, machines: Iterable[Machine]) -> str:
    """The text of one states.py."""
    return _HEAD.format(room=room) + "".join("\n" + "\n".join(_machine_lines(machine)) + "\n" for machine in machines)


def _contracts() -> Iterator[tuple[str, FileDescriptor]]:
    """(room, file) of every contract; paymesh.payment.v1 is the room `payment`."""
    for path in sorted((tree.GEN_PYTHON / "paymesh").rglob("*_pb2.py")):
        name = ".".join(path.relative_to(tree.GEN_PYTHON).with_suffix("").parts)
        yield path.parts[-3], import_module(name).DESCRIPTOR


def _machines(room: str, message: Descriptor) -> Iterator[Machine]:
    for enum in message.enum_types:
        if states := _states(enum):
            yield Machine(source=enum.full_name, prefix=_prefix(room, enum), states=states)
    for nested in message.nested_types:
        yield from _machines(room, nested)


def _prefix(room: str, enum: EnumDescriptor) -> str:
    """The room's own noun has plain names (`SUCCESS`); another message's stand in front (`REFUND_SUCCESS`)."""
    holder = _snake(enum.containing_type.name) if enum.containing_type else ""
    words = [] if holder == room else [holder]
    if enum.name not in {"Status", "State"}:
        words.append(_snake(enum.name))
    return "".join(f"{word.upper()}_" for word in words)


def _states(enum: EnumDescriptor) -> tuple[State, ...]:
    """The states in the contract's order; empty when the enum is no state machine."""
    from paymesh.mesh.v1 import policy_pb2  # noqa: PLC0415 - written by the stage before this one

    policies = {
        value.name: value.GetOptions().Extensions[policy_pb2.state]
        for value in enum.values
        if value.GetOptions().HasExtension(policy_pb2.state)
    }
    values = [value.name for value in enum.values if value.number]
    if not policies:
        return ()
    if missing := [name for name in values if name not in policies]:
        raise ValueError(f"{enum.full_name}: without state options: {', '.join(missing)}")
    words = {name: _word(enum, name) for name in values}
    return tuple(
        State(
            word=words[name],
            next=tuple(_follower(words, enum, name, following) for following in policies[name].next),
            event=policies[name].event,
            initial=policies[name].initial,
        )
        for name in values
    )


def _follower(words: Mapping[str, str], enum: EnumDescriptor, name: str, following: str) -> str:
    if following not in words:
        raise ValueError(f"{enum.full_name}.{name}: next names {following!r}, which is no value of this enum")
    return words[following]


def _word(enum: EnumDescriptor, value: str) -> str:
    """STATUS_PARTIALLY_REFUNDED of the enum Status -> partially_refunded."""
    return value.removeprefix(f"{_snake(enum.name).upper()}_").lower()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _machine_lines(machine: Machine) -> Iterator[str]:
    name = {state.word: f"{machine.prefix}{state.word.upper()}" for state in machine.states}
    yield f"# {machine.source}"
    for state in machine.states:
        yield f'{name[state.word]}: Final = "{state.word}"'
    yield ""
    yield from _tuple(f"{machine.prefix}ALL", [name[state.word] for state in machine.states])
    yield '"""Every state, in the order of the contract."""'
    yield ""
    yield from _tuple(f"{machine.prefix}INITIAL", [name[state.word] for state in machine.states if state.initial])
    yield '"""The states in which an entity is made."""'
    yield ""
    yield f"{machine.prefix}NEXT: Final[Mapping[str, frozenset[str]]] = MappingProxyType("
    yield "    {"
    for state in machine.states:
        followers = ", ".join(name[word] for word in state.next)
        yield f"        {name[state.word]}: " + (f"frozenset({{{followers}}})," if followers else "frozenset(),")
    yield "    }"
    yield ")"
    yield '"""State -> the states that may follow it; none: at rest for ever."""'
    yield ""
    yield f"{machine.prefix}EVENTS: Final[Mapping[str, str]] = MappingProxyType("
    yield "    {"
    for state in machine.states:
        if state.event:
            yield f'        {name[state.word]}: "{state.event}",'
    yield "    }"
    yield ")"
    yield '"""State -> the topic of the event that entering it publishes."""'
    yield ""
    yield f"{machine.prefix}CHECK: Final = f\"({{', '.join(map(repr, {machine.prefix}ALL))}})\""
    yield '"""The list behind IN of the SQL CHECK."""'


def _tuple(name: str, members: list[str]) -> Iterator[str]:
    yield f"{name}: Final[tuple[str, ...]] = ("
    for member in members:
        yield f"    {member},"
    yield ")"

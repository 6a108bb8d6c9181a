"""What the rooms' code does is what the contract gives them: who calls whom, and who handles which event."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.contract.load import contract
from services.kernel.errors import DomainError
from services.platform import interceptor
from services.platform.batcher import Batcher
from services.platform.consumer import EventConsumer
from services.platform.identity import PEER, spiffe_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.contract.model import Method

SERVICES = Path(__file__).resolve().parents[2] / "services"
ROOMS = sorted(contract().services)
METHODS = {method.name: method for method in contract().methods.values()}


def _called(*files: Path) -> Iterator[Method]:
    """Yield the methods of the contract that modules call: `self._stub.GetJwks`."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            stub = node.value if isinstance(node, ast.Attribute) else None
            if isinstance(node, ast.Attribute) and isinstance(stub, ast.Attribute) and stub.attr == "_stub":
                yield METHODS[node.attr]


def _calls(room: str) -> set[str]:
    """The names of the methods that a room calls: its own code, and what the platform asks of config for it."""
    own = [*_called(*(SERVICES / room).rglob("*.py"))]
    platform = () if room == "config" else ("registration.py", "follow.py")
    return {method.name for method in (*own, *_called(*(SERVICES / "platform" / file for file in platform)))}


def _let_in(room: str, method: Method) -> bool:
    """Ask the interceptor of a method's service about a call of a room."""
    call = interceptor.Call(method, None, None, {PEER: f"By=x;URI={spiffe_id(room)}"}, frozenset())
    interceptor.peer(call)
    try:
        interceptor.authorize(call)
    except DomainError as refusal:
        return refusal.reason != "CALLER_NOT_ALLOWED"
    return True


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_let_in_where_it_calls_and_nowhere_else(room: str) -> None:
    """The methods whose interceptor lets a room in are those that its code calls, no more and no fewer."""
    assert {method.name for method in METHODS.values() if _let_in(room, method)} == _calls(room)


@pytest.mark.parametrize("room", ROOMS)
def test_room_handles_the_events_that_the_contract_gives_it(room: str) -> None:
    """Its consumer can be made, which refuses other topics than those whose events name the room."""
    if find_spec(f"services.{room}.consumer") is None:
        assert not [event.topic for event in contract().events.values() if room in event.consumers]
        return
    module = import_module(f"services.{room}.consumer")
    batcher = Batcher({})
    made = (
        module.consumer(batcher, "")
        if hasattr(module, "consumer")
        else EventConsumer(room, module.SUBSCRIPTIONS, batcher, "")
    )
    assert isinstance(made, EventConsumer)

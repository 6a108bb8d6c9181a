"""Orders to a supervisor over its socket: events as they come, one order at a time, and what is begun goes on."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.cli.control import Control, order
from services.cli.exits import CommandError, Exit
from services.cli.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.cli.control import Tell


class Supervisor:
    """A control socket in a thread, with orders of the test's choosing."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self.shown = folder, list[str]()
        self.go_on, self.ended = threading.Event(), threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        orders = {"wait": self._wait, "fail": self._fail, "break": self._break}
        self.control = Control(folder.control, orders, lambda event, _text, **_fields: self.shown.append(event))

    def start(self) -> None:
        """Listen, in a folder that says that a mesh runs in it."""
        self.folder.lock()
        self.folder.make()
        self.folder.record.write_text("{}")
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.control.start(), self._loop).result(5)

    def stop(self) -> None:
        """End it."""
        asyncio.run_coroutine_threadsafe(self.control.stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self.folder.unlock()

    async def _wait(self, said: dict[str, Any], tell: Tell) -> Exit:
        tell("began", "it begins", service=said["service"])
        while not self.go_on.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)
        tell("done", "it is done")
        self.ended.set()
        return Exit.CHECK_FAILED

    async def _fail(self, _said: dict[str, Any], _tell: Tell) -> Exit:
        raise CommandError(Exit.REFUSED, "It cannot be.")

    async def _break(self, _said: dict[str, Any], _tell: Tell) -> Exit:
        raise RuntimeError("planted")


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """One that runs."""
    running = Supervisor(Folder(tmp_path / "d"))
    running.start()
    yield running
    running.stop()


def test_order_is_answered_with_its_events_and_its_end(supervisor: Supervisor) -> None:
    """Events as they come, at the supervisor too, then the exit code; a refusal in words; a fault of ours is 70."""
    supervisor.go_on.set()
    events = list(order(supervisor.folder, {"do": "wait", "service": "risk"}))
    assert [each["event"] for each in events] == ["began", "done", "ended"]
    assert (events[0]["service"], events[-1]["exit_code"]) == ("risk", Exit.CHECK_FAILED)
    assert supervisor.shown == ["began", "done"]
    (refused,) = order(supervisor.folder, {"do": "fail"})
    assert (refused["exit_code"], refused["faults"]) == (Exit.REFUSED, ["It cannot be."])
    (broken,) = order(supervisor.folder, {"do": "break"})
    assert (broken["exit_code"], "planted" in broken["faults"][0]) == (Exit.BUG, True)
    (unknown,) = order(supervisor.folder, {"do": "dance"})
    assert unknown["exit_code"] == Exit.BAD_INPUT
    assert supervisor.folder.run.stat().st_mode & 0o077 == 0


def test_second_order_is_refused_and_the_first_goes_on_without_who_gave_it(supervisor: Supervisor) -> None:
    """2 while another is under way; who asked for it may leave: it ends all the same."""
    asked = order(supervisor.folder, {"do": "wait", "service": "risk"})
    assert next(asked)["event"] == "began"
    (refused,) = order(supervisor.folder, {"do": "wait", "service": "order"})
    assert refused["exit_code"] == Exit.REFUSED
    assert "wait of risk is under way" in refused["faults"][0]
    asked.close()  # type: ignore[attr-defined]  # a generator: its connection ends with it
    supervisor.go_on.set()
    assert supervisor.ended.wait(5)


def test_order_that_the_end_of_the_mesh_interrupts(supervisor: Supervisor) -> None:
    """6: whoever waits is told that it will not be done."""
    asked = order(supervisor.folder, {"do": "wait", "service": "risk"})
    next(asked)
    asyncio.run_coroutine_threadsafe(supervisor.control.stop(), supervisor._loop).result(5)
    with pytest.raises(CommandError) as refused:
        next(asked)
    assert refused.value.code is Exit.UNAVAILABLE


def test_order_when_no_mesh_runs_or_takes_none(tmp_path: Path) -> None:
    """4 when there is none; 6 when it is only just starting."""
    folder = Folder(tmp_path / "d")
    with pytest.raises(CommandError) as refused:
        next(order(folder, {"do": "wait"}))
    assert refused.value.code is Exit.NOT_FOUND
    folder.lock()
    folder.make()
    folder.record.write_text(json.dumps({}))
    with pytest.raises(CommandError) as refused:
        next(order(folder, {"do": "wait"}))
    assert refused.value.code is Exit.UNAVAILABLE
    folder.unlock()

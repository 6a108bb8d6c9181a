"""The sandbox as a process: sockets that are dropped or hang, callbacks over HTTP on a compressed schedule, kill and restart."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.sandbox import keys
from services.sandbox.book import read
from tests.unit.sandbox.merchants import CardMerchant, WechatMerchant, World

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Listener:
    """The merchant's callback address on a real socket; answers each callback with the next of ``codes``, then 200."""

    codes: list[int] = field(default_factory=list)
    came: list[tuple[float, bytes]] = field(default_factory=list)
    url: str = ""

    def wait(self, count: int, timeout_s: float = 10) -> list[tuple[float, bytes]]:
        """Return the callbacks once there are ``count``."""
        until = time.monotonic() + timeout_s
        while len(self.came) < count and time.monotonic() < until:
            time.sleep(0.02)
        return self.came


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener that runs."""
    found = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.came.append((time.monotonic(), self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(found.codes.pop(0) if found.codes else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_port}/callbacks"
        yield found
        server.shutdown()


class Sandbox:
    """`python -m services.sandbox` with the providers of payments."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._http, self._smtp = folder, free_port(), free_port()
        self.start()

    def start(self) -> None:
        """Start it; it answers when this returns."""
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'gen' / 'python'}",
            "PAYMESH_SANDBOX_HTTP": str(self._http),
            "PAYMESH_SANDBOX_SMTP": str(self._smtp),
            "PAYMESH_SANDBOX_FOLDER": str(self.folder),
            "PAYMESH_SANDBOX_TIME_SCALE": "0.002",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "services.sandbox"], env=environ)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200:
                    return
            time.sleep(0.05)
        raise TimeoutError("the sandbox does not answer")

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._http}"

    def end(self, number: int) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox that made its own keys."""
    made = Sandbox(tmp_path / "providers")
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGTERM)


class Outside:
    """What merchants of the unit tests need of a world, over sockets and in real time."""

    def __init__(self, sandbox: Sandbox, timeout_s: float = 5) -> None:
        self.folder = sandbox.folder
        self.http = httpx.AsyncClient(base_url=sandbox.url, timeout=timeout_s, trust_env=False)
        self.clock = self

    @property
    def ms(self) -> int:
        """Wall clock."""
        return int(time.time() * 1000)

    pays, booked, rule = World.pays, World.booked, World.rule


async def test_socket_when_dropped_after_the_charge(sandbox: Sandbox, listener: Listener) -> None:
    """The connection ends without a byte; the charge is in the book once, query and repeat know it."""
    outside: Any = Outside(sandbox)
    cards = CardMerchant(outside)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await cards.charge("C1", "4000000000070013", notify_url=listener.url)
    assert (await cards.query("C1"))[1]["status"] == "captured"
    assert (await cards.charge("C1", "4000000000070013", notify_url=listener.url))[1]["status"] == "captured"
    assert (await outside.booked("C1"))["times_charged"] == 1
    assert len(listener.wait(1)) == 1


async def test_socket_when_it_hangs(sandbox: Sandbox, listener: Listener) -> None:
    """Nothing comes until the client gives up; others are served meanwhile, and a stop does not wait for it."""
    outside: Any = Outside(sandbox, timeout_s=0.5)
    cards, wechat = CardMerchant(outside), WechatMerchant(outside)
    with pytest.raises(httpx.ReadTimeout):
        await cards.charge("C1", "4000000000070021", notify_url=listener.url)
    await outside.rule("wechat", on="charge", do="hang")
    with pytest.raises(httpx.ReadTimeout):
        await wechat.native("ORDER1", notify_url=listener.url)
    assert (await wechat.query("ORDER1"))[0] == 404
    assert (await outside.booked("C1"))["times_charged"] == 1
    assert sandbox.end(signal.SIGTERM) in {0, -signal.SIGTERM}


async def test_callbacks_on_the_compressed_schedule(sandbox: Sandbox, listener: Listener) -> None:
    """Repeats keep the published waits, times the scale: 15 s are 30 ms; they end when taken."""
    outside: Any = Outside(sandbox)
    wechat = WechatMerchant(outside)
    listener.codes = [500, 500, 404]
    await wechat.native("ORDER1", notify_url=listener.url)
    await outside.pays("wechat", "ORDER1")
    times = [at for at, _ in listener.wait(4)]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [round(wait, 3) >= wanted for wait, wanted in zip(waits, (0.03, 0.03, 0.06), strict=True)] == [True] * 3
    await asyncio.sleep(0.5)
    assert len(listener.came) == 4


async def test_book_when_the_sandbox_is_killed(sandbox: Sandbox, listener: Listener) -> None:
    """What was charged before a kill -9 is in the file and in the next process; keys stay."""
    outside: Any = Outside(sandbox)
    cards = CardMerchant(outside)
    await cards.charge("C1", notify_url=listener.url)
    before = keys.cards(sandbox.folder)
    sandbox.end(signal.SIGKILL)
    found, _ = read(sandbox.folder / "book" / "cards.jsonl")
    assert found["C1"].times_charged == 1
    sandbox.start()
    outside = Outside(sandbox)
    cards = CardMerchant(outside)
    assert keys.cards(sandbox.folder) == before
    assert (await cards.charge("C1", notify_url=listener.url))[1]["status"] == "captured"
    assert (await outside.booked("C1"))["times_charged"] == 1
    shutil.rmtree(sandbox.folder / "book")

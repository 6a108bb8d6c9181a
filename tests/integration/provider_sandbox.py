"""The sandbox as it runs, with a merchant who is called back, for the adapters of the providers that it plays."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx

from services.payment.ports.provider import Callback, CallbackForged, Notice, Provider
from services.sandbox import keys
from services.sandbox.app import build
from services.sandbox.settings import Settings

QUICK = 0.001
"""The providers' hours take seconds: 15 s are 15 ms."""

WAIT_S = 8.0
DAY_MS = 86_400_000


class ProviderSandbox:
    """The sandbox in a thread, and a server at which its callbacks come; each goes through ``provider``.

    ``told`` has what came of every callback, in their order: the notice, or why it is forged.
    """

    def __init__(self, folder: Path, name: str, time_scale: float = QUICK) -> None:
        """Play the provider ``name``; keys and book go to ``folder``."""
        self.name, self.folder = name, folder
        keys.make(folder)
        self._port, smtp = free_port(), free_port()
        settings = Settings(sandbox_http=self._port, sandbox_smtp=smtp, sandbox_folder=str(folder),
                            sandbox_time_scale=time_scale)  # fmt: skip
        self._server = build(settings)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._client = httpx.Client(base_url=self.url, timeout=10, trust_env=False)
        self._merchant = _Server(("127.0.0.1", 0), self._handler())
        self._answering = threading.Thread(target=self._merchant.serve_forever, daemon=True)
        self.provider: Provider | None = None
        self.told: list[Notice | str] = []
        self.taken = True

    @property
    def url(self) -> str:
        """Where the sandbox is."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def notify_url(self) -> str:
        """Where the merchant is called back."""
        return f"http://127.0.0.1:{self._merchant.server_port}/callbacks"

    @property
    def merchant(self) -> dict[str, Any]:
        """What the sandbox made for the merchant to hold."""
        found: dict[str, Any] = json.loads((self.folder / "merchant" / f"{self.name}.json").read_text())
        return found

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        self._answering.start()
        assert eventually(lambda: self._server.started), "the sandbox did not start"
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._client.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._merchant.shutdown()
        self._merchant.server_close()

    def script(self, *rules: Mapping[str, object], **options: object) -> None:
        """Replace the provider's script, and forget what was told."""
        answer = self._client.put(f"/scripts/{self.name}", json={"rules": list(rules), **options})
        assert answer.status_code == 200, answer.text
        self.told.clear()
        self.taken = True

    def payer(self, request_id: str, deed: str, action: Any = None) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Let the payer act with what the adapter gave him."""
        answer = self._client.post(f"/payer/{self.name}/{request_id}/{deed}", json=dict(action) if action else {})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def call_back(self, request_id: str, **wanted: object) -> list[dict[str, Any]]:
        """Send a callback now; return the attempts."""
        answer = self._client.post(f"/callbacks/{self.name}/{request_id}", json=wanted)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["deliveries"]
        return found

    def deliveries(self, request_id: str) -> list[dict[str, Any]]:
        """Every attempt to call back about a charge or refund."""
        found = self._client.get(f"/callbacks/{self.name}", params={"request_id": request_id}).json()["deliveries"]
        assert isinstance(found, list)
        return found

    def charge(self, request_id: str) -> dict[str, Any] | None:
        """What stands in the provider's own book."""
        params = {"provider": self.name, "request_id": request_id}
        found: list[dict[str, Any]] = self._client.get("/book", params=params).json()["charges"]
        return found[0] if found else None

    def notice(self, request_id: str, nth: int = 0) -> Notice:
        """Wait for a notice about a charge or refund; the ``nth`` of them."""

        def found() -> list[Notice]:
            return [each for each in self.told if isinstance(each, Notice) and each.request_id == request_id]

        assert eventually(lambda: len(found()) > nth), f"no notice {nth} of {request_id} among {self.told}"
        return found()[nth]

    def _receive(self, callback: Callback) -> tuple[int, str, bytes]:
        """Verify and read a callback, and answer it in the provider's words."""
        assert self.provider is not None
        try:
            self.told.append(self.provider.parse(callback, time.time_ns() // 1_000_000))
            taken = self.taken
        except CallbackForged as forged:
            self.told.append(str(forged))
            taken = False
        answer = self.provider.acknowledge(taken=taken)
        return answer.status, answer.content_type, answer.body

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receive = self._receive

        class Merchant(BaseHTTPRequestHandler):
            """Takes callbacks as they come."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, content_type, answer = receive(Callback(headers, body))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Merchant


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # fifty callbacks come at once


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(done: Callable[[], bool]) -> bool:
    """Wait until something is so."""
    ends = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True

"""`paymesh demo`: a mesh of its own, the main job over REST, the books checked; nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START_S = 120.0
"""A machine that takes longer to start a mesh is no place for a demo."""
STOP_S = 40.0
SETTLE_S = 20.0
"""From the last call until nothing is on its way any more."""
METHODS = ("balance", "alipay", "wechat", "bank_card")


@dataclass
class Timeline:
    """What was done when, shown as it happens. Seconds count from the construction."""

    as_json: bool
    began: float = field(default_factory=time.monotonic)

    def step(self, title: str, work: Callable[[], str]) -> None:
        """Do a step and show it; what it raises goes on."""
        began = time.monotonic()
        try:
            detail = work()
        except Exception as error:
            self._show(title, str(error), began, ok=False)
            raise
        self._show(title, detail, began, ok=True)

    def _show(self, title: str, detail: str, began: float, *, ok: bool) -> None:
        at, took = began - self.began, time.monotonic() - began
        if self.as_json:
            said = {"step": title, "ok": ok, "at_s": round(at, 3), "took_s": round(took, 4), "detail": detail}
            print(json.dumps(said, ensure_ascii=False), flush=True)
            return
        from rich.console import Console  # noqa: PLC0415 - heavy imports late
        from rich.markup import escape  # noqa: PLC0415

        mark = "[green]✓[/green]" if ok else "[red]✗[/red]"
        took_text = f"{took * 1000:.0f} ms" if took < 1 else f"{took:.1f} s"
        line = f"[dim]{at:7.2f} s[/dim]  {mark} {title:<30} [dim]{took_text:>8}[/dim]  {escape(detail)}"
        Console(highlight=False, soft_wrap=True).print(line)


def demo(
    method: Annotated[str, typer.Option(help=f"How to pay: {', '.join(METHODS)}.")] = "balance",
    *,
    json_: Annotated[bool, typer.Option("--json", help="Steps on standard output, one JSON object a line.")] = False,
) -> int:
    """Start a mesh in a temporary folder, buy, pay and refund over REST, check the books, end it."""
    if method not in METHODS:
        raise CommandError(Exit.BAD_INPUT, f"--method {method!r}: one of {', '.join(METHODS)}.")
    from services.cli.adapters import CallFailed  # noqa: PLC0415 - heavy imports late

    timeline = Timeline(json_)
    top = Path(tempfile.mkdtemp(prefix="paymesh-"))
    try:
        pids = _walk(timeline, top, method)
        shutil.rmtree(top)
        timeline.step("everything is gone again", lambda: _gone(pids, top))
    except CallFailed as error:
        raise CommandError(
            Exit.CHECK_FAILED, f"The demo failed: {error}", f"Logs and data are kept in {top}."
        ) from None
    except BaseException:
        shutil.rmtree(top)
        raise
    return Exit.OK


def _walk(timeline: Timeline, top: Path, method: str) -> set[int]:
    """Do every step on a mesh in ``top``, paying by ``method``; return the processes that the mesh had."""
    from services.cli.adapters import Rest  # noqa: PLC0415 - heavy imports late
    from services.cli.journey import Journey  # noqa: PLC0415

    with _mesh(timeline, top) as record:
        rest = Rest(record["rest"], Path(record["ca"]))
        for title, work in Journey(rest, record["sandbox"], record["admin"], method).steps():
            timeline.step(title, work)
        rest.close()
        timeline.step("the books are checked", lambda: _verify(top))
        known = [*record["services"].values(), *record["envoys"].values()]
        return {each["pid"] for group in known for each in group} | set(record["others"].values()) | {record["pid"]}


@contextlib.contextmanager
def _mesh(timeline: Timeline, top: Path) -> Iterator[dict[str, Any]]:
    """Start `paymesh up` on free ports and yield its ready file; end it and wait for its end."""
    from services.cli.layout import base_environ, python  # noqa: PLC0415 - heavy imports late
    from services.cli.supervisor.tether import tether  # noqa: PLC0415

    ready, log = top / "ready.json", top / "up.log"
    command = python("-m", "services.cli", "up", "--data", str(top / "mesh"), "--ready-file", str(ready))
    environ = {**base_environ(), "PAYMESH_REST_PORT": "0", "PAYMESH_GRPC_PORT": "0"}
    with log.open("w") as output:
        up = subprocess.Popen(
            command, env=environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=tether(),  # noqa: PLW1509 - no thread of ours runs yet
        )  # fmt: skip
    try:
        timeline.step("mesh starts", lambda: _await_ready(up, ready, log))
        yield json.loads(ready.read_text())
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(STOP_S)
        except subprocess.TimeoutExpired:
            up.kill()


def _await_ready(up: subprocess.Popen[bytes], ready: Path, log: Path) -> str:
    from services.cli.adapters import CallFailed  # noqa: PLC0415 - heavy imports late

    deadline = time.monotonic() + START_S
    while not ready.exists():
        if up.poll() is not None or time.monotonic() > deadline:
            raise CallFailed(f"the mesh did not start:\n{log.read_text()[-4000:]}")
        time.sleep(0.05)
    record = json.loads(ready.read_text())
    return f"{sum(map(len, record['services'].values()))} services, {sum(map(len, record['envoys'].values()))} Envoys"


def _verify(top: Path) -> str:
    """Run `paymesh verify --settled` on the mesh; what is on its way gets a moment to arrive."""
    from services.cli.adapters import CallFailed  # noqa: PLC0415 - heavy imports late
    from services.cli.layout import base_environ, python  # noqa: PLC0415

    command = python("-m", "services.cli", "verify", "--settled", "--data", str(top / "mesh"), "--json")
    deadline = time.monotonic() + SETTLE_S
    while True:
        done = subprocess.run(command, env=base_environ(), capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == Exit.OK:
            findings = json.loads(done.stdout)["findings"]
            return f"{len(findings)} checks hold over {sum(each['examined'] for each in findings)} rows"
        if time.monotonic() > deadline:
            raise CallFailed(f"verify ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def _gone(pids: set[int], top: Path) -> str:
    from services.cli.adapters import CallFailed  # noqa: PLC0415 - heavy imports late

    left = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    if left or top.exists():
        raise CallFailed(f"the mesh left {left or top} behind")
    return f"{len(pids)} processes, one folder"

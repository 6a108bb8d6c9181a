"""What `paymesh verify` makes of findings: breaches are named, and a check that looked at nothing proves nothing."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from services.cli.commands import main
from services.cli.exits import Exit
from services.cli.folder import Folder
from services.cli.invariants import RoomFinding
from services.cli.migrate import migrate_all, with_migrations
from services.cli.verify import failures, run
from services.contract.load import contract
from services.platform.audit import Finding, Notes

if TYPE_CHECKING:
    from pathlib import Path

OWN = (
    ("payment", "I1", "ledger transactions"),
    ("payment", "I2", "account balances"),
    ("payment", "I2", "accounts by kind and currency"),
    ("payment", "I3", "one payment per order"),
    ("payment", "I3", "payments and ledger agree"),
    ("payment", "I3", "refunds and ledger agree"),
    ("payment", "I4", "payments at rest"),
    ("payment", "I4", "refunds at rest"),
    ("payment", "I5", "refunds"),
    ("payment", "I6", "idempotency keys"),
    ("payment", "I7", "events published"),
    ("payment", "I8", "versions of each payment"),
    ("payment", "I10", "links of the ledger chain"),
    ("payment", "I11", "text in the database"),
    ("payment", "I12", "steps of payments"),
    ("payment", "I12", "charges of payments"),
    ("payment", "I12", "states of refunds"),
    ("payment+provider", "I3", "captured charges of the books"),
    ("payment+provider", "I3", "captured payments in the books"),
    ("order", "I7", "events published"),
    ("order", "I8", "orders and their events"),
    ("order", "I12", "states of orders"),
    ("user", "I7", "events published"),
    ("user", "I8", "versions of each user"),
    ("user", "I8", "accounts and their events"),
    ("order+payment", "I9", "orders and their payments"),
    ("order+payment", "I9", "payments that took money"),
    ("order+payment", "I9", "payments that gave money back"),
)


def planted(**examined: int) -> list[RoomFinding]:
    """Findings of a mesh in which everything happened, three rows each; ``examined`` has other counts, by what."""
    effects = [
        (f"{event.service}+{consumer}", "I7", f"{event.topic} handled by {consumer}")
        for event in contract().events.values()
        for consumer in event.consumers
    ]
    return [RoomFinding(room, Finding(name, what, examined.get(what, 3))) for room, name, what in (*OWN, *effects)]


def nothing() -> dict[str, int]:
    """No rows anywhere."""
    return dict.fromkeys((each.finding.what for each in planted()), 0)


def test_failures_when_all_was_looked_at() -> None:
    """Rows everywhere, and none anywhere in a mesh in which nothing happened yet, are both no failure."""
    assert failures(planted()) == []
    assert failures(planted(**nothing())) == []


def test_failures_when_a_breach_is_found() -> None:
    """A breach is told with its invariant and its room."""
    broken = RoomFinding("payment", Finding("I1", "ledger transactions", 3, ["transaction 7 sums to 1"]))
    assert failures([*planted(), broken]) == ["I1 payment: transaction 7 sums to 1"]


@pytest.mark.parametrize(
    "what",
    [
        "payment.success handled by order",
        "payment.refunded handled by order",
        "payment.refunded handled by notification",
        "order.created handled by payment",
        "user.created handled by notification",
        "ledger transactions",
        "account balances",
        "accounts by kind and currency",
        "payments and ledger agree",
        "refunds and ledger agree",
        "refunds at rest",
        "refunds",
        "idempotency keys",
        "versions of each payment",
        "links of the ledger chain",
        "text in the database",
        "steps of payments",
        "states of orders",
        "captured charges of the books",
        "charges of payments",
    ],
)
def test_failures_when_a_check_looked_at_nothing(what: str) -> None:
    """One check without rows is told, whatever the others of its invariant looked at."""
    said = failures(planted(**{what: 0}))
    assert said
    assert all(f"{what!r} examined no row" in each for each in said)


@pytest.mark.parametrize("what", [each.finding.what for each in planted() if " handled by " in each.finding.what])
def test_failures_when_an_effect_was_not_looked_at(what: str) -> None:
    """Each consumer of each event is checked; a check that is gone is a failure, also with nothing to check."""
    left = [each for each in planted(**nothing()) if each.finding.what != what]
    (said,) = failures(left)
    assert f"{what!r} was not checked" in said


def test_failures_when_a_room_does_not_check() -> None:
    """A check that a room no longer makes is told."""
    (said,) = failures([each for each in planted() if each.finding.invariant != "I10"])
    assert said == "I10 payment: 'links of the ledger chain' was not checked"


def test_failures_when_nothing_was_given_back() -> None:
    """Without refunds nobody has to have looked at any; nor at paid orders before the first payment took money."""
    refunds = (
        "payments that gave money back",
        "refunds",
        "refunds at rest",
        "refunds and ledger agree",
        "states of refunds",
        "payment.refunded handled by order",
    )
    assert failures(planted(**dict.fromkeys(refunds, 0))) == []
    assert failures(planted(**{"payments that took money": 0, "payment.success handled by order": 0})) == []


def test_failures_when_there_is_no_book() -> None:
    """What is absent is owed by nobody: no provider's book, nothing to hold against ours."""
    absent = Finding("I3", "captured charges of the books", 0, absent="no provider's book")
    found = [each for each in planted() if each.finding.what != absent.what]
    assert failures([*found, RoomFinding("payment+provider", absent)]) == []


def test_failures_when_earlier_runs_had_rows() -> None:
    """A run that goes on from another need not have rows of its own, but a check that never had any is told."""
    quiet = planted(**{"ledger transactions": 0, "links of the ledger chain": 0})
    before = [("payment", "I1", "ledger transactions"), ("payment", "I10", "links of the ledger chain")]
    assert failures(quiet, before) == []
    (said,) = failures(quiet, before[:1])
    assert "'links of the ledger chain' examined no row" in said


def test_verify_when_the_databases_are_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Empty books hold; what there is nothing of to look at is said to be unchecked, and why."""
    migrate_all({room: f"sqlite:///{tmp_path / room}.db" for room in with_migrations()}, as_json=True)
    capsys.readouterr()
    assert main(["verify", "--data", str(tmp_path)]) == Exit.OK
    *rows, _, last = capsys.readouterr().out.splitlines()
    assert {row.split()[1] for row in rows} >= {f"I{n}" for n in range(1, 13)}
    assert [row.split("not checked: ")[1] for row in rows if " - " in row[:4]] == ["no provider's book"] * 3
    assert last.endswith(", over everything.")
    assert (tmp_path / "verify.db").stat().st_mode & 0o777 == 0o600


def test_verify_goes_on_from_the_last_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The next run says since when, as text and as JSON; --full begins anew, and so does one without usable notes."""
    migrate_all({room: f"sqlite:///{tmp_path / room}.db" for room in with_migrations()}, as_json=True)
    assert main(["verify", "--data", str(tmp_path)]) == Exit.OK
    capsys.readouterr()
    assert main(["verify", "--data", str(tmp_path)]) == Exit.OK
    assert ", since 2" in capsys.readouterr().out
    said = _json(tmp_path, capsys)
    assert (said["holds"], said["faults"], said["why"]) == (True, [], "")
    assert said["since_ms"] > 0
    assert _json(tmp_path, capsys, "--full")["since_ms"] == 0
    for each in tmp_path.glob("verify.db*"):
        each.write_bytes(b"no database" * 1000)
    said = _json(tmp_path, capsys)
    assert said["since_ms"] == 0
    assert "is no file of notes" in said["why"]


def test_verify_begins_anew_when_it_cannot_go_on(tmp_path: Path) -> None:
    """Notes of other databases, or of a time to come, are not gone on from; a run beside another one notes nothing."""
    urls = {room: f"sqlite:///{tmp_path / room}.db" for room in with_migrations()}
    migrate_all(urls, as_json=True)
    folder, now_ms = Folder(tmp_path), 1_800_000_000_000
    assert run(folder, now_ms, full=False, settled=False).since_ms == 0
    assert run(folder, now_ms + 600_000, full=False, settled=False).since_ms == now_ms - 120_000
    back = run(folder, now_ms, full=False, settled=False)
    assert (back.since_ms, back.why) == (0, "the clock went back since the last run")
    with closing(Notes(tmp_path / "verify.db")):
        beside = run(folder, now_ms + 600_000, full=False, settled=False)
    assert (beside.since_ms, beside.faults) == (now_ms - 120_000, [])
    assert "notes nothing" in beside.why
    assert run(folder, now_ms + 900_000, full=False, settled=False).since_ms == now_ms - 120_000
    tmp_path.rename(tmp_path.with_name("moved"))
    moved = run(Folder(tmp_path.with_name("moved")), now_ms + 900_000, full=False, settled=False)
    assert (moved.since_ms, moved.why) == (0, "the last run was of other databases")


def _json(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["verify", "--json", "--data", str(folder), *options]) == Exit.OK
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said

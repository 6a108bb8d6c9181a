"""What `paymesh verify` makes of findings: breaches are named, and a check that looked at nothing proves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from services.cli.commands import main
from services.cli.exits import Exit
from services.cli.invariants import RoomFinding
from services.cli.migrate import migrate_all, with_migrations
from services.cli.verify import failures
from services.contract.load import contract
from services.platform.audit import Finding

if TYPE_CHECKING:
    from pathlib import Path

OWN = (
    ("payment", "I1", "ledger transactions"),
    ("payment", "I2", "account balances"),
    ("payment", "I2", "accounts by kind and currency"),
    ("payment", "I3", "one payment per order"),
    ("payment", "I3", "payments and ledger agree"),
    ("payment", "I3", "refunds and ledger agree"),
    ("payment+provider", "I3", "captured payments in the books"),
    ("payment+provider", "I3", "captured charges of the books"),
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
    ("order", "I7", "events published"),
    ("order", "I8", "orders and their events"),
    ("order", "I12", "states of orders"),
    ("user", "I7", "events published"),
    ("user", "I8", "accounts and their events"),
    ("user", "I8", "versions of each user"),
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
        "payments and ledger agree",
        "refunds",
        "idempotency keys",
        "versions of each payment",
        "links of the ledger chain",
        "steps of payments",
        "states of orders",
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
    """An invariant that a room no longer checks is told."""
    (said,) = failures([each for each in planted() if each.finding.invariant != "I10"])
    assert said == "I10 payment: 'links of the ledger chain' was not checked"


def test_failures_when_nothing_was_given_back() -> None:
    """Without refunds nobody has to have looked at any; nor at paid orders before the first payment took money."""
    refunds = ("payments that gave money back", "refunds", "payment.refunded handled by order")
    assert failures(planted(**dict.fromkeys(refunds, 0))) == []
    assert failures(planted(**{"payments that took money": 0, "payment.success handled by order": 0})) == []


def test_verify_when_the_databases_are_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Empty books hold; all that is looked at for secrets stands in the list: tables of six rooms, logs, what is hashed."""
    migrate_all({room: f"sqlite:///{tmp_path / room}.db" for room in with_migrations()}, as_json=True)
    capsys.readouterr()
    assert main(["verify", "--data", str(tmp_path)]) == Exit.OK
    *rows, _, last = capsys.readouterr().out.splitlines()
    assert [row.split()[1] for row in rows].count("I11") == 9
    assert last.startswith("holds: ")

"""The ledger as a whole: domain -> protobuf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paymesh.payment.v1 import ledger_pb2
from paymesh.type.v1 import money_pb2

if TYPE_CHECKING:
    from services.payment.domain import TrialBalanceLine
    from services.payment.usecases import LedgerExport


def trial_balance_line(line: TrialBalanceLine) -> ledger_pb2.TrialBalanceLine:
    """Render a line. Its sums are of a ledger's whole life: they may be more than any single amount is."""
    debits, credits_ = (money_pb2.Money(currency_code=line.currency_code, minor_units=n) for n in line[3:])
    return ledger_pb2.TrialBalanceLine(kind=line.kind, accounts=line.accounts, debits=debits, credits=credits_)


def ledger_export(made: LedgerExport) -> ledger_pb2.LedgerExport:
    """Render an export."""
    return ledger_pb2.LedgerExport(day=made.day, sha256=made.sha256, entries=made.entries)

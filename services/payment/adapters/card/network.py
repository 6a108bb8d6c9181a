"""The card network behind the port."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.payment.adapters import strict_json
from services.payment.adapters.card import readings, signing
from services.payment.adapters.card.client import Client, Said
from services.payment.adapters.exchange import Unanswered
from services.payment.adapters.outcome import (
    ABSENT_REFUND,
    UNVERIFIED,
    VERDICTS,
    unknown,
    unknown_refund,
    unsupported,
)
from services.payment.ports.cards import VaultUnusable
from services.payment.ports.provider import (
    Acknowledgement,
    Bill,
    Callback,
    CallbackForged,
    Charge,
    Charged,
    Notice,
    Phase,
    Refunded,
    Refunding,
    Verdict,
)
from services.platform import telemetry

if TYPE_CHECKING:
    import httpx

    from services.kernel.clock import Clock
    from services.kernel.money import Money
    from services.payment.adapters.card.settings import CardSettings
    from services.payment.domain.card import Expiry, Pan
    from services.payment.ports.cards import CvvRelay, Vault

CALLBACK_BYTES_MAX = 64 << 10
TEXT_MAX = 200
UNKNOWN_CARD = "card_unknown"
"""The vault has no card with this token of this merchant; nothing was sent."""
VAULT_UNUSABLE = "vault_unusable"
"""The card cannot be opened now; nothing was sent this time."""
NOT_CLOSABLE = "not_closable"
"""Money was set aside or taken meanwhile: it is to be voided or refunded, not closed."""
_OURS_TO_ASK = "PROCESSING_ERROR"
"""The network failed, not the card: what came of it only a query tells."""
_CONFLICT = "REQUEST_CONFLICT"
"""The network knows our id with other content: a fault of ours, for someone to look at."""
_CHARGES, _REFUNDS = "/cards/v1/charges", "/cards/v1/refunds"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class CardNetwork:
    """The card network. Numbers come from the vault by token; a verification value goes along once, then it is gone."""

    def __init__(
        self,
        settings: CardSettings,
        vault: Vault,
        cvvs: CvvRelay,
        clock: Clock,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Make the adapter; ``transport`` replaces the network. Raises ValueError where a secret or URL is none."""
        self._settings, self._vault, self._cvvs = settings, vault, cvvs
        self._client = Client(settings, clock, transport)

    def charge(self, charge: Charge) -> Charged:
        """Authorize, and capture at once unless told otherwise. Pending is a challenge for the payer."""
        if charge.scene != "card":
            return unsupported()
        try:
            card = self._vault.reveal(self._settings.vault_merchant_id, charge.payer.get("card_token", ""))
            if card is None:
                return self._refused_unless_known(charge.request_id, UNKNOWN_CARD)
            return self._charged(self._client.post(_CHARGES, self._order(charge, *card)), charge)
        except Unanswered as none:
            return unknown(none.word)
        except VaultUnusable as error:
            telemetry.log.error("vault.unusable", error=str(error))
            return unknown(VAULT_UNUSABLE)

    def query(self, request_id: str) -> Charged:
        """Ask for a charge by our number."""
        try:
            said = self._client.get(_at(_CHARGES, request_id))
        except Unanswered as none:
            return unknown(none.word)
        if said.status == 404:
            return Charged(VERDICTS[Phase.ABSENT], Phase.ABSENT, code=said.code)
        return self._read(said.members, request_id) if said.taken else unknown(said.code)

    def capture(self, request_id: str, provider_id: str, amount: Money) -> Charged:  # noqa: ARG002 - the port's
        """Take what was authorized, or a part of it, once; the rest is let go of."""
        try:
            said = self._client.post(_at(_CHARGES, request_id) + "/capture", {"amount": _amount(amount)})
        except Unanswered as none:
            return unknown(none.word)
        if not said.taken:
            return self._refused_as_it_stands(request_id, said.code)
        found = self._read(said.members, request_id)
        taken = found.phase in {Phase.CAPTURED, Phase.REFUNDED} and found.amount == amount
        return found if taken or found.verdict is Verdict.UNKNOWN else unknown(UNVERIFIED)

    def void(self, request_id: str, provider_id: str) -> Charged:  # noqa: ARG002 - the port's
        """Let go of what was authorized."""
        try:
            said = self._client.post(_at(_CHARGES, request_id) + "/void", {})
        except Unanswered as none:
            return unknown(none.word)
        if not said.taken:
            return self._refused_as_it_stands(request_id, said.code)
        return _ended(self._read(said.members, request_id))

    def close(self, request_id: str) -> Charged:
        """End a charge that nobody completed; refused where money was set aside or taken: void or refund that.

        The network has no word for it. A challenge that it does not let go of ends at the time that the charge named, and
        is pending until then.
        """
        found = self.query(request_id)
        if found.phase is Phase.WAITING and found.verdict is Verdict.PENDING:
            voided = self.void(request_id, found.provider_id)
            return found if voided.verdict is Verdict.REFUSED and voided.phase is Phase.WAITING else voided
        if found.verdict is Verdict.DONE:
            return Charged(Verdict.REFUSED, found.phase, found.provider_id, NOT_CLOSABLE, found.amount)
        return _ended(found)

    def refund(self, refunding: Refunding) -> Refunded:
        """Give money back; the same id repeats the same refund."""
        content = {
            "request_id": refunding.request_id,
            "charge_request_id": refunding.charge_request_id,
            "amount": _amount(refunding.amount),
            "reason": _line(refunding.reason),
            "notify_url": self._settings.notify_url,
        }
        try:
            said = self._client.post(_REFUNDS, content)
        except Unanswered as none:
            return unknown_refund(none.word)
        if said.code == _CONFLICT:
            return unknown_refund(said.code)
        return _refund(said, refunding) if said.taken else Refunded(Verdict.REFUSED, code=said.code)

    def query_refund(self, refunding: Refunding) -> Refunded:
        """Ask for a refund by our number. One that the network does not know may be under way still: unknown."""
        try:
            said = self._client.get(_at(_REFUNDS, refunding.request_id))
        except Unanswered as none:
            return unknown_refund(none.word)
        if said.taken:
            return _refund(said, refunding)
        return unknown_refund(ABSENT_REFUND if said.status == 404 else said.code)

    def parse(self, callback: Callback, now_ms: int) -> Notice:
        """Verify and read a callback."""
        if len(callback.body) > CALLBACK_BYTES_MAX:
            raise CallbackForged("too large")
        try:
            self._client.secrets.check_callback(callback.headers, callback.body, now_ms)
        except signing.Unverified as error:
            raise CallbackForged(str(error)) from error
        try:
            return self._notice(strict_json.parse(callback.body.decode()))
        except ValueError as error:
            raise CallbackForged("verifies, but tells of nothing that we know") from error

    def acknowledge(self, *, taken: bool) -> Acknowledgement:
        """Answer 200, or anything else to be told again."""
        return Acknowledgement(200 if taken else 500, "application/json", b"{}")

    def fetch_bill(self, day: str) -> Bill | None:
        """Fetch the bill of a day (UTC)."""
        try:
            content = self._client.download(_at("/cards/v1/bills", day))
            return None if content is None else Bill(content, readings.bill(content))
        except (Unanswered, ValueError) as error:
            telemetry.log.warning("bill.not_fetched", provider="cards", day=day, error=str(error))
            return None

    def stop(self) -> None:
        """Close the connections."""
        self._client.stop()

    def _order(self, charge: Charge, pan: Pan, expiry: Expiry) -> dict[str, object]:
        """What is asked for. The only place where a number and a verification value are put into a message."""
        card: dict[str, object] = {"number": pan.reveal(), "exp_month": expiry.month, "exp_year": expiry.year}
        cvv = self._cvvs.take(charge.request_id)
        if cvv is not None:
            card["cvc"] = cvv.take()
        content: dict[str, object] = {
            "request_id": charge.request_id,
            "amount": _amount(charge.amount),
            "card": card,
            "capture": charge.capture,
            "description": _line(charge.description) or charge.request_id,
            "notify_url": self._settings.notify_url,
            "expire_at": charge.expire_ms // 1000,
        }
        if self._settings.return_url:
            content["return_url"] = self._settings.return_url
        return content

    def _charged(self, said: Said, charge: Charge) -> Charged:
        if said.status in {400, 402}:
            return self._refused_unless_known(charge.request_id, said.code)
        if not said.taken:
            return unknown(said.code)
        found = self._read(said.members, charge.request_id, charge.amount)
        return self.query(charge.request_id) if found.code == _OURS_TO_ASK else found

    def _read(self, members: strict_json.JsonObject, request_id: str, asked: Money | None = None) -> Charged:
        try:
            return readings.charged(members, request_id, asked, accept_unavailable=self._settings.accept_unavailable)
        except ValueError:
            return unknown(UNVERIFIED)

    def _refused_unless_known(self, request_id: str, code: str) -> Charged:
        """Refuse what was not sent or not taken, unless an earlier try of it was: then say how that one stands."""
        found = self.query(request_id)
        return Charged(Verdict.REFUSED, Phase.ABSENT, code=code) if found.phase is Phase.ABSENT else found

    def _refused_as_it_stands(self, request_id: str, code: str) -> Charged:
        """Refuse a change, and say how the charge stands that it was to change."""
        found = self.query(request_id)
        if found.verdict is Verdict.UNKNOWN and found.phase is None:
            return found
        return Charged(Verdict.REFUSED, found.phase, found.provider_id, code, found.amount)

    def _notice(self, told: strict_json.JsonObject) -> Notice:
        """Read a verified callback. Raises ValueError."""
        kind, _, status = strict_json.string(told, "type").partition(".")
        data, notice_id = strict_json.nested(told, "data"), strict_json.string(told, "id")
        ours = strict_json.string(data, "request_id")
        if strict_json.string(told, "merchant_id") != self._settings.merchant_id:
            raise ValueError("for another merchant")
        if not notice_id or strict_json.string(data, "status") != status:
            raise ValueError("of no state")
        if kind == "charge":
            accept = self._settings.accept_unavailable
            return Notice(notice_id, ours, charged=readings.charged(data, ours, accept_unavailable=accept))
        if kind != "refund":
            raise ValueError("of another kind")
        return Notice(notice_id, ours, refunded=readings.refunded(data, ours))


def _refund(said: Said, refunding: Refunding) -> Refunded:
    try:
        found = readings.refunded(said.members, refunding.request_id, refunding.charge_request_id)
    except ValueError:
        return unknown_refund(UNVERIFIED)
    return found if found.amount == refunding.amount else unknown_refund(UNVERIFIED)


def _ended(found: Charged) -> Charged:
    """What void and close make of how a charge stands: done, where it ended without money or never was."""
    if found.phase in {Phase.CLOSED, Phase.FAILED, Phase.ABSENT}:
        return Charged(Verdict.DONE, found.phase, found.provider_id, found.code, found.amount, at_ms=found.at_ms)
    return found if found.verdict is Verdict.UNKNOWN else unknown(UNVERIFIED)


def _at(folder: str, name: str) -> str:
    assert _REQUEST_ID.fullmatch(name), "our numbers stand in paths as they are"
    return f"{folder}/{name}"


def _amount(amount: Money) -> dict[str, object]:
    return {"minor_units": amount.minor_units, "currency": amount.currency_code}


def _line(text: str) -> str:
    """Text for people in one line."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:TEXT_MAX]

"""Requests to the card network: signed over the bytes that are sent, answered by what verifies."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.payment.adapters import strict_json
from services.payment.adapters.card import signing
from services.payment.adapters.exchange import ANSWER_BYTES_MAX, Answer, Exchange, Unanswered, provider_url
from services.payment.adapters.outcome import UNVERIFIED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from services.kernel.clock import Clock
    from services.payment.adapters.card.settings import CardSettings

BILL_BYTES_MAX = 64 << 20
BILL_S_MAX = 60.0
_DECIDED = frozenset({200, 400, 402, 404, 409})
"""Answers that say what became of a request. Any other status leaves it open."""


@dataclass(frozen=True, slots=True)
class Said:
    """A verified answer: ``code`` is the network's word where it is no 200, in upper case as a provider's words are."""

    status: int
    code: str
    members: strict_json.JsonObject

    @property
    def taken(self) -> bool:
        """Whether the network took the request."""
        return self.status == 200


class Client:
    """Signs requests, sends them, and hands out answers whose signature holds."""

    def __init__(self, settings: CardSettings, clock: Clock, transport: httpx.BaseTransport | None) -> None:
        """Take over the settings. Raises ValueError where a secret or URL is none."""
        self._base = provider_url(settings.base_url)
        self.secrets = signing.Secrets(
            settings.merchant_id, settings.key_id, settings.request_secret, settings.answer_secret
        )
        self._clock = clock
        self._exchange = Exchange(
            clock, connect_s=settings.connect_s, read_s=settings.read_s, transport=transport, provider="bank_card"
        )

    def get(self, path: str) -> Said:
        """Ask. Raises Unanswered."""
        return self._said(self._send("GET", path, b""))

    def post(self, path: str, content: Mapping[str, object]) -> Said:
        """Ask for something to be done. Raises Unanswered."""
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        return self._said(self._send("POST", path, body))

    def download(self, path: str) -> bytes | None:
        """Fetch a file; None: there is none. Raises Unanswered."""
        answer = self._send("GET", path, b"", bill=True)
        if answer.status not in {200, 404}:
            raise Unanswered(f"http_{answer.status}")
        return answer.body if answer.status == 200 else None

    def stop(self) -> None:
        """Close the connections."""
        self._exchange.stop()

    def _send(self, method: str, path: str, body: bytes, *, bill: bool = False) -> Answer:
        """Send once and return the answer, if the network signed it as the answer to this very request."""
        url = self._base.join(path)
        nonce, seconds = secrets.token_urlsafe(16), self._clock.now_ms() // 1000
        headers = self.secrets.headers(method, url.raw_path.decode("ascii"), body, seconds=seconds, nonce=nonce)
        if body:
            headers["Content-Type"] = "application/json"
        answer = self._exchange.send(
            method,
            url,
            headers,
            body,
            bytes_max=BILL_BYTES_MAX if bill else ANSWER_BYTES_MAX,
            total_s=BILL_S_MAX if bill else None,
        )
        try:
            self.secrets.check_answer(answer.status, answer.headers, answer.body, nonce, self._clock.now_ms())
        except signing.Unverified as error:
            raise Unanswered(UNVERIFIED if answer.status == 200 else f"http_{answer.status}") from error
        return answer

    @staticmethod
    def _said(answer: Answer) -> Said:
        if answer.status not in _DECIDED:
            raise Unanswered(f"http_{answer.status}")
        try:
            members = strict_json.parse(answer.body.decode())
            error = {} if answer.status == 200 else strict_json.nested(members, "error")
            return Said(answer.status, strict_json.string(error, "code").upper(), members)
        except ValueError as fault:
            raise Unanswered(UNVERIFIED) from fault

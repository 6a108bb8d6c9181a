"""Alipay's gateway: one URL, a method by name, parameters signed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from services.payment.adapters import rsa
from services.payment.adapters.alipay import outcomes, signing
from services.payment.adapters.china import china_time
from services.payment.adapters.exchange import Exchange, Unanswered, provider_url, same_origin
from services.payment.adapters.outcome import UNVERIFIED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from services.kernel.clock import Clock
    from services.payment.adapters.alipay.settings import AlipaySettings

_FORM = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"}
BILL_BYTES_MAX = 64 << 20
BILL_S_MAX = 60.0


class Gateway:
    """Signs requests, sends them, and hands out answers whose signature holds."""

    def __init__(self, settings: AlipaySettings, clock: Clock, transport: httpx.BaseTransport | None) -> None:
        """Take over the settings. Raises ValueError where a key or URL is none."""
        self._url = provider_url(settings.gateway_url)
        self._key = rsa.private_key(settings.private_key)
        self._alipay_key = rsa.public_key(settings.alipay_public_key)
        self._settings, self._clock = settings, clock
        self._exchange = Exchange(
            clock, connect_s=settings.connect_s, read_s=settings.read_s, transport=transport, provider="alipay"
        )

    def parameters(self, method: str, content: Mapping[str, object], *, payer: bool = False) -> dict[str, str]:
        """Make the signed parameters of a request; where the payer brings it there himself, with where to send him back."""
        return signing.signed(
            self._key,
            {
                "app_id": self._settings.app_id,
                "method": method,
                "format": "JSON",
                "charset": "utf-8",
                "sign_type": signing.SIGN_TYPE,
                "timestamp": china_time(self._clock.now_ms()),
                "version": "1.0",
                "notify_url": self._settings.notify_url,
                "return_url": self._settings.return_url if payer else "",
                # In ASCII, so that no reading of the charset changes what was signed.
                "biz_content": json.dumps(content, separators=(",", ":")),
            },
        )

    def call(self, method: str, content: Mapping[str, object]) -> outcomes.Said:
        """Call a method, and return its answer once it is verified. Raises Unanswered."""
        body = urlencode(self.parameters(method, content)).encode()
        answer = self._exchange.send("POST", self._url, _FORM, body)
        if answer.status != 200:
            raise Unanswered(f"http_{answer.status}")
        try:
            return outcomes.said(signing.answered(self._alipay_key, answer.body, method))
        except ValueError as error:
            raise Unanswered(UNVERIFIED) from error

    def query_string(self, method: str, content: Mapping[str, object]) -> str:
        """Make the request that the payer himself brings to Alipay: the text that Alipay's app is given."""
        return urlencode(self.parameters(method, content, payer=True))

    def redirect_url(self, method: str, content: Mapping[str, object]) -> str:
        """Make the URL by which the payer himself brings a request to Alipay."""
        return f"{self._url}?{self.query_string(method, content)}"

    def download(self, address: str) -> bytes:
        """Fetch a bill from where a verified answer says that it is. Raises Unanswered."""
        try:
            url = provider_url(address)
        except ValueError as error:
            raise Unanswered("address") from error
        if not same_origin(url, self._url) and not (
            url.scheme == "https" and url.host.endswith(self._settings.bill_host)
        ):
            raise Unanswered("address")
        answer = self._exchange.send("GET", url, {"Accept": "*/*"}, bytes_max=BILL_BYTES_MAX, total_s=BILL_S_MAX)
        if answer.status != 200:
            raise Unanswered(f"http_{answer.status}")
        return answer.body

    def verified(self, text: bytes, signature: str) -> bool:
        """Whether ``signature`` is Alipay's under ``text``."""
        return rsa.verified(self._alipay_key, text, signature)

    def stop(self) -> None:
        """Close the connections."""
        self._exchange.stop()

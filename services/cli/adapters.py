"""The REST API and the sandbox as a client sees them, over httpx."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from pathlib import Path


class CallFailed(Exception):
    """An answer that is not the wanted one, in words."""


class Rest:
    """The edge. A call returns the parsed answer; another status than ``wanted`` is CallFailed with its reason."""

    def __init__(self, url: str, ca: Path) -> None:
        """Call the edge at ``url``, which proves itself by ``ca``."""
        # HTTP/1.1, one connection kept; the longest contract time-out is 5 s.
        context = ssl.create_default_context(cafile=str(ca))
        self._client = httpx.Client(base_url=url, verify=context, timeout=10, trust_env=False)

    def call(
        self, verb: str, path: str, body: object = None, *, token: str = "", key: str = "", wanted: int = 200
    ) -> dict[str, Any]:
        """Call a route as the bearer of ``token``, with an idempotency ``key``."""
        return dict(self.raw(verb, path, body, token=token, key=key, wanted=wanted).json())

    def raw(
        self, verb: str, path: str, body: object = None, *, token: str = "", key: str = "", wanted: int = 200
    ) -> httpx.Response:
        """Do what ``call`` does and return the answer as it came."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if key:
            headers["Idempotency-Key"] = key
        try:
            answer = self._client.request(verb, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise CallFailed(f"{verb} {path}: {error!r}") from error
        if answer.status_code != wanted:
            raise CallFailed(f"{verb} {path}: {answer.status_code} where {wanted} was wanted: {answer.text[:400]}")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def received(sandbox: str, what: str, to: str) -> list[dict[str, Any]]:
    """Return the ``what`` (mails, sms, pushes) that the sandbox received for ``to``."""
    answer = httpx.get(f"{sandbox}/{what}", params={"to": to}, timeout=5, trust_env=False)
    return list(answer.raise_for_status().json()["messages"])


def pay_in_sandbox(sandbox: str, method: str, payment_no: str, action: dict[str, str]) -> None:
    """Let the payer pay a charge of a wallet with what the answer gave him. Raises CallFailed."""
    answer = httpx.post(f"{sandbox}/payer/{method}/{payment_no}/pay", json=action, timeout=10, trust_env=False)
    if not answer.is_success:
        raise CallFailed(f"the payer cannot pay {payment_no}: {answer.text[:400]}")

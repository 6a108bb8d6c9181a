"""SMS and push by HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from services.notification.domain import Notification


class HttpSender:
    """Posts ``{"id", "to", "text", "subject"}`` as JSON; the Idempotency-Key header is the notification's id."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Post to ``url``."""
        self._url = url
        self._client = httpx.Client(timeout=timeout_s)

    def send(self, notification: Notification) -> str:
        """Hand one over; any answer but 2xx is a failure."""
        number = str(notification.id)
        body = {"id": number, "to": notification.recipient, "text": notification.text, "subject": notification.subject}
        try:
            answer = self._client.post(self._url, json=body, headers={"Idempotency-Key": number})
        except httpx.HTTPError as error:
            return f"provider not reached: {type(error).__name__}"
        return "" if answer.is_success else f"provider answered {answer.status_code}"

    def stop(self) -> None:
        """Close the connections."""
        self._client.close()

"""The mail sink: takes every mail over SMTP and delivers none."""

from __future__ import annotations

import asyncio
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import TYPE_CHECKING

from aiosmtpd.smtp import SMTP
from starlette.routing import BaseRoute, Route

from services.sandbox.inbox import Inbox
from services.sandbox.script import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiosmtpd.smtp import Envelope, Session

MAIL_MAX = 1 << 20
"""Bytes of a mail; a notification has at most 20,000 characters."""


class MailSink:
    """An SMTP server on loopback; GET /mails lists what came. A scripted failure is a 451: try again later."""

    def __init__(self, port: int) -> None:
        """Listen on ``port`` once started."""
        self.name = "mails"
        self.script = Script()
        self.inbox = Inbox("mail")
        self._port = port
        self._server: asyncio.Server | None = None

    def routes(self) -> Sequence[BaseRoute]:
        """Return the route that lists the mails."""
        return [Route("/mails", self.inbox.answer, methods=["GET"])]

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.get_running_loop().create_server(self._session, "127.0.0.1", self._port)

    async def stop(self) -> None:
        """Stop listening; open sessions end with the process."""
        if self._server:
            self._server.close()

    def _session(self) -> SMTP:
        return SMTP(self, hostname="sandbox.paymesh.internal", ident="paymesh sandbox", data_size_limit=MAIL_MAX,
                    enable_SMTPUTF8=True)  # fmt: skip

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep a mail; called by aiosmtpd once it is read. Its Message-ID makes a repeat the same mail."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        mail = message_from_bytes(content, EmailMessage, policy=default)
        failing = await self.script.play()
        made = ""
        if not failing or self.script.accept:
            body = mail.get_body(("plain", "html"))
            made = self.inbox.take(to=tuple(envelope.rcpt_tos), subject=str(mail.get("Subject", "")),
                                   text=str(body.get_content()) if body else "", key=str(mail.get("Message-ID", "")))  # fmt: skip
        return "451 4.3.0 try again later" if failing else f"250 2.0.0 taken as {made}"

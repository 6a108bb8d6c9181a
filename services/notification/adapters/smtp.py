"""E-mail by SMTP."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.notification.domain import Notification

_DOMAIN: Final = "notification.paymesh.internal"


class SmtpSender:
    """Hands mails to a mail server, a connection each: it is asked seldom, and an idle connection is soon closed there.

    The Message-ID is made of the notification's id, so that the repeat after a crash is known for the same mail.
    """

    def __init__(self, address: str, mail_from: str, timeout_s: float) -> None:
        """Send through the server at ``address`` (host:port) as ``mail_from``."""
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._from, self._timeout_s = mail_from, timeout_s

    def send(self, notification: Notification) -> str:
        """Hand one over. Returns the server's code and what kind of trouble it was, never the address."""
        try:
            with smtplib.SMTP(self._host, self._port, local_hostname=_DOMAIN, timeout=self._timeout_s) as server:
                server.send_message(self._mail(notification))
        except smtplib.SMTPRecipientsRefused as refused:
            codes = sorted({code for code, _ in refused.recipients.values()})
            return f"mail server refused the recipient: {', '.join(map(str, codes))}"
        except smtplib.SMTPResponseException as refused:
            return f"mail server answered {refused.smtp_code}"
        except (smtplib.SMTPException, OSError) as error:
            return f"mail server not reached: {type(error).__name__}"
        return ""

    def _mail(self, notification: Notification) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = self._from, notification.recipient, notification.subject
        mail["Date"] = formatdate(notification.create_ms / 1000)
        mail["Message-ID"] = f"<{notification.id}@{_DOMAIN}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(notification.text)
        return mail

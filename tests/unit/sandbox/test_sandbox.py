"""The sandbox takes what the real providers take, and misbehaves as it is told."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage
from typing import Any

import httpx
from aiosmtpd.smtp import SMTP, Envelope, Session

from services.sandbox.app import providers, web
from services.sandbox.inbox import RECEIVED_MAX, Inbox
from services.sandbox.mail import MailSink
from services.sandbox.script import Script
from services.sandbox.settings import Settings


def client() -> httpx.AsyncClient:
    """The HTTP side of a sandbox whose ports are never opened."""
    app = web(providers(Settings(sandbox_http=1, sandbox_smtp=1)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sandbox")


def envelope(**headers: str) -> Envelope:
    """A mail of one line as aiosmtpd hands it over."""
    mail = EmailMessage()
    for name, value in {
        "From": "pay@paymesh.internal",
        "To": "li@example.com",
        "Subject": "付款成功",
        **headers,
    }.items():
        mail[name.replace("_", "-")] = value
    mail.set_content("您已付款 12.00 CNY")
    made = Envelope()
    made.rcpt_tos = ["li@example.com"]
    made.content = mail.as_bytes()
    return made


async def test_message_when_well_formed() -> None:
    """A text message gets an id and can be read back by its receiver."""
    http = client()
    answer = await http.post("/sms", json={"to": "+8613800000000", "text": "paid"})
    assert answer.json() == {"id": "sms-1"}
    found = (await http.get("/sms", params={"to": "+8613800000000"})).json()["messages"]
    assert [(each["to"], each["text"]) for each in found] == [(["+8613800000000"], "paid")]
    assert (await http.get("/sms", params={"to": "+1"})).json() == {"messages": []}


async def test_message_when_malformed() -> None:
    """What is no message is refused with 400 and not kept."""
    http = client()
    bodies: tuple[Any, ...] = (
        [],
        {},
        {"to": "x"},
        {"to": 1, "text": "y"},
        {"to": "", "text": "y"},
        {"to": "x", "text": "y" * 20_001},
    )
    assert [(await http.post("/pushes", json=body)).status_code for body in bodies] == [400] * len(bodies)
    assert (await http.post("/pushes", content=b"{")).status_code == 400
    assert (await http.get("/pushes")).json() == {"messages": []}


async def test_message_when_repeated_with_its_key() -> None:
    """The same Idempotency-Key is the same message: one id, kept once."""
    http = client()
    answers = [
        (await http.post("/pushes", json={"to": "device-1", "text": "paid"}, headers={"Idempotency-Key": key})).json()[
            "id"
        ]
        for key in ("a", "a", "b")
    ]
    assert answers == ["pushes-1", "pushes-1", "pushes-2"]
    assert len((await http.get("/pushes")).json()["messages"]) == 2


async def test_script_when_it_fails_twice() -> None:
    """A scripted provider fails as often as told, then recovers; what it refused is not kept."""
    http = client()
    assert (await http.put("/scripts/sms", json={"fail": 2})).json() == {"fail": 2, "delay_ms": 0, "accept": False}
    codes = [(await http.post("/sms", json={"to": "+861", "text": "x"})).status_code for _ in range(3)]
    assert codes == [503, 503, 200]
    assert (await http.get("/scripts/sms")).json()["fail"] == 0
    assert len((await http.get("/sms")).json()["messages"]) == 1


async def test_script_when_it_accepts_and_fails() -> None:
    """With accept the failing message arrives nevertheless, and its repeat with the key is the same message."""
    http = client()
    await http.put("/scripts/sms", json={"fail": 1, "accept": True})
    codes = [
        (await http.post("/sms", json={"to": "+861", "text": "x"}, headers={"Idempotency-Key": "k"})).status_code
        for _ in range(2)
    ]
    assert codes == [503, 200]
    assert len((await http.get("/sms")).json()["messages"]) == 1


async def test_script_when_malformed() -> None:
    """Every fault of a script is named, and the script stays as it was."""
    http = client()
    await http.put("/scripts/mails", json={"fail": 3})
    answer = await http.put("/scripts/mails", json={"fail": -1, "delay_ms": True, "accept": 1, "slow": 2})
    assert answer.status_code == 400
    assert sorted(fault.split(":")[0] for fault in answer.json()["faults"]) == ["accept", "delay_ms", "fail", "slow"]
    assert (await http.get("/scripts/mails")).json()["fail"] == 3
    assert (await http.put("/scripts/mails", content=b"nonsense")).status_code == 400


async def test_mail_when_taken() -> None:
    """A mail is kept with its receivers, its decoded subject and text."""
    sink = MailSink(1)
    said = await sink.handle_DATA(SMTP(sink), Session(asyncio.get_running_loop()), envelope())
    assert said == "250 2.0.0 taken as mail-1"
    (mail,) = sink.inbox.messages("li@example.com")
    assert (mail.subject, mail.text.strip()) == ("付款成功", "您已付款 12.00 CNY")


async def test_mail_when_sent_again() -> None:
    """A mail whose Message-ID came before is the same mail."""
    sink = MailSink(1)
    for _ in range(2):
        await sink.handle_DATA(
            SMTP(sink), Session(asyncio.get_running_loop()), envelope(Message_ID="<1@paymesh.internal>")
        )
    assert len(sink.inbox.messages()) == 1


async def test_mail_when_scripted_to_fail() -> None:
    """A scripted failure is a temporary one, so that the sender tries again."""
    sink = MailSink(1)
    sink.script.set({"fail": 1})
    said = [
        (await sink.handle_DATA(SMTP(sink), Session(asyncio.get_running_loop()), envelope())).split()[0]
        for _ in range(2)
    ]
    assert said == ["451", "250"]


async def test_script_when_slow() -> None:
    """A delay is waited for before the answer."""
    script = Script(delay_ms=1)
    assert await script.play() is False


def test_inbox_when_full() -> None:
    """The oldest messages and keys are forgotten: the sandbox does not grow without end."""
    inbox = Inbox("sms")
    for number in range(RECEIVED_MAX + 5):
        inbox.take(to=("x",), subject="", text=str(number), key=str(number))
    kept = inbox.messages()
    assert (len(kept), kept[0].text) == (RECEIVED_MAX, "5")
    assert inbox.take(to=("x",), subject="", text="again", key="0") == f"sms-{RECEIVED_MAX + 6}"

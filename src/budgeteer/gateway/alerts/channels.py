"""How a message is sent: JSON to a webhook, Slack's incoming webhook, or an e-mail; one attempt, and why it failed."""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
import ssl
from concurrent.futures import ThreadPoolExecutor
from email import policy
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from budgeteer.core.errors import MissingExtra
from budgeteer.gateway.alerts.levels import Level
from budgeteer.gateway.alerts.rules import Channel, Mail, Post

try:
    import aiohttp
except ImportError as error:
    raise MissingExtra("aiohttp", "gateway") from error

SECONDS = 10
"""For each step of an attempt: to connect, to be answered."""
_ANSWER = 4096
"""Bytes of an answer that are read at most, so that the connection may be used again."""


class NotDelivered(Exception):
    """An attempt failed; its text holds no secret.

    Attributes:
        wait: seconds after which the other side wants to be asked again; None: it did not say.
    """

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Sender:
    """Connections and the thread that messages are sent by; made at the first one."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def send(self, channel: Channel, level: Level, label: str) -> None:
        """Send one message.

        Args:
            channel: to where.
            level: what it says.
            label: the account, as people call it.

        Raises:
            NotDelivered: nobody is known to have got it.
        """
        if isinstance(channel, Post):
            body = level.as_json(label) if channel.name == "webhook" else {"text": _slack(level.text(label))}
            await self._post(channel.url, body)
            return
        if self._thread is None:  # of its own: the one that keys are looked up in must not wait for a mail server
            self._thread = ThreadPoolExecutor(1, "budgeteer-alerts")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, _mail, channel, message_of(channel, level, label))

    async def _post(self, url: str, body: dict[str, Any]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS))
        place = urlsplit(url).hostname
        try:
            # not followed: the address that is given is the one that is trusted with what is spent
            async with self._session.post(url, json=body, allow_redirects=False) as response:
                await response.content.read(_ANSWER)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            why = f"errno {error.errno}" if isinstance(error, OSError) and error.errno else type(error).__name__
            raise NotDelivered(f"{place} did not answer ({why})") from None  # its text may have the address
        if 300 <= status < 400:
            raise NotDelivered(f"{place} answered {status}: redirects are not followed, give the address it leads to")
        if status >= 300:
            raise NotDelivered(f"{place} answered {status}", _seconds(response.headers.get("retry-after", "")))

    async def close(self) -> None:
        """Let go of connections; a mail under way ends by itself."""
        if self._session is not None:
            await self._session.close()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def message_of(channel: Mail, level: Level, label: str) -> EmailMessage:
    """The e-mail of a level. Its Message-ID follows from the alert, so that a mail that came twice shows as one."""
    found = EmailMessage(policy.SMTP.clone(max_line_length=900))  # the subject is one line
    found["Subject"] = f"budgeteer: {level.text(label)}"
    found["From"], found["To"], found["Date"] = channel.sender, ", ".join(channel.to), formatdate()
    digest = hashlib.sha256(f"{level.name} {level.until}".encode()).hexdigest()[:32]
    found["Message-ID"] = f"<{digest}@budgeteer>"
    found["Auto-Submitted"] = "auto-generated"
    lines = [
        level.text(label), "", f"Account: {level.path}", f"Limit: {level.limit}",
        f"Alert: {level.rule}, at {100 * float(level.share):g} % of the limit", "",
        "It is sent once for this limit, share and window.",
    ]  # fmt: skip
    found.set_content("\n".join(lines))
    return found


def _mail(channel: Mail, message: EmailMessage) -> None:
    try:
        context = ssl.create_default_context()
        if channel.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(channel.host, channel.port, timeout=SECONDS, context=context)
        else:
            server = smtplib.SMTP(channel.host, channel.port, timeout=SECONDS)
        with server:
            if channel.security == "starttls":
                server.starttls(context=context)
            if channel.user:
                server.login(channel.user, channel.password)
            server.send_message(message)
    except smtplib.SMTPResponseException as error:
        raise NotDelivered(f"the mail server {channel.host} answered {error.smtp_code}") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise NotDelivered(
            f"the mail server {channel.host} did not take it ({type(error).__name__}: {error})"
        ) from None


def _slack(text: str) -> str:
    """Text as Slack shows it literally: what clients name must not ring a channel or hide an address."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

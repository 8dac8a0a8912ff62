"""Sends an alert once: as JSON to a webhook, as text to Slack's incoming webhook, or as an e-mail."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import smtplib
import ssl
import threading
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
"""Time-out of an attempt by HTTP, and of each step of one by SMTP."""
_LONGEST = 60.0
"""Seconds after which an e-mail counts as not delivered."""
_THREADS = 8
"""E-mails that are being sent at most, those included that are no longer waited for."""
_ANSWER = 4096
"""Bytes of an answer that are read at most."""


class NotDelivered(Exception):
    """An attempt failed. The message contains no secret: neither the address nor the password.

    Attributes:
        wait: seconds that the receiver asks to wait (Retry-After); None if it does not say.
    """

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Sender:
    """Sends messages; opens its connections and starts its threads when it needs them."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._threads: list[threading.Thread] = []

    async def send(self, channel: Channel, level: Level, label: str) -> None:
        """Send one message.

        Args:
            channel: where to.
            level: what the message is about.
            label: the account's path, with names of keys.

        Raises:
            NotDelivered: the receiver has not confirmed it.
        """
        if isinstance(channel, Post):
            body = level.as_json(label) if channel.name == "webhook" else {"text": _slack(level.text(label))}
            await self._post(channel.url, body)
            return
        await self._in_thread(channel, message_of(channel, level, label))

    async def _in_thread(self, channel: Mail, message: EmailMessage) -> None:
        """Send an e-mail in a thread of its own, which does not keep the process from ending.

        The time-out of smtplib is for each read, so a server that sends a byte now and then would be read for ever;
        after ``_LONGEST`` seconds the thread is left to itself.
        """
        if len(self._threads) >= _THREADS:
            raise NotDelivered(f"{len(self._threads)} earlier messages wait for their mail server")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def end(error: Exception | None) -> None:
            self._threads.remove(thread)
            if not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

        def work() -> None:
            failed: Exception | None = None
            try:
                _mail(channel, message)
            except Exception as error:
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(end, failed)

        thread = threading.Thread(target=work, name="budgeteer-alerts", daemon=True)
        self._threads.append(thread)
        thread.start()
        try:
            await asyncio.wait_for(done, _LONGEST)
        except TimeoutError:
            raise NotDelivered(
                f"the mail server {channel.host} did not take the message within {_LONGEST:g} seconds"
            ) from None

    async def _post(self, url: str, body: dict[str, Any]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS))
        place = urlsplit(url).hostname
        try:
            # redirects are not followed: only the configured address is trusted with this information
            async with self._session.post(url, json=body, allow_redirects=False) as response:
                await response.content.read(_ANSWER)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            why = f"errno {error.errno}" if isinstance(error, OSError) and error.errno else type(error).__name__
            raise NotDelivered(f"{place} did not answer ({why})") from None  # the error's text may have the address
        if 300 <= status < 400:
            raise NotDelivered(f"{place} answered {status}: redirects are not followed, give the address it leads to")
        if status >= 300:
            raise NotDelivered(f"{place} answered {status}", _seconds(response.headers.get("retry-after", "")))

    async def close(self) -> None:
        """Close connections; an e-mail that is being sent is not waited for."""
        if self._session is not None:
            await self._session.close()


def message_of(channel: Mail, level: Level, label: str) -> EmailMessage:
    """The e-mail about a level. Its Message-ID depends on the alert only, so that programs can drop a second copy."""
    message = EmailMessage(policy.SMTP.clone(max_line_length=900))  # the subject is one line
    message["Subject"] = f"budgeteer: {level.text(label)}"
    message["From"], message["To"], message["Date"] = channel.sender, ", ".join(channel.to), formatdate()
    digest = hashlib.sha256(f"{level.name} {level.until}".encode()).hexdigest()[:32]
    message["Message-ID"] = f"<{digest}@budgeteer>"
    message["Auto-Submitted"] = "auto-generated"
    lines = [
        level.text(label),
        "",
        f"Account: {level.path}",
        f"Limit: {level.limit}",
        f"Alert: {level.rule}, at {100 * float(level.share):g} % of the limit",
        "",
        "This alert is sent once for this limit, share and window.",
    ]
    message.set_content("\n".join(lines))
    return message


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
        text = "" if isinstance(error, UnicodeError) else f": {error}"  # which may have letters of the password
        raise NotDelivered(f"the mail server {channel.host} did not accept it ({type(error).__name__}{text})") from None


def _slack(text: str) -> str:
    """Text that Slack shows as it is: the name of a key must not notify a channel or become a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

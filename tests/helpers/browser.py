"""A headless Chromium over its DevTools protocol: enough to do what a person does with a page."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
    "--remote-debugging-port=0", "--no-first-run", "--disable-extensions",
)  # fmt: skip
_GONE = -32000  # what the protocol answers when the page is left before the expression has its value


class Browser:
    """One page; use as a context manager. Calls block, and raise AssertionError if what they wait for does not come."""

    def __enter__(self) -> Self:
        import aiohttp

        assert CHROMIUM
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={self.folder.name}/profile", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        told = Path(self.folder.name) / "profile/DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (told.exists() and told.read_text().count("\n")) and time.monotonic() < deadline:
            time.sleep(0.05)
        port = told.read_text().split()[0]
        self.messages: list[dict[str, Any]] = []
        self._number = 0

        async def attach() -> None:
            self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
            async with self.session.get(f"http://127.0.0.1:{port}/json/list") as found:
                page = next(one for one in await found.json() if one["type"] == "page")
            self.socket = await self.session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=2**26)

        self.loop.run_until_complete(attach())
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        async def detach() -> None:
            await self.socket.close()
            await self.session.close()

        self.loop.run_until_complete(detach())
        self.loop.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def send(self, method: str, **params: Any) -> Any:
        """The result of a command of the protocol."""
        message = self._told(method, params)
        assert "error" not in message, (method, message)
        return message["result"]

    def _told(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The answer to a command, be it a result or an error."""
        self._number += 1
        number = self._number

        async def talk() -> dict[str, Any]:
            await self.socket.send_json({"id": number, "method": method, "params": params})
            while True:
                message: dict[str, Any] = json.loads((await asyncio.wait_for(self.socket.receive(), 60)).data)
                if message.get("id") == number:
                    return message
                self.messages.append(message)

        return self.loop.run_until_complete(talk())

    def _tried(self, text: str) -> Any:
        """The value of an expression; nothing if it failed, or if its page went away while it was asked."""
        found = self._told("Runtime.evaluate", {"expression": text, "returnByValue": True})
        if "error" in found:
            assert found["error"]["code"] == _GONE, found
        result = found.get("result", {})
        return None if "exceptionDetails" in result else result.get("result", {}).get("value")

    def js(self, text: str) -> Any:
        """The value of an expression in the page; a promise's once it is kept."""
        found = self.send("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, text: str, seconds: float = 30) -> Any:
        """Wait until an expression is true, also across pages."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := self._tried(text):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{text} did not become true; the page says: {self.text()[:1500]}")

    def open(self, url: str) -> None:
        """Go to an address."""
        self.js("window.stale = 1")
        self.send("Page.navigate", url=url)
        self.until("!window.stale && document.readyState === 'complete'")

    def text(self) -> str:
        """What the page says."""
        return str(self.js("document.body ? document.body.innerText : ''"))

    def fill(self, selector: str, value: str) -> None:
        """Write into a field."""
        at = json.dumps(selector)
        self.js(f"document.querySelector({at}).focus(), document.querySelector({at}).value = {json.dumps(value)}")

    def press(self, selector: str) -> None:
        """Click something that leads to another page, and wait for that."""
        self.js("window.stale = 1")
        at = json.dumps(selector)
        assert self.js(f"document.querySelector({at}) !== null"), selector
        self._tried(f"document.querySelector({at}).click()")
        self.until("!window.stale && document.readyState === 'complete'")

    def shape(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the window, and which colours it prefers."""
        phone = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: str | Path) -> None:
        """A PNG of the window."""
        found = self.send("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def problems(self) -> list[str]:
        """What the console and the log complain of: exceptions, and what the content security policy stopped."""
        self.js("0")
        found = []
        for message in self.messages:
            if message["method"] == "Runtime.exceptionThrown":
                found.append(message["params"]["exceptionDetails"]["text"])
            elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                found.append(message["params"]["entry"]["text"])
        return found

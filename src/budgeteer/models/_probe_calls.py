"""Calls of a probe: streamed, with all that came of them, and what they cost."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from budgeteer.core.errors import EndpointDown, MissingExtra
from budgeteer.core.urls import check_http, without_password
from budgeteer.models.chat import THINK, Chat, Message, tags_of
from budgeteer.models.dialects import fields, refuses_temperature

try:
    import httpx2
except ImportError as error:
    raise MissingExtra("openai", "openai") from error


@dataclass(slots=True)
class Seen:
    """What came of one call.

    Attributes:
        status: of HTTP; 0 = the connection broke.
        texts, thoughts: [n] answer and thinking of each choice.
        pieces: number of pieces with text or thinking.
        thought_pieces: those with thinking.
        finish: [n] why each choice ended.
        arguments: of all tool calls, by their index.
        usage: the last that came; None = none.
        scored: whether log-probabilities came.
        error: what the endpoint said, if it refused.
        seconds: until the end.
    """

    status: int = 200
    texts: dict[int, str] = field(default_factory=dict)
    thoughts: dict[int, str] = field(default_factory=dict)
    pieces: int = 0
    thought_pieces: int = 0
    finish: dict[int, str] = field(default_factory=dict)
    arguments: dict[int, str] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    scored: bool = False
    error: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The answer of the first choice."""
        return self.texts.get(0, "")

    @property
    def output(self) -> int | None:
        """Tokens of output, as the endpoint counts them."""
        return self._counted("completion_tokens")

    @property
    def input(self) -> int | None:
        """Tokens of input, as the endpoint counts them."""
        return self._counted("prompt_tokens")

    def _counted(self, name: str) -> int | None:
        count = (self.usage or {}).get(name)
        return count if isinstance(count, int) and count >= 0 else None

    def thought(self) -> str:
        """The thinking of the first choice, whether it came apart or between tags."""
        apart = self.thoughts.get(0, "")
        if apart:
            return apart
        tags = tags_of(self.text)
        if tags is not None:
            return self.text.partition(tags.close)[0].removeprefix(tags.open)
        return self.text.partition(THINK.open)[2]

    def thought_tokens(self) -> int:
        """Tokens of the thinking: as the endpoint counts them, else its share of all tokens, by pieces or by length."""
        said = (self.usage or {}).get("completion_tokens_details")
        counted = said.get("reasoning_tokens") if isinstance(said, dict) else None
        if isinstance(counted, int) and counted:
            return counted
        thought, whole = self.thought(), self.text + self.thoughts.get(0, "")
        total = max(self.output or 0, self.pieces)
        if self.thought_pieces:
            return round(total * self.thought_pieces / self.pieces)
        return round(total * len(thought) / len(whole)) if whole else 0


class Endpoint:
    """Sends calls to an endpoint and adds up what they cost."""

    def __init__(self, url: str, model: str, key: str, timeout: float) -> None:
        self.url, self.model = check_http(url, f"model {model!r}").rstrip("/"), model
        self.http = httpx2.AsyncClient(timeout=timeout, headers={"authorization": f"Bearer {key}"}, trust_env=True)
        # the API's own models refuse the older name, and other servers may not know the newer one
        official = httpx2.URL(self.url).host == "api.openai.com"
        self.cap = "max_completion_tokens" if official else "max_tokens"
        self.calls = self.input = self.output = 0

    async def chat(
        self, chat: Chat, most: int, dialect: str = "openai", *, pieces: int | None = None, **more: Any
    ) -> Seen:
        """One streamed chat of at most ``most`` tokens; see :meth:`call`."""
        begun = [Message("assistant", chat.begun)] if chat.begun else []
        messages = [message._asdict() for message in (*chat.messages, *begun)]
        return await self.call(
            "/chat/completions", {"messages": messages, self.cap: most, **fields(dialect, chat), **more}, pieces=pieces
        )

    async def call(self, path: str, body: dict[str, Any], *, pieces: int | None = None) -> Seen:
        """One streamed call; ``pieces``: close the connection after so many.

        Raises:
            EndpointDown: nothing listens there.
        """
        seen, begin = Seen(), time.monotonic()
        whole = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}, **body}
        self.calls += 1
        try:
            async with self.http.stream("POST", self.url + path, json=whole) as response:
                seen.status = response.status_code
                if response.status_code != 200:
                    seen.error = (await response.aread()).decode("utf-8", "replace")[:300]
                elif "event-stream" not in response.headers.get("content-type", ""):
                    _take(seen, json.loads(await response.aread()))
                else:
                    async for line in response.aiter_lines():
                        data = line.removeprefix("data:").strip()
                        if data == "[DONE]":
                            break
                        if line.startswith("data:"):
                            _take(seen, json.loads(data))
                        if pieces is not None and seen.pieces >= pieces:
                            break
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise EndpointDown(
                f"the endpoint {without_password(self.url)} does not answer ({error}); start it, or give its right "
                "address"
            ) from error
        except (httpx2.HTTPError, ValueError, TypeError, AttributeError, RecursionError) as error:
            seen.status, seen.error = 0, f"{type(error).__name__}: {error}"
        seen.seconds = time.monotonic() - begin
        if "temperature" in body and refuses_temperature(seen.status, seen.error):
            return await self.call(path, {k: v for k, v in body.items() if k != "temperature"}, pieces=pieces)
        self.input += seen.input or 0
        self.output += seen.output if seen.output is not None else seen.pieces
        return seen


def _take(seen: Seen, event: dict[str, Any]) -> None:
    """Add one event, or a whole answer, to what was seen."""
    if "error" in event:
        seen.status, seen.error = 0, json.dumps(event["error"])[:300]
        return
    for choice in event.get("choices") or ():
        i, delta = choice.get("index", 0), choice.get("delta") or choice.get("message") or {}
        text = choice.get("text") or delta.get("content") or ""
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        seen.texts[i] = seen.texts.get(i, "") + text
        seen.thoughts[i] = seen.thoughts.get(i, "") + thought
        seen.pieces += bool(text or thought)
        seen.thought_pieces += bool(thought)
        seen.scored |= bool(choice.get("logprobs"))
        for call in delta.get("tool_calls") or ():
            at = call.get("index", 0)
            seen.arguments[at] = seen.arguments.get(at, "") + ((call.get("function") or {}).get("arguments") or "")
            seen.pieces += 1
        if choice.get("finish_reason"):
            seen.finish[i] = choice["finish_reason"]
    if isinstance(event.get("usage"), dict):
        seen.usage = event["usage"]

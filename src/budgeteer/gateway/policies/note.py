"""A sentence for the model at the end of a request's instructions."""

from __future__ import annotations

from typing import Any

from budgeteer.gateway.ask import Ask


def told(ask: Ask, text: str) -> None:
    """Add a sentence at the end of a request's instructions, in the form of its API; of no other than chats, Responses
    and Messages."""
    before: Any
    if ask.operation == "chat" and isinstance(ask.body.get("messages"), list):
        ask.set("messages", [*ask.body["messages"], {"role": "system", "content": text}])
    elif ask.operation in ("responses", "messages"):
        name = "instructions" if ask.operation == "responses" else "system"
        before = ask.body.get(name)
        if isinstance(before, list):
            ask.set(name, [*before, {"type": "text", "text": text}])
        elif before is None or isinstance(before, str):
            ask.set(name, f"{before}\n\n{text}" if before else text)
    else:
        return
    ask.added += 2 * len(text)

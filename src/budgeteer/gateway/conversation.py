"""Tell which requests belong to one conversation, without keeping what was said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from budgeteer.gateway.keys import Key

_MOST = 65_536
"""Bytes of the beginning of a conversation that are looked at."""


def conversation_of(body: Mapping[str, Any], key: Key, user: str) -> str:
    """A name that all requests of one conversation share; "" for requests that have no conversation.

    Every turn of a chat sends the earlier turns again, so what its requests have in common is how they begin: the
    system prompt and the first message of the user. The name is a hash of that and of the user, keyed by the digest of
    the key's secret and 64 bits long, so it says nothing to whoever sees only the records. Two conversations that begin
    with the same words have the same name.

    Args:
        body: the request.
        key: the key that pays.
        user: the end user, as the client says; "" if it does not.
    """
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}] if "messages" in body or "instructions" in body else []
    if not isinstance(messages, list):
        return ""
    begins = [body.get("system"), body.get("instructions")]
    for message in messages[:20]:
        if not isinstance(message, Mapping):
            return ""
        begins.append(message.get("content"))
        if message.get("role") == "user":
            break
    else:
        return ""
    said = orjson.dumps([user, begins])[:_MOST]
    return hashlib.blake2b(said, key=key.digest.encode(), digest_size=8).hexdigest()

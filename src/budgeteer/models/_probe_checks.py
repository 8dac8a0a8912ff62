"""The checks of a probe: each tries one part of a request and says what the endpoint makes of it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, NamedTuple

import httpx2

from budgeteer.models._probe_calls import Endpoint, Seen
from budgeteer.models.chat import THINK, Chat, Message, Thinking
from budgeteer.models.dialects import DIALECTS

THOUGHT = 24
"""Tokens of the thinking budget that is tried."""
SLACK = 8
"""Tokens by which a limit of thinking may be passed: some engines count the tags, others do not."""
ROOM = 256
"""Most tokens of a call that thinks."""
QUESTION = "A shop sells pens at 3 for $2. How much do 27 pens cost? Then how much do 28 pens cost at the same price?"
_TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Looks up one value of a record. Always call it before you answer.",
        "parameters": {
            "type": "object",
            "properties": {"record": {"type": "string"}, "attribute": {"type": "string"}},
            "required": ["record", "attribute"],
        },
    },
}


class Verdict(StrEnum):
    """What an endpoint makes of a part of a request."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    BROKEN = "broken"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        feature: that was tried.
        verdict: what the endpoint makes of it.
        said: what was seen, in a sentence.
    """

    feature: str
    verdict: Verdict
    said: str


def _refused(feature: str, seen: Seen) -> Finding | None:
    if seen.status == 200:
        return None
    return Finding(feature, Verdict.REFUSED, f"{seen.status or 'no answer'}: {seen.error[:120]}")


# -- what every strategy needs ----------------------------------------------------------------------------------------


def cap(hello: Seen) -> Finding:
    most = max(hello.pieces, hello.output or 0)
    if most > 16 + 2:
        return Finding("max_tokens", Verdict.IGNORED, f"16 tokens were asked for, {most} came")
    if hello.finish.get(0) != "length":
        return Finding(
            "max_tokens", Verdict.BROKEN, f"cut at 16 tokens, and the finish reason is {hello.finish.get(0)!r}"
        )
    return Finding("max_tokens", Verdict.HONOURED, "16 tokens were asked for, and no more came")


def usage(hello: Seen) -> Finding:
    if hello.usage is None:
        return Finding("usage in streams", Verdict.IGNORED, "no usage came; costs are estimated from the texts")
    shown = len((hello.text + hello.thoughts.get(0, "")).encode())
    if not hello.input or (hello.output or 0) * 12 < shown:
        return Finding("usage in streams", Verdict.BROKEN, f"{hello.usage} for {shown} bytes of answer")
    return Finding("usage in streams", Verdict.HONOURED, f"{hello.input} in, {hello.output} out")


async def choices(end: Endpoint) -> Finding:
    question = Chat((Message("user", "Name a colour."),))
    seen = await end.chat(question, 12, n=3, temperature=1.0)
    if refused := _refused("n", seen):
        return refused
    if len(seen.texts) < 3:
        return Finding("n", Verdict.IGNORED, f"3 choices were asked for, {len(seen.texts)} came")
    if seen.output is not None and seen.output < seen.pieces / 2:
        return Finding(
            "n", Verdict.BROKEN, f"3 choices came in {seen.pieces} pieces; usage counts {seen.output} tokens"
        )
    return Finding("n", Verdict.HONOURED, f"3 choices came, usage counts {seen.output} tokens")


async def seed(end: Endpoint) -> Finding:
    question = Chat((Message("user", "Write one sentence about anything you like."),))
    first, again, other = [await end.chat(question, 16, temperature=1.0, seed=seed) for seed in (7, 7, 8)]
    for seen in (first, again, other):
        if refused := _refused("seed", seen):
            return refused
    whole = [seen.thoughts.get(0, "") + seen.text for seen in (first, again, other)]
    if whole[0] != whole[1]:
        return Finding("seed", Verdict.IGNORED, "the same seed gave two different texts")
    if whole[0] == whole[2]:
        return Finding("seed", Verdict.UNKNOWN, "all seeds gave the same text; perhaps the temperature is ignored")
    return Finding("seed", Verdict.HONOURED, "the same seed gave the same text, another seed another one")


async def stop(end: Endpoint) -> Finding:
    words_asked = Chat((Message("user", "Count: one two three four"),))
    begin = await end.chat(words_asked, 16, temperature=0.0)
    words = (begin.thoughts.get(0, "") or begin.text).split()
    if len(words) < 3:
        return Finding("stop", Verdict.UNKNOWN, "the model says too little to be stopped")
    stop = words[1]
    seen = await end.chat(words_asked, 16, temperature=0.0, stop=[stop])
    if refused := _refused("stop", seen):
        return refused
    if stop in seen.text:
        return Finding("stop", Verdict.IGNORED, f"the stop text {stop!r} is part of the answer")
    if stop in seen.thoughts.get(0, ""):
        return Finding("stop", Verdict.BROKEN, f"the stop text {stop!r} does not end the thinking")
    return Finding("stop", Verdict.HONOURED, f"the answer ended before {stop!r}")


async def logprobs(end: Endpoint) -> Finding:
    seen = await end.chat(Chat((Message("user", "Say yes."),)), 4, temperature=0.0, logprobs=True)
    if refused := _refused("logprobs", seen):
        return refused
    said = "log-probabilities came" if seen.scored else "no log-probabilities came"
    return Finding("logprobs", Verdict.HONOURED if seen.scored else Verdict.IGNORED, said)


async def raw_text(end: Endpoint) -> Finding:
    seen = await end.call("/completions", {"prompt": "1 2 3 4 5 6 7 8", "max_tokens": 8, "temperature": 0.0})
    if refused := _refused("raw text", seen):
        return refused
    if not seen.text:
        return Finding("raw text", Verdict.BROKEN, "the completions API answers without a text")
    return Finding("raw text", Verdict.HONOURED, f"it goes on with {seen.text[:24]!r}")


# -- thinking ---------------------------------------------------------------------------------------------------------


def shows(plain: Seen) -> Finding:
    if refused := _refused("thinking shown", plain):
        return refused
    tokens = plain.thought_tokens()
    if plain.thoughts.get(0):
        return Finding("thinking shown", Verdict.HONOURED, f"about {tokens} tokens, apart from the answer")
    if plain.thought():
        return Finding("thinking shown", Verdict.HONOURED, f"about {tokens} tokens, between tags in the answer")
    if tokens:
        return Finding("thinking shown", Verdict.IGNORED, f"{tokens} tokens of thinking are counted, and not shown")
    return Finding("thinking shown", Verdict.UNKNOWN, "the model does not seem to think")


async def find_dialect(end: Endpoint, plain: Seen) -> str | None:
    """The first dialect whose limit of thinking is honoured; None if none is, or the model thinks too little."""
    if plain.thought_tokens() <= THOUGHT + SLACK:
        return None
    for name, dialect in DIALECTS.items():
        if dialect.tokens is not None and (await _limited(end, name)).thought_tokens() <= THOUGHT + SLACK:
            return name
    return None


async def _limited(end: Endpoint, dialect: str) -> Seen:
    chat = Chat((Message("user", QUESTION),), Thinking(tokens=THOUGHT))
    seen = await end.chat(chat, ROOM, dialect, temperature=0.0)
    # a refusal is no thinking that was short
    return (
        seen if seen.status == 200 else replace(seen, usage={"completion_tokens_details": {"reasoning_tokens": ROOM}})
    )


async def switch(end: Endpoint, dialect: str, plain: Seen) -> Finding:
    feature = "thinking off"
    if DIALECTS[dialect].switch is None:
        return Finding(feature, Verdict.UNKNOWN, f"the dialect {dialect} has no field for it")
    if not plain.thought_tokens():
        return Finding(feature, Verdict.UNKNOWN, "the model does not seem to think")
    seen = await end.chat(Chat((Message("user", QUESTION),), Thinking(on=False)), ROOM, dialect, temperature=0.0)
    if refused := _refused(feature, seen):
        return refused
    if seen.thought().strip():
        return Finding(feature, Verdict.IGNORED, f"it still thinks, about {seen.thought_tokens()} tokens")
    return Finding(feature, Verdict.HONOURED, "it answers at once")


async def effort(end: Endpoint, dialect: str, plain: Seen) -> Finding:
    feature = "effort"
    if DIALECTS[dialect].effort is None:
        return Finding(feature, Verdict.UNKNOWN, f"the dialect {dialect} has no field for it")
    chats = [Chat((Message("user", QUESTION),), Thinking(effort=word)) for word in ("low", "high")]
    low, high = [await end.chat(chat, ROOM, dialect, temperature=0.0) for chat in chats]
    for seen in (low, high):
        if refused := _refused(feature, seen):
            return refused
    if (low.thought(), low.text) == (high.thought(), high.text):
        return Finding(feature, Verdict.IGNORED, "low and high give the same text")
    return Finding(feature, Verdict.HONOURED, f"low thinks {low.thought_tokens()} tokens, high {high.thought_tokens()}")


async def budget(end: Endpoint, dialect: str, plain: Seen) -> Finding:
    feature, alone = "thinking budget", plain.thought_tokens()
    if DIALECTS[dialect].tokens is None:
        tried = ", ".join(name for name, known in DIALECTS.items() if known.tokens is not None)
        return Finding(
            feature,
            Verdict.IGNORED if alone > THOUGHT + SLACK else Verdict.UNKNOWN,
            f"no field limits it ({tried} were tried)"
            if alone > THOUGHT + SLACK
            else f"it thinks {alone} tokens by itself, too few to tell",
        )
    if alone <= THOUGHT + SLACK:
        return Finding(feature, Verdict.UNKNOWN, f"it thinks {alone} tokens by itself, too few to tell")
    seen = await end.chat(Chat((Message("user", QUESTION),), Thinking(tokens=THOUGHT)), ROOM, dialect, temperature=0.0)
    if refused := _refused(feature, seen):
        return refused
    tokens = seen.thought_tokens()
    if tokens > THOUGHT + SLACK:
        return Finding(feature, Verdict.IGNORED, f"{THOUGHT} tokens were allowed, about {tokens} came")
    answer = seen.text.rpartition(THINK.close)[2]
    if not answer.strip() or THINK.open in answer:
        return Finding(feature, Verdict.BROKEN, f"thinking ended after about {tokens} tokens, and no answer follows")
    return Finding(
        feature, Verdict.HONOURED, f"{THOUGHT} tokens were allowed, about {tokens} came ({alone} without it)"
    )


async def beside_tools(end: Endpoint, dialect: str, plain: Seen) -> Finding:
    """Engines that force the end of the thinking by counting tokens have put it into the arguments of a tool call."""
    feature = "budget beside tools"
    if DIALECTS[dialect].tokens is None or not plain.thought_tokens():
        return Finding(feature, Verdict.UNKNOWN, "no thinking budget to try it with")
    text = "What is the room number of Paul? Call the tool."
    seen = await end.chat(
        Chat((Message("user", text),), Thinking(tokens=4)), ROOM, dialect, temperature=0.0, tools=[_TOOL]
    )
    if refused := _refused(feature, seen):
        return refused
    if not seen.arguments:
        return Finding(feature, Verdict.UNKNOWN, "it called no tool")
    for arguments in seen.arguments.values():
        with suppress(ValueError):
            if isinstance(json.loads(arguments), dict) and not any(tag in arguments for tag in THINK[:2]):
                continue
        return Finding(feature, Verdict.BROKEN, f"the arguments of a tool call are {arguments[:80]!r}")
    return Finding(feature, Verdict.HONOURED, "the arguments of the tool call are whole")


async def begun(end: Endpoint, dialect: str, plain: Seen) -> Finding:
    """Whether it goes on with an answer that it is given, as the dialect sends it."""
    feature, known = "begun answer", DIALECTS[dialect]
    if not known.goes_on:
        return Finding(feature, Verdict.UNKNOWN, f"the dialect {dialect} has no way for it")
    begun = "1, 2, 3, 4, 5, 6, 7,"
    begun = f"{THINK.open}\n\n{THINK.close}\n\n{begun}" if plain.thought() else begun
    chat = Chat((Message("user", "Count from 1 to 20, with commas."),), begun=begun)
    if known.render is not None:
        root = end.url.removesuffix("/v1")

        async def post(path: str, body: dict[str, Any]) -> Any:
            answer = await end.http.post(root + path, json=body)
            answer.raise_for_status()
            return answer.json()

        try:
            text = await known.render(post, end.model, [m._asdict() for m in chat.messages], {})
        except (httpx2.HTTPError, KeyError, TypeError, ValueError) as error:
            return Finding(feature, Verdict.REFUSED, f"the server does not render a chat: {error}")
        seen = await end.call("/completions", {"prompt": text + begun, "max_tokens": 8, "temperature": 0.0})
    else:
        seen = await end.chat(chat, 8, dialect, temperature=0.0)
    if refused := _refused(feature, seen):
        return refused
    if not seen.text or seen.text.lstrip().startswith(("1,", "1 ,", THINK.open)):
        return Finding(feature, Verdict.IGNORED, f"it begins anew: {seen.text[:24]!r}")
    return Finding(feature, Verdict.HONOURED, f"it goes on with {seen.text[:24]!r}")


async def closed(end: Endpoint, plain: Seen) -> Finding:
    """A stream that is closed should stop the sampling: the next call must not wait for what nobody reads."""
    feature, asked = "closed streams", Chat((Message("user", QUESTION),))
    if plain.pieces < 64 or plain.seconds < 0.5:
        return Finding(feature, Verdict.UNKNOWN, "its answers are too short or too quick to tell")
    alone = await end.chat(asked, 4, temperature=0.0)
    for _ in range(8):
        await end.chat(asked, ROOM, pieces=1, temperature=0.0)
    after = await end.chat(asked, 4, temperature=0.0)
    waited = after.seconds - alone.seconds
    if waited > plain.seconds:
        return Finding(feature, Verdict.IGNORED, f"8 closed streams delay the next call by {waited:.1f} s: they run on")
    return Finding(feature, Verdict.HONOURED, f"8 closed streams delay the next call by {max(waited, 0):.1f} s")

"""The rules of the gateway's policies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from budgeteer.check._common import CheckFailed
from budgeteer.core.errors import MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.ledger.protocol import wall_clock
from budgeteer.metering.estimate import Bounds
from budgeteer.metering.outcome import Outcome

if TYPE_CHECKING:
    from budgeteer.gateway.ask import Ask
    from budgeteer.gateway.config import Model
    from budgeteer.gateway.keys import Key
    from budgeteer.gateway.live import Live
    from budgeteer.gateway.policies.protocol import Policy

CAP = 60
"""Tokens that the requests ask for, where they say so."""
REQUESTS = 160
_CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_ALIKE = 12
"""Different requests; the others repeat them, as an agent that has lost its way does."""
_FINAL = b'{"id": "answer of %s", "choices": []}'


def policy_of(factory: Callable[..., Policy], settings: Mapping[str, Any]) -> Callable[[], Policy]:
    """A function that makes a policy from its settings, as the gateway does from the table ``[policies.NAME]``.

    Args:
        factory: of the policy, with the options that it declares (``budgeteer.gateway.policies.options``).
        settings: its fields in the file, as Python has them.

    Raises:
        MissingExtra: the gateway is not installed.
    """
    try:
        from budgeteer.gateway.policies.options import policy_from
        from budgeteer.gateway.toml import Table
    except ImportError as error:
        raise MissingExtra("orjson", "gateway") from error

    def make() -> Policy:
        return policy_from(factory, Table(_toml(settings), ("policies", "checked"), {}, "the settings of the check"))

    return make


def _toml(value: Any) -> Any:
    """A value as the gateway reads it from its file, where fractions are decimal."""
    if isinstance(value, Mapping):
        return {name: _toml(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_toml(inner) for inner in value]
    return Decimal(str(value)) if isinstance(value, float) else value


def check_policy(make: Callable[[], Policy], *, seed: int = 0) -> None:
    """Show a policy requests of two keys that end in every way; raise :class:`CheckFailed` at the first broken rule.

    Rules: ``before`` returns None or the bytes of a JSON object, and raises nothing but Refused; ``after`` never fails,
    whatever became of the request. A policy changes the body by ``ask.set`` and ``ask.drop`` only, raises no cap, sets
    none below 1, counts in ``ask.added`` at least the bytes that it puts in, calls only models that are served, and
    says in ``ask.notes`` that it acted. It does not answer a request for a stream, nor a request of one key with an
    answer to another key. Two policies share no state.

    Args:
        make: makes a new policy, such as ``policy_of(tighten, {"least": 8})``.
        seed: of the requests.

    Raises:
        MissingExtra: the gateway is not installed.
    """
    try:
        import budgeteer.gateway.ask
        import budgeteer.gateway.live
        import budgeteer.gateway.policies.protocol  # noqa: F401
    except ImportError as error:
        raise MissingExtra("orjson", "gateway") from error
    first = asyncio.run(_show(make(), seed, REQUESTS))
    again = asyncio.run(_show(make(), seed, _ALIKE))
    if first[:_ALIKE] != again:
        raise CheckFailed("a second policy of the same settings did otherwise: each keeps its own state")


@dataclass(frozen=True, slots=True)
class _Serving:
    """A gateway that serves two models, of which a share of the budget is spent."""

    share: float

    def now(self) -> int:
        return wall_clock()

    def name_of(self, model: str) -> str:
        return {"big": "large"}.get(model, model)

    def serves(self, ask: Ask, model: str) -> bool:
        return model in ("large", "small", "big")

    def models(self, ask: Ask) -> list[Model]:
        from budgeteer.gateway.config import Model

        bounds = Bounds(margin=Fraction(1), max_output=4096)
        return [Model("large", ("big",), "large", "large", bounds), Model("small", (), "small", "small", bounds)]

    async def spent(self, ask: Ask) -> float:
        return self.share


async def _show(policy: Policy, seed: int, requests: int) -> list[Any]:
    """What a policy did to each request, in order."""
    from budgeteer.gateway import keys
    from budgeteer.gateway.config import Defaults
    from budgeteer.ledger.limit import Limit

    limits = (Limit("all", 100_000, "day"), Limit("money", 10**12))
    defaults = Defaults(limits, (), (), (), ("*",), None, None, None)
    made = [keys.make({"path": f"org/{name}"}, defaults, ("all", "money"), 0)[0] for name in "ab"]
    pair = [replace(key, id=f"{n:016x}") for n, key in enumerate(made)]
    rng = np.random.default_rng([seed, 17])
    bodies = [_body(rng, n) for n in range(_ALIKE)]
    done = []
    for n in range(requests):
        route, body = bodies[n % _ALIKE if n < 4 * _ALIKE else int(rng.integers(_ALIKE))]
        key = pair[n % 2 if n < 4 * _ALIKE else int(rng.integers(2))]
        done.append(await _request(policy, route, body, key, float(rng.choice([0.0, 0.6, 0.97])), int(rng.integers(4))))
    return done


def _body(rng: np.random.Generator, n: int) -> tuple[str, dict[str, Any]]:
    """A route and a body of it."""
    text = " ".join(map(str, rng.integers(0, 9, 8)))
    routes = ("chat/completions", "responses", "messages", "completions", "embeddings")
    route = routes[n % 5] if n < 8 else "chat/completions"
    chat = route in ("chat/completions", "messages")
    body: dict[str, Any] = {"model": ("large", "big", "small")[n % 3]}
    if chat:
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body["prompt" if route == "completions" else "input"] = text
    if route != "embeddings":
        if n % 4 < 3:
            body["max_output_tokens" if route == "responses" else "max_tokens"] = CAP
        if n % 2:
            body["temperature"] = 0
        body["stream"] = n in (5, 10)
    if n in (8, 9):
        call = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "ls", "arguments": "{}"}}]}
        body["messages"] += [call, {"role": "tool", "content": "none"}] * 6
        body["reasoning_effort"] = "high"
    return route, body


async def _request(policy: Policy, route: str, body: dict[str, Any], key: Key, share: float, end: int) -> Any:
    """One request from ``before`` to ``after``; what the policy did to it."""
    from budgeteer.gateway.ask import Ask
    from budgeteer.gateway.live import Live
    from budgeteer.gateway.refusal import Refused

    raw = json.dumps(body).encode()
    ask, live = Ask(route, raw, key), Live("checked-0", "chat")
    ask.chain, ask.largest, live.key = (("org", None), (key.scope, key.limits)), 4096, key.id
    given, answer, refused = json.dumps(ask.body), None, ""
    before_model = ask.model
    try:
        answer = await policy.before(ask, _Serving(share))
    except Refused as error:
        refused = error.code
    except Exception as error:
        raise CheckFailed(f"before raised {type(error).__name__}: {error}; raise Refused, or let it pass") from error
    if answer is not None:
        _check_answer(answer, ask, key)
    elif not refused:
        _check_changes(ask, json.loads(given), before_model, raw)
    if ask.key is not key or ask.raw != raw or ask.route != route:
        raise CheckFailed("before changed the key, the route or the bytes of a request; change its body, model and cap")
    content = _ended(ask, live, end, answer, refused)
    try:
        policy.after(ask, content, live)
    except Exception as error:
        ended = "a refused request" if refused else f"a request that ended {live.outcome}"
        raise CheckFailed(f"after raised {type(error).__name__}: {error}, after {ended}; it must not fail") from error
    return answer, refused, ask.model, ask.cap, tuple(ask.notes), json.dumps(ask.body)


def _ended(ask: Ask, live: Live, end: int, answer: bytes | None, refused: str) -> bytes | None:
    """Let a request end: answered, streamed, failed, or already by the policy itself."""
    if refused:
        live.outcome, live.reason = Outcome.REFUSED, refused
        return None
    if answer is not None:
        live.outcome = Outcome.CACHED
        return None
    if end == 0:
        live.outcome = Outcome.FAILED
        return None
    usage, units = Usage(input=9, output=CAP if end == 1 else 5), {"all": 14, "money": 14}
    ask.sent = CAP
    live.called(Outcome.OK, usage, units, False, 0)
    live.charge(units, units, False)
    live.outcome = Outcome.OK
    return b"" if ask.stream else _FINAL % ask.key.id.encode()


def _check_answer(answer: object, ask: Ask, key: Key) -> None:
    if not isinstance(answer, bytes):
        raise CheckFailed(f"before returned a {type(answer).__name__}; return None, or the bytes of an answer")
    try:
        whole = isinstance(json.loads(answer), dict)
    except ValueError:
        whole = False
    if not whole:
        raise CheckFailed(f"before answered {answer[:60]!r}, which is no JSON object")
    if ask.stream:
        raise CheckFailed("before answered a request that asks for a stream with a whole answer")
    if answer.startswith(b'{"id": "answer of ') and answer != _FINAL % key.id.encode():
        raise CheckFailed("a key was answered with what another key was answered")


def _check_changes(ask: Ask, given: dict[str, Any], model: str, raw: bytes) -> None:
    body = ask.body
    try:
        size = len(json.dumps(body).encode()) - len(json.dumps(given).encode())
    except (TypeError, ValueError) as error:
        raise CheckFailed(f"the body is no JSON any more: {error}") from None
    if body != given and not ask.changed:
        raise CheckFailed("the body was changed behind ask.set and ask.drop, so that the upstream would not see it")
    if size > ask.added:
        raise CheckFailed(f"{size} bytes were put in, and ask.added says {ask.added}: the bound has to count them")
    for name in _CAPS:
        if name in body and (type(body[name]) is not int or not 1 <= body[name] <= given.get(name, 10**9)):
            raise CheckFailed(f"{name} was {given.get(name)} and became {body[name]!r}; a cap may be lowered, to 1")
    if ask.cap is not None and (type(ask.cap) is not int or ask.cap < 1):
        raise CheckFailed(f"ask.cap is {ask.cap!r}; a cap is a whole number from 1")
    if not _Serving(0).serves(ask, ask.model):
        raise CheckFailed(f"the model {ask.model!r} is not served; ask serving.serves first")
    acted = body != given or ask.model != model or ask.cap is not None
    if acted and not ask.notes:
        raise CheckFailed("it changed the request and left no note; add one to ask.notes, for the header")
    if not all(isinstance(note, str) and note.isascii() and note.isprintable() for note in ask.notes):
        raise CheckFailed(f"the notes {ask.notes!r} cannot be a header; write plain ASCII texts")

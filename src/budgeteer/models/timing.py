"""Time the calls of a model on this machine, for :mod:`budgeteer.models.latency`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import Action, Need, Snapshot, State, Steer
from budgeteer.models.chat import Chat, Message, Prompt
from budgeteer.models.latency import Timed
from budgeteer.models.model import INTERNALS, PREFIX, Model, Request


class Measured(NamedTuple):
    """What was timed.

    Attributes:
        calls: one entry for each kind of call, its median.
        watts: mean power while prompts were read and while tokens were decoded; None without a counter.
    """

    calls: tuple[Timed, ...]
    watts: tuple[float, float] | None


async def measure(
    model: Model,
    *,
    prompts: Sequence[int],
    tokens: Sequence[int],
    parallel: Sequence[int] = (1,),
    repeats: int = 3,
    seed: int = 0,
    joules: Callable[[], float] | None = None,
    on_call: Callable[[int, int], object] = lambda done, of: None,
) -> Measured:
    """Time calls over all lengths of prompt, lengths of answer and numbers of choices; the median of the repeats.

    Prompts are numbers that differ from the first token on, so that no cache of prefixes helps. A model that shows its
    internals is made to write every answer to its full length by a steer that forces a token at each step; elsewhere
    answers end where they end, and the length that came is what counts.

    Args:
        prompts: about how many tokens the prompts have.
        tokens: of the answers; calls of one token are made beside them.
        parallel: numbers of choices.
        repeats: of each call.
        seed: of the prompts.
        joules: returns the joules since it was last called (:func:`budgeteer.models.power.meter`).
        on_call: told how many calls are done, and of how many.

    Raises:
        InvalidInput: no length, or the model ended every answer after its first token.
    """
    if not prompts or not tokens or not parallel or min(*prompts, *tokens, *parallel, repeats) < 1:
        raise InvalidInput("give lengths of prompts and answers, numbers of choices and repeats of 1 or more")
    rng, steer = random.Random(seed), _writes_on() if INTERNALS in model.capabilities else None
    await model.generate(Request(_prompt(model, 8, rng), 2, steer=steer))  # what is loaded or compiled at first use
    kinds = [(length, 1, 1) for length in prompts]
    kinds += [(length, most, k) for k in parallel for length in prompts for most in tokens if most > 1]
    seen: dict[tuple[int, int, int], list[Timed]] = {kind: [] for kind in kinds}
    used = {"prefill": [0.0, 0.0], "decode": [0.0, 0.0]}
    for at, (length, most, k) in enumerate(kinds * repeats):  # a busy moment of the machine is one repeat of some kinds
        prompt = _prompt(model, length, rng)
        if joules is not None:
            joules()
        begin = time.perf_counter()
        response = await model.generate(Request(prompt, most, k, seed=rng.randrange(2**31), steer=steer))
        seconds = time.perf_counter() - begin
        if joules is not None:
            phase = used["prefill" if most == 1 else "decode"]
            phase[0], phase[1] = phase[0] + joules(), phase[1] + seconds
        came = max(choice.tokens or 0 for choice in response.choices)
        if came > 1 or most == 1:
            seen[length, most, k].append(Timed(model.count(prompt), max(1, came), k, seconds))
        on_call(at + 1, len(kinds) * repeats)
    timed = [
        sorted(calls, key=lambda call: call.seconds / call.tokens)[len(calls) // 2] for calls in seen.values() if calls
    ]
    if all(call.tokens == 1 for call in timed) and max(tokens) > 1:
        raise InvalidInput(f"{model.name} ended every answer after one token; nothing is known of its decoding")
    watts = None if joules is None else tuple(energy / max(seconds, 1e-9) for energy, seconds in used.values())
    return Measured(tuple(timed), None if watts is None else (watts[0], watts[1]))


def _prompt(model: Model, length: int, rng: random.Random) -> Prompt:
    """A prompt of about so many tokens."""

    def of(text: str) -> Prompt:
        return text if PREFIX in model.capabilities else Chat((Message("user", text),))

    text = str(rng.randrange(10, 100))
    while model.count(of(text)) < length:
        text += f" + {rng.randrange(10, 100)}"
    return of(text)


def _writes_on() -> Steer:
    """Forces the same token at every step, so that an answer has its full length."""

    def step(state: State, now: Snapshot) -> tuple[Action, State]:
        return Action(force=np.full(len(now.row), now.model.encode("1")[-1])), state

    return Steer(lambda rows: (), step, frozenset({Need.TOKENS, Need.TEXT, Need.LOGITS}))

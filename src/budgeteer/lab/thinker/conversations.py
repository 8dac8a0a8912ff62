"""Problems and conversations of the thinking model, each a pure function of (seed, index).

A conversation is what a chat template takes: messages, tools and options. How often an answer is checked depends on the
effort word; without thinking there is one direct answer, the right one, which a small model can learn for easy
problems only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from budgeteer.core.errors import UnknownName
from budgeteer.lab.thinker import arithmetic, comparisons, dates, lookups, sorting, words
from budgeteer.lab.thinker.problem import Problem, Split, held
from budgeteer.lab.thinker.working import Turn, Working

FAMILIES: dict[str, ModuleType] = {
    "arithmetic": arithmetic,
    "words": words,
    "lookups": lookups,
    "comparisons": comparisons,
    "sorting": sorting,
    "dates": dates,
}
SHARES = {"arithmetic": 0.24, "words": 0.22, "lookups": 0.12, "comparisons": 0.14, "sorting": 0.12, "dates": 0.16}
"""Of the training data."""
EFFORTS: dict[str, Sequence[float]] = {
    "": (0.4, 0.42, 0.15, 0.03),
    "low": (0.95, 0.05),
    "medium": (0.1, 0.8, 0.1),
    "high": (0.0, 0.1, 0.65, 0.2, 0.05),
}
"""Effort word -> how likely 0, 1, 2, ... checks of the answer are; "" = no word."""
DIRECT, CUT, FOLLOWS, SYSTEM, IN_BOX = 0.14, 0.08, 0.04, 0.08, 0.06
"""Shares: conversations without thinking; thinking that is cut short; a second question after a first; a system
message; questions that ask for a box around the answer."""
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a careful assistant. Think before you answer.",
    "You are good at mathematics.",
    "Solve the problem of the user.",
    "Answer the question with one line.",
)
BOX = (
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "Put your final answer within \\boxed{}.",
)
_BEGINS = ("Let me see.", "OK.", "Step by step.")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template renders.

    Attributes:
        problem: that it is about.
        messages, tools: as ``apply_chat_template`` takes them.
        options: of the template: ``enable_thinking`` and perhaps ``reasoning_effort``.
    """

    problem: Problem
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    options: dict[str, Any]


def problem(
    seed: int, index: int, split: Split = "test", family: str | None = None, level: int | None = None
) -> Problem:
    """Problem ``index`` of a stream; the families in their shares, unless one is named.

    Raises:
        UnknownName: there is no such family.
        InvalidInput: there is no problem of this level in the split.
    """
    rng = random.Random(f"thinker problem {seed} {index}")
    drawn = rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
    name = drawn if family is None else family
    if name not in FAMILIES:
        raise UnknownName("family of the thinking model", name, sorted(FAMILIES))
    module = FAMILIES[name]
    depth = rng.choice(module.LEVELS) if level is None else level
    return held(module.draw, rng, depth, split)


def conversation(seed: int, index: int) -> Conversation:
    """Conversation ``index`` of the training stream of a seed."""
    rng = random.Random(f"thinker conversation {seed} {index}")
    asked = problem(seed, index, "train")
    if asked.tool is None and rng.random() < IN_BOX:
        asked = replace(asked, question=f"{asked.question} {rng.choice(BOX)}", boxed=True)
    history: list[dict[str, Any]] = []
    if rng.random() < SYSTEM:
        history.append({"role": "system", "content": rng.choice(SYSTEMS)})
    if asked.tool is None and rng.random() < FOLLOWS:
        before = problem(seed, index + 2**40, "train")  # far from every index that training reaches
        if before.tool is None:
            history += [user(before), {"role": "assistant", "content": before.stated(before.answer)}]
    thinks = rng.random() >= DIRECT
    effort = rng.choice(("", "", "low", "medium", "high")) if thinks else ""
    options = {"enable_thinking": thinks, **({"reasoning_effort": effort} if effort else {})}
    chances = EFFORTS[effort]
    checks = rng.choices(range(len(chances)), chances)[0] if thinks else 0
    tools = None if asked.tool is None else [asked.tool.schema()]
    messages = [*history, user(asked), *_solution(asked, rng, thinks=thinks, checks=checks)]
    return Conversation(asked, messages, tools, options)


def conversations(seed: int, first: int, count: int) -> Iterator[Conversation]:
    """``count`` conversations of the training stream from ``first`` on."""
    return (conversation(seed, index) for index in range(first, first + count))


def user(asked: Problem) -> dict[str, Any]:
    """The message that asks."""
    return {"role": "user", "content": asked.question}


def _solution(asked: Problem, rng: random.Random, *, thinks: bool, checks: int) -> list[dict[str, Any]]:
    if not thinks and asked.tool is None:
        return [{"role": "assistant", "content": asked.stated(asked.answer)}]

    def read(record: str, attribute: str) -> str:
        assert asked.tool is not None
        return asked.read({asked.tool.record: record, asked.tool.attribute: attribute})

    working = Working(rng, read)
    if rng.random() < 0.5:
        working.say(rng.choice(_BEGINS))
    answer = working.run(asked.work, checks)
    *calls, last = working.turns
    messages: list[dict[str, Any]] = []
    for turn in calls:
        messages += _called(asked, turn, thinks)
    thought = "\n".join(last.lines)
    if asked.tool is None and rng.random() < CUT:
        thought, answer = _cut(rng, thought, asked.answer)
    reasoning = {"reasoning_content": thought} if thinks else {}
    return [*messages, {"role": "assistant", "content": asked.stated(answer), **reasoning}]


def _cut(rng: random.Random, thought: str, right: str) -> tuple[str, str]:
    """Thinking that ends anywhere, and the answer that it had by then, else the right one as a guess."""
    kept = thought[: rng.randrange(len(thought))]
    if rng.random() < 0.5:
        kept = kept.rpartition("\n")[0]
    _, said, rest = kept.rpartition("So the answer is ")
    stated, full, _ = rest.partition(".\n") if "\n" in rest else (rest, "", "")
    return kept, stated if said and full else right


def _called(asked: Problem, turn: Turn, thinks: bool) -> list[dict[str, Any]]:
    assert asked.tool is not None
    assert turn.call is not None
    arguments = {asked.tool.record: turn.call[0], asked.tool.attribute: turn.call[1]}
    call = {"type": "function", "function": {"name": asked.tool.name, "arguments": arguments}}
    reasoning = {"reasoning_content": "\n".join(turn.lines)} if thinks else {}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call], **reasoning},
        {"role": "tool", "content": turn.response},
    ]

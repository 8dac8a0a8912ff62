"""What several builders share: traces of a question with their grade, and examples as TRL reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from budgeteer.core.bisection import largest
from budgeteer.core.errors import BudgetExceeded, InvalidInput
from budgeteer.models.chat import Chat, Message, Prompt, Tags, any_template, continued
from budgeteer.models.model import Finish, Model, Request
from budgeteer.solve import Task, derive
from budgeteer.strategies.kit.samples import most_that_fit
from budgeteer.strategies.kit.trace import ask_many

MAX_TOKENS = 1024
"""Default cap of a trace, in tokens."""
JUDGEMENT = 512
"""Most tokens of a judgement by another model, thinking included."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One trace.

    Attributes:
        text: what follows the prompt, what it was given to begin with included.
        tokens: of what was sampled.
        answer: in the style's normal form; None if it has none or was cut.
        right: whether that is the reference answer.
        whole: whether it reached its answer; one that was cut before is no message that a chat template could write:
            it would put an empty thinking before it.
    """

    text: str
    tokens: int
    answer: str | None
    right: bool
    whole: bool = True


async def traces(
    task: Task,
    n: int,
    *,
    most: int,
    temperature: float,
    begun: str = "",
    said: str = "",
    stage: str = "sample",
) -> list[Trace]:
    """Up to n traces of a question, as many as the budget has room for at full length.

    Args:
        task: the question.
        n: traces.
        most: tokens of each.
        temperature: of the draws.
        begun: what the answer begins with.
        said: what stands before the question.
        stage: purpose of the call, in records.
    """
    prompt = continued(prompt_of(task, said), begun) if begun else prompt_of(task, said)
    count = most_that_fit(task, prompt, n, most)
    if not count:
        return []
    pieces = await ask_many(task, prompt, count, most=most, stop=task.style.stop, temperature=temperature, stage=stage)
    made = []
    for piece in pieces:
        text = begun + piece.text
        rest = task.style.split(text)[1]
        whole = rest is not None and (piece.ended or task.style.complete(rest))
        answer = task.style.read(text) if whole else None
        made.append(Trace(text, piece.tokens, answer, graded(task, answer), whole))
    return made


async def judged(task: Task, model: Model, text: str, votes: int, temperature: float) -> list[str]:
    """What another model says to a text in ``votes`` answers of a chat, those that were not cut at
    :data:`JUDGEMENT` tokens. It pays from the task's budget; where that is too small, it says nothing."""
    request = Request(
        Chat((Message("user", text),)), JUDGEMENT, votes, temperature, seed=derive(task.seed, "judge", text)
    )
    try:
        response = await task.model.other(model).generate(request, stage="judge")
    except BudgetExceeded:
        return []
    return [choice.text for choice in response.choices if choice.finish != Finish.LENGTH]


def graded(task: Task, answer: str | None) -> bool:
    """Whether an answer is the reference answer.

    Raises:
        InvalidInput: the task has no verifier.
    """
    if task.check is None:
        raise InvalidInput("training examples need the reference answers; give a task with a verifier")
    return answer is not None and task.check(answer) >= 1


def closed_at_once(task: Task) -> str:
    """What an answer without thinking begins with.

    Raises:
        InvalidInput: the style has no thinking that could be closed.
    """
    if not task.style.close:
        raise InvalidInput("the style has no text that ends the thinking; use think, or another style with one")
    tags = tags_in(task)
    return f"{tags.open}\n{tags.end}" if tags else task.style.closed("")


def ended(task: Task, thinking: str) -> str:
    """A thinking with its end, as the model writes it: without the words that a strategy adds to force an answer."""
    tags = tags_in(task)
    return tags.ended(thinking) if tags else task.style.closed(thinking)


def tags_in(task: Task) -> Tags | None:
    """The tags between which the model thinks; None for raw text, and for chats without them."""
    prompt = prompt_of(task)
    return prompt.tags if isinstance(prompt, Chat) else None


def prompt_of(task: Task, said: str = "") -> Prompt:
    """The prompt of the question, with ``said`` before its text.

    Raises:
        InvalidInput: the style begins the answer, which an example would lack.
    """
    prompt = task.style.prompt(said + task.question.text)
    if isinstance(prompt, Chat) and prompt.begun:
        raise InvalidInput("the style begins the model's answer, which examples would lack; leave begun out")
    return prompt


def rate(of: Sequence[Trace]) -> float:
    """The share of right traces; 0 for none."""
    return sum(trace.right for trace in of) / max(len(of), 1)


def written(prompt: Prompt) -> Any:
    """A prompt as TRL reads it: a text, or messages."""
    if isinstance(prompt, Chat):
        return [{"role": message.role, "content": message.content} for message in prompt.messages]
    return prompt


def told(prompt: Prompt) -> dict[str, Any]:
    """How the chat template was told to think, in the field that TRL's trainers hand to it, if it was."""
    options = any_template(prompt.thinking) if isinstance(prompt, Chat) else {}
    return {"chat_template_kwargs": options} if options else {}


def answered(prompt: Prompt, text: str) -> Any:
    """An answer to this prompt as TRL reads it."""
    return [{"role": "assistant", "content": text}] if isinstance(prompt, Chat) else text


def example(task: Task, text: str, said: str = "", **more: Any) -> dict[str, Any]:
    """An example for supervised training."""
    prompt = prompt_of(task, said)
    made = {"id": task.question.id, "prompt": written(prompt), "completion": answered(prompt, text)}
    return {**made, **told(prompt), **more}


def pair(task: Task, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    """An example for preference training."""
    prompt = prompt_of(task)
    both = {"chosen": answered(prompt, chosen), "rejected": answered(prompt, rejected)}
    return {"id": task.question.id, "prompt": written(prompt), **both, **told(prompt), **more}


def steps_of(thinking: str) -> list[str]:
    """The steps of a thinking, with what separates them, so that they join to it: paragraphs, or lines where there is
    one paragraph only.

    >>> steps_of("a\\nb\\n\\nc"), steps_of("a\\nb")
    (['a\\nb\\n\\n', 'c'], ['a\\n', 'b'])
    """
    for pattern in (r"\n\s*\n", r"\n"):
        pieces = re.split(f"({pattern})", thinking)
        steps = ["".join(pieces[i : i + 2]) for i in range(0, len(pieces), 2)]
        steps = [step for step in steps if step]
        if len(steps) > 1:
            return steps
    return steps


def beginning(task: Task, text: str, tokens: int) -> str:
    """The longest beginning of a text that ends between words and has at most so many tokens by the model's count."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    words = largest(lambda n: task.model.count(text[: ends[n - 1]]) <= tokens, len(ends))
    return text[: ends[words - 1]] if words else ""

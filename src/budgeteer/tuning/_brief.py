"""The model's own short right traces, behind the prompt that it is asked with later."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.core.errors import InvalidInput
from budgeteer.models.chat import Chat, Prompt
from budgeteer.models.model import check_temperature
from budgeteer.solve import Task
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.kit import MAX_TOKENS, example, traces
from budgeteer.tuning.protocol import SFT, Builder, Built


def brief(
    n: int = 3, keep: int = 3, effort: str = "", max_tokens: int = MAX_TOKENS, temperature: float = 1.0
) -> Builder:
    """Answer a question n times; the examples are its ``keep`` shortest right traces.

    The first thing to try before a reward for length: supervised training on them. With ``effort``, the traces are
    drawn at that word of effort, such as low, and learnt behind the prompt as the style has it: what the model does
    when it is asked for little becomes what it does when it is asked as usual. A trace that was cut is none.

    When it helps: the model is often right in fewer tokens than it takes. When not: its short answers are right by
    guessing, on easy questions alone; then questions of which none is right teach nothing, and are not among the
    examples.

    Args:
        n: traces of a question.
        keep: of these, at most.
        effort: word of effort that traces are drawn with, for a model whose chat template takes one; "" = as the style
            asks.
        max_tokens: cap of a trace.
        temperature: of the draws.

    Raises:
        InvalidInput: a number below 1, or (when building) an effort for a style that asks in raw text.
    """
    if min(n, keep, max_tokens) < 1:
        raise InvalidInput(f"brief(n={n}, keep={keep}, max_tokens={max_tokens}); give 1 or more of each")
    check_temperature(temperature)

    async def build(task: Task) -> Built:
        asked = task if not effort else replace(task, style=replace(task.style, prompt=lambda t: at_effort(task, t)))
        made = await traces(asked, n, most=max_tokens, temperature=temperature)
        right = sorted((trace for trace in made if trace.right), key=lambda trace: trace.tokens)[:keep]
        if not right:
            return Built((), next((trace.answer for trace in made if trace.answer is not None), None))
        return Built(tuple(example(task, trace.text) for trace in right), right[0].answer)

    def at_effort(task: Task, text: str) -> Prompt:
        prompt = task.style.prompt(text)
        if not isinstance(prompt, Chat):
            raise InvalidInput(
                f"brief:effort={effort} is told to a chat template, and the style asks in raw text; "
                "take the style think"
            )
        return replace(prompt, thinking=replace(prompt.thinking, effort=effort))

    return Builder(build, SFT, frozenset({CHECK}))

"""What rollouts are asked with besides the prompts of the data set: texts around them, and the columns of variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from budgeteer.adapters.trl.hints import COLUMN, solutions_of
from budgeteer.core.errors import InvalidInput
from budgeteer.rl.asked import Wording, tried
from budgeteer.rl.control import Control
from budgeteer.rl.recipe import SOLUTION, Recipe
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.step import Round


def wording_of(trainer: Any, recipe: Recipe) -> Wording | None:
    """The texts of the prompts and how texts become tokens; None for recipes that write none.

    Args:
        trainer: TRL's.
        recipe: whose variant, branch or loss beside that of the rollouts writes texts.

    Raises:
        InvalidInput: a solution that is no list of texts, or has none; or the data set has a column that the variant
            gives.
    """
    if recipe.variant is None and recipe.branch is None and not any(term.texts for term in recipe.beside):
        return None
    rows, tokenizer = trainer.train_dataset, trainer._tokenizer
    variant = recipe.variant
    if variant and (both := sorted({*variant.gives} & {*rows.column_names})):
        raise InvalidInput(
            f"the data set has a column {both[0]!r}, and so has recipe {recipe.name!r}, which says there what each "
            "rollout is asked for; rename the one of the data set"
        )
    prompts = list(rows["prompt"]) if variant else []
    speechless = [i for i, prompt in enumerate(prompts) if not isinstance(prompt, str) and _place(prompt) is None]

    def write(texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def ask(texts: Sequence[str], of: Sequence[int]) -> list[list[int]]:
        if speechless:  # a variant speaks to all prompts sooner or later, and it is tried before the first token
            raise InvalidInput(
                f"recipe {recipe.name!r} adds a text to what the user says, and the prompt in row {speechless[0]} of "
                "the data set has no message of the user whose content is a text; choose another recipe, or give it one"
            )
        asked = [said(prompts[i], text) for i, text in zip(of, texts, strict=True)]
        return [list(map(int, ids)) for ids in trainer._tokenize_prompts(asked)[0]]

    texts = [_text(prompt) for prompt in prompts] if variant else [""] * len(rows)
    if variant is None or COLUMN not in rows.column_names or SOLUTION not in variant.needs:
        return Wording(texts, ask, write)
    return Wording(texts, ask, write, solutions_of(rows))


def said(prompt: Any, text: str) -> Any:
    """The prompt with this text in the place of its own: of the last message of the user, where it is a conversation.

    >>> said([{"role": "user", "content": "One?"}, {"role": "assistant", "content": "So"}], "short: One?")
    [{'role': 'user', 'content': 'short: One?'}, {'role': 'assistant', 'content': 'So'}]
    """
    if isinstance(prompt, str):
        return text
    place = _place(prompt)
    return [{**message, "content": text} if i == place else message for i, message in enumerate(prompt)]


def inputs_of(
    data: Any, work: Round, asked: Sequence[int], part: Rollouts, gives: Sequence[str]
) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Rows of the data set with the prompts as they were asked and the columns of the variant, and the prompts' tokens.

    Args:
        data: the data set.
        work: the round.
        asked: [n] index of each rollout's request.
        part: the rollouts.
        gives: columns of the variant; None where nothing was said, as to a reward's monitor.
    """
    inputs = [dict(data[i]) for i in work.picked[part.group].tolist()]
    more = work.asked
    for row, request in zip(inputs, asked, strict=True):
        row.update({name: None if more is None else more.columns[name][request].item() for name in gives})
        if more is not None and more.spoken and (text := more.spoken[request]) is not None:
            row["prompt"] = said(row["prompt"], text)
    return inputs, [list(prompt) for prompt in part.prompts_of(np.arange(len(part)))]


def refuse_unseen(control: Control, prompts: list[list[int]]) -> None:
    """Refuse a steer beside a variant that gives hints, which the steer would not see.

    Args:
        control: of the run, before its first step.
        prompts: token ids of all.
    """
    recipe = control.recipe
    if recipe.steer is None:
        return
    if any(len(head) for _, asked in tried(control, prompts) for head in asked.heads):
        raise InvalidInput(
            f"recipe {recipe.name!r} has hints and a steer, which would not see the hints; choose one of them"
        )


def _place(prompt: Any) -> int | None:
    """Number of the last message of the user in a conversation, if its content is a text."""
    users = [i for i, message in enumerate(prompt) if message["role"] == "user"]
    return users[-1] if users and isinstance(prompt[users[-1]].get("content"), str) else None


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    place = _place(prompt)
    return "" if place is None else str(prompt[place]["content"])

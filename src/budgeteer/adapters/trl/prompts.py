"""The prompts of a data set as token ids, and what is no prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from budgeteer.core.errors import InvalidInput

_AT_ONCE = 1000


def tokenized(trainer: Any, rows: Any) -> list[list[int]]:
    """Token ids of the prompts of a data set, as TRL makes them.

    Args:
        trainer: TRL's.
        rows: its training data, with a column ``prompt``.

    Raises:
        InvalidInput: there is no such column, or a row of it is no prompt, or no tokenizer can read it.
    """
    prompts, ids = prompts_of(rows, trainer._tokenizer), []
    for first in range(0, len(prompts), _AT_ONCE):
        if trainer.environment_factories is not None:
            names = rows["environment"] if trainer._multi_environment else [None] * len(prompts)
            trainer._batch_environments = names[first : first + _AT_ONCE]
        ids += [list(map(int, row)) for row in trainer._tokenize_prompts(prompts[first : first + _AT_ONCE])[0]]
    return ids


def prompts_of(rows: Any, tokenizer: Any) -> list[Any]:
    """The prompts of a data set: all of them texts, or all conversations that the tokenizer has a template for.

    Args:
        rows: the data set; TRL reads all its prompts as the first one.
        tokenizer: of the model.

    Raises:
        InvalidInput: there is no column ``prompt``, or names the row of the data set.
    """
    if "prompt" not in rows.column_names:
        raise InvalidInput(
            f"the data set has no column 'prompt', only {', '.join(rows.column_names)}; rename the one that has them"
        )
    prompts = list(rows["prompt"])
    texts = isinstance(prompts[0], str) if prompts else True
    for row, prompt in enumerate(prompts):
        if isinstance(prompt, str) != texts or not (texts or _is_conversation(prompt)):
            raise InvalidInput(
                f"the prompt in row {row} of the data set is {prompt!r:.60}; all prompts have to be texts, or all "
                "lists of messages with a role and a content"
            )
    if not texts and not tokenizer.chat_template:
        raise InvalidInput(
            "the prompts are conversations, and the tokenizer has no chat template; set tokenizer.chat_template and "
            "pass that tokenizer, or give the prompts as texts"
        )
    return prompts


def _is_conversation(prompt: Any) -> bool:
    """Whether this is a list of at least one message."""
    messages = list(prompt) if isinstance(prompt, Sequence) else []
    return bool(messages) and all(isinstance(each, Mapping) and each.get("role") for each in messages)

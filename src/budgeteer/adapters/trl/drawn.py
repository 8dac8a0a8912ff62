"""What TRL knows of a step's rollouts, and how some of them become the batch that it trains on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from trl.chat_template_utils import parse_response
from trl.data_utils import is_conversational

from budgeteer.adapters.trl.sampling import Row
from budgeteer.core.plan import CUT, I64


class Ready(NamedTuple):
    """What the overridden parts of TRL's step return, instead of generating and scoring again.

    Attributes:
        inputs: rows of the data set, of this process's rows.
        generated: of these rows, as TRL's ``_generate`` returns it.
        rewards: [all rows, f].
        kept: the rows themselves; None = it carries nothing.
    """

    inputs: list[dict[str, Any]]
    generated: tuple[Any, ...]
    rewards: Tensor
    kept: list[Row | None]

    def hidden(self, truncated: bool) -> list[bool]:
        """Which rows the loss does not see.

        Args:
            truncated: rows that ended at a cap are among them.
        """
        return [row is None or not row.tokens or (truncated and row.status == CUT) for row in self.kept]


class Blank(NamedTuple):
    """A row that carries nothing.

    Attributes:
        inputs: a row of the data set.
        prompt_ids: of its prompt.
        token: the one token of the completion.
    """

    inputs: dict[str, Any]
    prompt_ids: list[int]
    token: int


@dataclass(slots=True)
class Drawn:
    """The step's n rollouts, in the order of the recipe's.

    Attributes:
        inputs: rows of the data set.
        prompt_ids: token ids of the prompts.
        rows: what was generated.
        completions: as reward functions see them.
        rewards: [n, f] in parts, one a round.
        extra: columns that reward functions log, None where there is no value.
        calls, failures: of tools.
    """

    inputs: list[dict[str, Any]] = field(default_factory=list)
    prompt_ids: list[list[int]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    completions: list[Any] = field(default_factory=list)
    rewards: list[Tensor] = field(default_factory=list)
    extra: dict[str, list[Any]] = field(default_factory=dict)
    calls: int = 0
    failures: int = 0

    def add(
        self,
        inputs: list[dict[str, Any]],
        prompt_ids: list[list[int]],
        rows: list[Row],
        completions: list[Any],
        rewards: Tensor,
        extra: dict[str, list[Any]],
    ) -> None:
        """Append a round."""
        for name in {**self.extra, **extra}:
            before = self.extra.setdefault(name, [None] * len(self.rows))
            before += extra.get(name, [None] * len(rows))
        self.inputs += inputs
        self.prompt_ids += prompt_ids
        self.rows += rows
        self.completions += completions
        self.rewards.append(rewards)

    def ready(self, rows: I64, count: int, own: slice, blank: Blank, rewards: Tensor, told: bool) -> Ready:
        """Some rows, filled up with rows of one token that carry nothing.

        Args:
            rows: [k] of what was drawn.
            count: rows of all processes, k or more.
            own: those of this process.
            blank: what the rows that carry nothing look like.
            rewards: [n, f] of all that was drawn.
            told: whether TRL corrects for what the engine says of the tokens' probabilities.
        """
        numbers = [*rows.tolist(), *[-1] * (count - len(rows))][own]
        kept = [self.rows[i] if i >= 0 else None for i in numbers]
        ids = [row.tokens if row and row.tokens else [blank.token] for row in kept]
        mask = None
        if any(any(self.rows[i].forced) or any(self.rows[i].read) for i in rows.tolist()):
            mask = [row.mask if row and row.tokens else [1] for row in kept]
        empty: Any = [{"role": "assistant", "content": ""}] if is_conversational(blank.inputs) else ""
        completions = [self.completions[i] if i >= 0 else empty for i in numbers]
        of_rows = rewards.new_full((count, rewards.shape[1]), float("nan"))
        of_rows[: len(rows)] = rewards[torch.from_numpy(rows).to(rewards.device)]
        prompt_ids = [self.prompt_ids[i] if i >= 0 else blank.prompt_ids for i in numbers]
        logprobs = [(row.logprob if row and row.tokens else None) or [math.nan] for row in kept] if told else None
        generated: tuple[Any, ...] = (prompt_ids, ids, mask, completions, logprobs, {}, None, [])
        return Ready([self.inputs[i] if i >= 0 else blank.inputs for i in numbers], generated, of_rows, kept)


def completions_of(
    tokenizer: Any, prompt: Any, prompt_ids: list[list[int]], ids: list[list[int]], tools: list[Any] | None = None
) -> list[Any]:
    """Completions as TRL gives them to reward functions: texts, or messages where prompts are conversations.

    Args:
        tokenizer: of the model.
        prompt: one of the prompts.
        prompt_ids, ids: token ids of prompts and completions.
        tools: of each prompt; None = there are none.
    """
    if not is_conversational({"prompt": prompt}):
        return list(tokenizer.batch_decode(ids, skip_special_tokens=True))
    if any(getattr(tokenizer, name, None) is not None for name in ("response_template", "response_schema")):
        rows = zip(ids, prompt_ids, tools or [[]] * len(ids), strict=True)
        return [[parse_response(tokenizer, row, prefix=before, tools=own)] for row, before, own in rows]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [[{"role": "assistant", "content": text}] for text in texts]

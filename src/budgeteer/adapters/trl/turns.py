"""Rollouts with tools and environments: TRL's own loop of calls, within caps and budget."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from trl import GRPOTrainer

from budgeteer.adapters.trl.drawn import completions_of
from budgeteer.adapters.trl.generating import turn
from budgeteer.adapters.trl.sampling import Row, Sampling, setting
from budgeteer.core.plan import CUT, ENDED, I64


class Prepared(Exception):
    """TRL has prepared a step and would generate now.

    Attributes:
        prompts: with what environments said at their start.
    """

    def __init__(self, prompts: list[Any]) -> None:
        self.prompts = prompts
        super().__init__("TRL has prepared its step")


class Talked(NamedTuple):
    """Rollouts of several turns.

    Attributes:
        rows: what was generated, and what tools returned in between.
        prompts: of each, with what its environment said at its start.
        prompt_ids: their tokens.
        completions: messages.
        calls, failures: of tools.
    """

    rows: list[Row]
    prompts: list[Any]
    prompt_ids: list[list[int]]
    completions: list[Any]
    calls: int
    failures: int


def talked(
    trainer: Any, sampling: Sampling, inputs: list[dict[str, Any]], caps: I64, numbers: I64, budget: int | None
) -> Talked:
    """Rollouts of these rows of the data set, by one process.

    What tools return stands in the completion and counts towards its cap, as in TRL; the model reads it, so it is not
    generated: neither trained on nor on the bill.

    Args:
        trainer: TRL's, with tools.
        sampling: what ends rows.
        inputs: rows of the data set, one a rollout.
        caps: [n] most tokens of each completion.
        numbers: [n] of the rows in their round.
        budget: of generated tokens, at least one for each; None = no limit.
    """
    prompts = prepared(trainer, inputs)
    prompt_ids = [list(map(int, ids)) for ids in trainer._tokenize_prompts(prompts)[0]]
    short = np.zeros(len(inputs), np.bool_)
    given = np.zeros(len(inputs), np.int64)

    def generate(asked: Sequence[Sequence[int]], rows: I64, most: I64) -> tuple[list[list[int]], Any]:
        """One turn of some rows; those for which no token is left get none."""
        left = None if budget is None else budget - int(given.sum())
        able = np.flatnonzero(most > 0)
        able, late = (able, able[:0]) if left is None else (able[:left], able[left:])
        tokens: list[list[int]] = [[] for _ in asked]
        logprobs: list[list[float]] = [[] for _ in asked]
        short[rows[late]] = True
        if len(able):
            made, status, told = turn(trainer, sampling, [list(asked[i]) for i in able.tolist()], most[able], left)
            for place, i in enumerate(able.tolist()):
                tokens[i] = made[place]
                logprobs[i] = told[place] if told is not None else []
                given[rows[i]] += len(made[place])
                short[rows[i]] |= status[place] == CUT and len(made[place]) < most[i]
        return tokens, logprobs if trainer.use_vllm else None

    tokens, logprobs = generate(prompt_ids, np.arange(len(inputs)), caps)
    tools = [trainer.tools] * len(inputs)
    if trainer.environment_factories is not None:
        tools = [trainer._env_tools[name] for name in trainer._batch_environments]
    completions = completions_of(trainer.processing_class, prompts[0], prompt_ids, tokens, tools)

    def further(asked: list[list[int]], images: Any, fields: Any, **more: Any) -> tuple[list[list[int]], Any]:
        rows = _rows_of(asked, prompt_ids, tokens)
        most = caps[rows]
        # without a budget TRL generates whole turns, and cuts them afterwards, but all at the same length
        if budget is not None or (caps < trainer.max_completion_length).any():
            most = most - np.array([len(ids) - len(prompt_ids[r]) for ids, r in zip(asked, rows.tolist(), strict=True)])
        return generate(asked, rows, most)

    with setting(trainer, _generate_single_turn=further):
        mask, completions, tokens, logprobs, calls, failures, _ = trainer._tool_call_loop(
            copy.deepcopy(prompts), prompt_ids, tokens, completions, logprobs, None, {}
        )
    made = []
    for i, number in enumerate(numbers.tolist()):
        ids = tokens[i]
        cut = bool(short[i]) or (len(ids) >= int(caps[i]) and ids[-1] not in sampling.ends)
        read, told = [not own for own in mask[i]], None if logprobs is None else logprobs[i]
        lost = int(given[i]) - sum(mask[i])
        made.append(Row(number, ids, CUT if cut else ENDED, -1, -1, told, [False] * len(ids), 1.0, lost, read))
    return Talked(made, prompts, prompt_ids, completions, calls, failures)


def prepared(trainer: Any, inputs: list[dict[str, Any]]) -> list[Any]:
    """The prompts of these rows, as TRL has them once their tools and environments are there: TRL's own step, ended
    where it would generate."""
    with setting(trainer, preparing=True):
        try:
            GRPOTrainer._generate_and_score_completions(trainer, inputs)
        except Prepared as made:
            return made.prompts
    raise AssertionError("TRL generated without its method _generate")


def _rows_of(asked: Sequence[list[int]], prompts: Sequence[list[int]], tokens: Sequence[list[int]]) -> I64:
    """Which rows go on: those whose prompts and tokens so far begin what is asked, in ascending order.

    >>> _rows_of([[7, 1, 9], [8, 2, 9]], [[7], [7], [8]], [[3], [1], [2]]).tolist()
    [1, 2]
    """
    found: list[int] = []
    for ids in asked:
        first = found[-1] + 1 if found else 0
        begins = (
            i for i in range(first, len(prompts)) if ids[: len(prompts[i]) + len(tokens[i])] == prompts[i] + tokens[i]
        )
        found.append(next(begins))
    return np.array(found, np.int64)

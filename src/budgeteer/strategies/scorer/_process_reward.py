"""A scorer: a process reward model, which rates every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from budgeteer.core.errors import InvalidInput
from budgeteer.models.reward import Rewards, rewards_of
from budgeteer.strategies.scorer.protocol import Scorer
from budgeteer.strategies.scorer.rewarded import rewarded

REDUCE: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda rewards: rewards[-1],
    "min": min,
    "product": math.prod,
    "mean": lambda rewards: math.fsum(rewards) / len(rewards),
}
"""How the rewards of the steps become the score of a trace."""


def process_reward(model: Rewards | str, *, step: str = "\n\n", separator: str = "\n", reduce: str = "last") -> Scorer:
    """Score a trace, or the beginning of one, by a process reward model's rewards of its steps.

    The model runs beside the budget: its tokens are not charged. A trace without a step has no score.

    Args:
        model: ``hf:FOLDER`` is a token classifier of Hugging Face, as TRL's PRMTrainer makes them;
            ``http://HOST:PORT#NAME`` one behind vLLM's ``/pooling``; in Python also a coroutine function (question,
            steps of each trace) -> the reward of each step.
        step: text between the steps of a trace; give the search the same one.
        separator: what the model was trained to see behind each step, such as ``<extra_0>``.
        reduce: ``last`` (as in DORA and REBASE), ``min``, ``product`` or ``mean`` of the steps' rewards.

    Raises:
        InvalidInput: there is no such reduction, or the model has none of these forms.
        MissingExtra, CheckpointError: the model cannot be loaded.
    """
    if reduce not in REDUCE or not step:
        raise InvalidInput(f"reduce={reduce!r}, step={step!r}; give one of {', '.join(REDUCE)}, and a text")
    return rewarded(
        rewards_of(model, steps=True, separator=separator) if isinstance(model, str) else model,
        lambda trace: [text for part in trace.split(step) if (text := part.strip())],
        REDUCE[reduce],
    )

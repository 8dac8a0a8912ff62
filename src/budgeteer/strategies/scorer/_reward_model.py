"""A scorer: a reward model of whole traces."""

from __future__ import annotations

from budgeteer.models.reward import Rewards, rewards_of
from budgeteer.strategies.scorer.protocol import Scorer
from budgeteer.strategies.scorer.rewarded import rewarded


def reward_model(model: Rewards | str, *, separator: str = "\n") -> Scorer:
    """Score whole traces by a reward model; larger is better.

    The model runs beside the budget: its tokens are not charged. An empty trace has no score.

    Args:
        model: as in :func:`process_reward`, but a sequence classifier of Hugging Face, or an endpoint with one row a
            text.
        separator: between question and trace, where the model has no chat template.

    Raises:
        InvalidInput: the model has none of these forms.
        MissingExtra, CheckpointError: the model cannot be loaded.
    """
    rate = rewards_of(model, steps=False, separator=separator) if isinstance(model, str) else model
    return rewarded(rate, lambda trace: [trace] if trace.strip() else [], lambda rewards: rewards[-1])

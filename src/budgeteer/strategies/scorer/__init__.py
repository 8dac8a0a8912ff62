"""Scorers: how good a trace is, or the beginning of one; one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.strategies.scorer._mean_logprob import mean_logprob
    from budgeteer.strategies.scorer._process_reward import process_reward
    from budgeteer.strategies.scorer._programmatic import programmatic
    from budgeteer.strategies.scorer._progress import progress
    from budgeteer.strategies.scorer._reward_model import reward_model
    from budgeteer.strategies.scorer._self_evaluation import self_evaluation
    from budgeteer.strategies.scorer._verifier import verifier
    from budgeteer.strategies.scorer.protocol import Score, Scorer, scorer_of

__all__ = [
    "Score",
    "Scorer",
    "mean_logprob",
    "process_reward",
    "programmatic",
    "progress",
    "reward_model",
    "scorer_of",
    "self_evaluation",
    "verifier",
]

__getattr__ = lazy(
    __name__,
    {
        "Score": "protocol",
        "Scorer": "protocol",
        "mean_logprob": "_mean_logprob",
        "process_reward": "_process_reward",
        "programmatic": "_programmatic",
        "progress": "_progress",
        "reward_model": "_reward_model",
        "scorer_of": "protocol",
        "self_evaluation": "_self_evaluation",
        "verifier": "_verifier",
    },
)

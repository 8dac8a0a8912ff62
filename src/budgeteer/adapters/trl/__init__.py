"""TRL's GRPOTrainer under a token budget: one import to change, and a recipe to name.

Rewards as functions for TRL's own trainer, and examples with masked spans for its SFTTrainer, are beside it.
"""

from __future__ import annotations

from budgeteer.adapters.trl.masking import masked
from budgeteer.adapters.trl.rewarding import RewardFunction, reward
from budgeteer.adapters.trl.trainer import BudgetedGRPOTrainer

__all__ = ["BudgetedGRPOTrainer", "RewardFunction", "masked", "reward"]

"""TRL's GRPOTrainer under a token budget: one import to change, and a recipe to name; rewards as functions for TRL's own."""

from __future__ import annotations

from budgeteer.adapters.trl.masking import masked
from budgeteer.adapters.trl.rewarding import RewardFunction, reward
from budgeteer.adapters.trl.trainer import BudgetedGRPOTrainer

__all__ = ["BudgetedGRPOTrainer", "RewardFunction", "masked", "reward"]

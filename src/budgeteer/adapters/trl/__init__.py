"""TRL's GRPOTrainer under a token budget: one import to change, and a recipe to name."""

from __future__ import annotations

from budgeteer.adapters.trl.trainer import BudgetedGRPOTrainer

__all__ = ["BudgetedGRPOTrainer"]

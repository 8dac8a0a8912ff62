"""budgeteer: spend language-model token budgets where they buy most."""

from budgeteer.allocator import Allocator, chain, stateless
from budgeteer.budget import Budget
from budgeteer.plan import Items, Outcomes, Plan
from budgeteer.stopper import Stopper
from budgeteer.usage import Usage

__version__ = "0.1.0"
__all__ = ["Allocator", "Budget", "Items", "Outcomes", "Plan", "Stopper", "Usage", "chain", "stateless"]

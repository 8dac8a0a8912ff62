"""Search: many samples or a tree of steps for one question, and one budget for many questions."""

from budgeteer.search.adaptive_vote import adaptive_vote
from budgeteer.search.beam import beam
from budgeteer.search.best_of_majority import best_of_majority
from budgeteer.search.best_of_n import best_of_n
from budgeteer.search.dora import dora
from budgeteer.search.rebase import rebase
from budgeteer.search.scale import scale
from budgeteer.search.self_consistency import self_consistency
from budgeteer.search.value_tree import value_tree

__all__ = [
    "adaptive_vote",
    "beam",
    "best_of_majority",
    "best_of_n",
    "dora",
    "rebase",
    "scale",
    "self_consistency",
    "value_tree",
]

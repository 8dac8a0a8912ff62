"""One trace under a budget: how long to think, when to stop, how to come to an answer. One strategy a file."""

from budgeteer.think.budget_forcing import budget_forcing
from budgeteer.think.conciseness import conciseness
from budgeteer.think.convergence import convergence
from budgeteer.think.diffadapt import diffadapt
from budgeteer.think.direct import direct
from budgeteer.think.elastic import elastic
from budgeteer.think.length_filtered_vote import length_filtered_vote
from budgeteer.think.plan_and_budget import plan_and_budget
from budgeteer.think.truncate import truncate

__all__ = [
    "budget_forcing",
    "conciseness",
    "convergence",
    "diffadapt",
    "direct",
    "elastic",
    "length_filtered_vote",
    "plan_and_budget",
    "truncate",
]

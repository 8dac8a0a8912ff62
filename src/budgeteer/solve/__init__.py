"""Answers under a budget: what a strategy is given, what it returns, and the model that it cannot overspend."""

from budgeteer.solve.budgeted import Budgeted
from budgeteer.solve.strategy import Answer, Question, Strategy, Style, Task, derive

__all__ = ["Answer", "Budgeted", "Question", "Strategy", "Style", "Task", "derive"]

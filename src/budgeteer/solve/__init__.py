"""Answers under a budget: what a strategy is given, what it returns, and the model that it cannot overspend."""

from budgeteer.solve.budgeted import Budgeted
from budgeteer.solve.strategy import Answer, Question, StoppedBy, Strategy, Style, Task, derive

__all__ = ["Answer", "Budgeted", "Question", "StoppedBy", "Strategy", "Style", "Task", "derive"]

"""Adapters: budgets for other people's clients and frameworks, one library per module."""

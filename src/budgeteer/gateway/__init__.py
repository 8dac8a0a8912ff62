"""A gateway that enforces budgets in front of OpenAI-compatible and Anthropic endpoints."""

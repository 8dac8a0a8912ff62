"""GRPO on the tokens at which the policy hesitated."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.importance import high_entropy
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo


def forking_tokens() -> Recipe:
    """GRPO that learns from a fifth of the tokens, those of largest entropy (arXiv 2506.01939)."""
    return replace(grpo(), name="forking-tokens", importance=high_entropy())

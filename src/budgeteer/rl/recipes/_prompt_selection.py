"""This project's own: choose the prompts."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.allocate import selective
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._duet import duet


def prompt_selection() -> Recipe:
    """Choose the prompts: of three times as many candidates, those predicted to be solved or hopeless get no rollout.

    This is a method of this project and not of DUET, whose stopping rule, loss and memory it uses: the allocator is
    :func:`budgeteer.allocate.selective` over predictions of each prompt's success.
    """
    return replace(duet(), name="prompt-selection", allocator=selective(), oversample=3)

"""Adaptive Deep Reasoning."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.beside import switching
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.reward import adaptive_deep
from budgeteer.rl.variant import both_kinds


def adaptive_deep_rl(
    long: str = "",
    short: str = "</think>",
    weight: float = 0.1,
    asks_long: str = "long: ",
    asks_short: str = "short: ",
    behind: bool = False,
) -> Recipe:
    """GRPO on long and short rollouts of each prompt, a reward for the kind that it needs, and a loss on the first
    token by which the policy learns to choose that kind without being asked (arXiv 2505.20101).

    Half of a prompt's rollouts are asked for each kind (``both-kinds``), the reward ``adaptive-deep`` compares them,
    and the loss (:func:`budgeteer.rl.beside.switching`) moves the token at which long and short answers part, behind
    the prompt alone. Begin with a policy that writes both kinds when asked (``budgeteer data adaptive-deep``).

    Helps where prompts are of mixed difficulty and the model is asked without an instruction later. The form and weight
    of the loss are this project's reading: those of the paper could not be seen.

    Args:
        long, short, weight: of the loss: how an answer of each kind begins ("" = otherwise), and its weight.
        asks_long, asks_short: texts before the prompt, or ``behind`` it, that ask for each kind.
        behind: whether they stand behind it.

    Raises:
        InvalidInput: equal texts, or a weight below 0.
    """
    asked = both_kinds(asks_long, asks_short, behind)
    term = switching(long, short, weight)
    return replace(grpo(), name="adaptive-deep", variant=asked, reward=adaptive_deep(), beside=(term,))

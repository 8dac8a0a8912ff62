"""RMT."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.beside import next_token
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.reward import triangular
from budgeteer.rl.variant import falling_budget


def rmt(weight: float = 0.1, text: str = "{tokens}: ", behind: bool = False) -> Recipe:
    """GRPO with a length that the prompt says and that falls smoothly, a reward for keeping to it, and the next-token
    loss on the texts of the prompts beside it (arXiv 2509.24375).

    The length falls to a fifth of itself over the run, with the paper's numbers. Add the paper's curriculum with
    ``stream=tiers`` where the keys of prompts say how hard they are. The paper thinks before a token of a corpus and is
    paid for naming it; here the prompts are problems, and their answers are verified.

    Helps where few problems are trained on for long, which costs a model its texts; costs one reading of the prompts a
    step. When not: a model that does not know what the number means has to learn that first.

    Args:
        weight: of the next-token loss, 0 or more.
        text: with ``{tokens}`` where the number stands, before the prompt or ``behind`` it; the paper has "use exactly
            {tokens} tokens".
        behind: whether it stands behind the prompt.

    Raises:
        InvalidInput: another weight, or a text without ``{tokens}``.
    """
    said = falling_budget(least=0.0, rate=0.2, text=text, behind=behind)
    return replace(grpo(), name="rmt", variant=said, reward=triangular(), beside=(next_token(weight),))

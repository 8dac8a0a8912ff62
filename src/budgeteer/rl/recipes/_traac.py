"""TRAAC."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.rl.compress import Compression
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo
from budgeteer.rl.reward import traac as brevity


def traac(easy: float = 0.75, medium: float = 0.5, hard: float = 0.25) -> Recipe:
    """GRPO that also learns from its right rollouts without their least attended steps, with lengths by difficulty
    (arXiv 2510.01581).

    A right rollout's thinking is cut into steps at words of control ("Wait", "So", ...; without any at lines, else at
    sentences). How much a step counts is the mean attention that its tokens get from the end of the thinking, behind a
    text that asks for a summary. Of m steps ``floor(m * min(rate * (1 - U), 0.8))`` are left out, those that count
    least, with U how uniform they are (none above 0.8) and the rate that of the prompt's difficulty: easy from a pass
    rate of 0.8, medium from 0.3, else hard. The policy writes one answer behind what is left, and the whole is one more
    rollout of the prompt, thinking included, at the probabilities that the policy gives it. Reward ``traac``.

    Helps where traces have steps that the answer does not rest on, and attention tells which. What is left of a trace
    is text that the policy would hardly have written: on the small reasoner the recipe takes the tokens of
    ``grpo:reward=traac`` and is not more often right. Costs one more reading of each right rollout, and the tokens of
    one more answer of each that is compressed. The paper's code draws as many rows as before from both kinds; here all
    train. It measures attention without the question, and finds words within others; here neither.

    Args:
        easy, medium, hard: largest share of the steps that is left out; each in [0, 1]. The defaults are of the code;
            a summary of the paper has 0.6, 0.4 and 0.2.

    Raises:
        InvalidInput: a share outside these.
    """
    return replace(grpo(), name="traac", branch=Compression((easy, medium, hard)), reward=brevity())

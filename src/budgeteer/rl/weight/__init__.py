"""Token weights of the loss: one a file."""

from budgeteer.rl.weight.prompt_mean import prompt_mean
from budgeteer.rl.weight.sequence_mean import sequence_mean
from budgeteer.rl.weight.thin import thin
from budgeteer.rl.weight.token_mean import token_mean

__all__ = ["prompt_mean", "sequence_mean", "thin", "token_mean"]

"""Token weights of the loss: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.weight._decision_mask import decision_mask
    from budgeteer.rl.weight._prompt_mean import prompt_mean
    from budgeteer.rl.weight._sequence_mean import sequence_mean
    from budgeteer.rl.weight._token_mean import token_mean

__all__ = [
    "decision_mask",
    "prompt_mean",
    "sequence_mean",
    "token_mean",
]

__getattr__ = lazy(
    __name__,
    {
        "decision_mask": "_decision_mask",
        "prompt_mean": "_prompt_mean",
        "sequence_mean": "_sequence_mean",
        "token_mean": "_token_mean",
    },
)

"""Offloading: nothing is dropped, and each generated token reads what its query chooses.

Paper: "TokenSelect: Efficient Long-Context Inference and Length Extrapolation for LLMs via Dynamic Token-Level KV Cache
Selection", arXiv 2411.02886 (the choice is used again while queries stay alike).
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgeteer.cache.protocol import Asked, Rest
from budgeteer.core.errors import InvalidInput


def offload(every: int = 1, alike: float = 1.0) -> Rest:
    """Hold all entries in cold memory, and let each generated token read only as many as the budget has.

    Formula: a head chooses by the score of the token's query, ``every`` tokens after its last choice or later, and only
    where the cosine of that query and the one of its last choice, on the mean over the query heads of the layer, is
    below ``alike``. In between it reads what it chose, and what came since.
    Helps where what matters changes from token to token: nothing is lost. It frees no memory as a whole: cold entries
    lie in the memory of the CPU, and are counted apart. Prompts, chunks and further turns read everything.

    Args:
        every: tokens from one choice to the next, >= 1.
        alike: 1 = choose whatever the query is; the paper has 0.9.
    """
    if every < 1 or not 0 < alike <= 1:
        raise InvalidInput(f"offload: every={every}, alike={alike}; give every >= 1 and alike above 0, up to 1")

    def renew(asked: Asked) -> Tensor:
        due = asked.steps >= every
        if alike == 1:
            return due
        near = torch.cosine_similarity(asked.queries.float().flatten(1), asked.before.float().flatten(1), dim=-1)
        return due & (near < alike)[:, None]

    return Rest(renew=renew)

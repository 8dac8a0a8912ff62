"""FlexiCache: heads whose choice changes choose at every token, the others seldom.

Paper: "FlexiCache: Leveraging Temporal Stability of Attention Heads for Efficient KV Cache Management", arXiv
2511.00868.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from budgeteer.cache.protocol import Asked, Rest
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def flexi_cache(every: int = 16, unstable: Sequence[Sequence[int]] = ()) -> Rest:
    """Hold all entries in cold memory; unstable heads choose anew for every token, stable ones every so many tokens.

    Formula: the key-value heads of ``unstable`` choose at every token, the others when ``every`` tokens have passed.
    Which heads are unstable is a property of the model: :func:`budgeteer.cache.stability.unstable` names the quarter
    whose choices have least in common from one time to another.
    Helps where few heads account for most changes: entries move seldom for all the others. Here each choice builds a
    layer's chosen entries anew, so that only the score is saved, not the copy; the paper moves pages of a vLLM fork.

    Args:
        every: tokens from one choice of a stable head to the next, >= 1.
        unstable: pairs of a layer and a key-value head.
    """
    pairs = [tuple(pair) for pair in unstable]
    if every < 1 or not all(len(pair) == 2 and all(type(i) is int and i >= 0 for i in pair) for pair in pairs):
        raise InvalidInput(
            f"flexi-cache: every={every}, unstable={unstable}; give every >= 1 and pairs of a layer and a head, "
            "such as [[0, 1], [3, 0]]"
        )

    def renew(asked: Asked) -> Tensor:
        heads = torch.tensor([head for layer, head in pairs if layer == asked.layer], dtype=torch.long)
        restless = torch.isin(torch.arange(asked.steps.shape[1]), heads).to(asked.steps.device)
        return restless | (asked.steps >= every)

    return Rest(renew=renew)

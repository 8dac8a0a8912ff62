"""KeyDiff: keys unlike the mean key.

Paper: "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained
Environments", arXiv 2504.15364.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from budgeteer.cache.protocol import Cells, Score

if TYPE_CHECKING:
    from torch import Tensor


def keydiff(every: int = 0) -> Score:
    """Keep entries whose keys point elsewhere than the mean of the head.

    Formula: s_i = -cos(k_i, m), m = the mean over the head's entries of k_j / ||k_j||.
    Helps since keys that stand apart tend to be read, and no query is needed. It sees no difference between a key that
    matters and one that is odd.

    Args:
        every: 0 = choose after prompts only; k = after every k generated tokens, too.
    """
    return Score(_score, every=every)


def _score(cells: Cells, memory: Tensor) -> Tensor:
    keys = cells.keys.float()
    unit = keys / torch.linalg.vector_norm(keys, dim=-1, keepdim=True).clamp(min=1e-12)
    there = cells.valid[..., None]
    mean = (unit * there).sum(2, keepdim=True) / there.sum(2, keepdim=True).clamp(min=1)
    return -torch.cosine_similarity(keys, mean, dim=-1)
